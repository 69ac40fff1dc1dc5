"""Relay Agent: runs the HTTP commands of the Tetra Data Platform's queue and returns their answers.

The only place that holds the version; on the wire, ``agentVersion`` is ``v`` followed by it (PROTOCOL §1).
"""

__version__ = "0.1.0"

AGENT_VERSION = f"v{__version__}"
USER_AGENT = f"relay-agent/{__version__}"
