"""The sender's side: `requests` code that goes through the agent.

This package owns what a pipeline needs to reach a target through an agent. It must not run any part of the agent (`testing` alone does),
and importing it loads nothing that the extra `agent` brings. Its names are loaded when they are first used, so that the package's own
pytest plugin costs a test run nothing.

::

    session = relay_session(ContextClient(context, agent_id))  # in a task script
    session = relay_session(CommandClient(api_target, org_slug, jwt, agent_id))  # anywhere else
    session.get("https://lims.lab.example/api/samples", timeout=30).json()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay_agent.pipelines.client import CommandClient
    from relay_agent.pipelines.context_client import ContextClient
    from relay_agent.pipelines.encoding import Answer
    from relay_agent.pipelines.failures import NoAnswer
    from relay_agent.pipelines.requests_adapter import RelayAdapter, relay_session
    from relay_agent.protocol.keyring import Keyring

__all__ = ["Answer", "CommandClient", "ContextClient", "Keyring", "NoAnswer", "RelayAdapter", "relay_session"]

_MODULES = {
    "Answer": "relay_agent.pipelines.encoding",
    "CommandClient": "relay_agent.pipelines.client",
    "ContextClient": "relay_agent.pipelines.context_client",
    "Keyring": "relay_agent.protocol.keyring",
    "NoAnswer": "relay_agent.pipelines.failures",
    "RelayAdapter": "relay_agent.pipelines.requests_adapter",
    "relay_session": "relay_agent.pipelines.requests_adapter",
}


def __getattr__(name: str) -> Any:
    """Load a name of this package."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the names, loaded or not."""
    return sorted({*globals(), *__all__})
