"""The sender's side: post commands to the platform, and use the agent as a transport of requests.

This package owns what a pipeline needs to reach a target through an agent. It must not run any part of
the agent.

::

    session = requests.Session()
    session.mount("https://", RelayAdapter(CommandClient(api_target, org_slug, jwt, agent_id, requests.Session())))
    session.get("https://lims.lab.example/api/samples")
"""

from relay_agent.pipelines.client import CommandClient, NoAnswer
from relay_agent.pipelines.encoding import Answer
from relay_agent.pipelines.requests_adapter import RelayAdapter
from relay_agent.pipelines.session import platform_session

__all__ = ["Answer", "CommandClient", "NoAnswer", "RelayAdapter", "platform_session"]
