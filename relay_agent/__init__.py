"""Relay Agent: HTTP commands in from the Tetra Data Platform's queue, answers out.

The version stands here and nowhere else; ``agentVersion`` on the wire is ``v`` and this (PROTOCOL §1).
"""

__version__ = "0.1.0"

AGENT_VERSION = f"v{__version__}"
