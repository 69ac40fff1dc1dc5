"""The journal of one state directory: what was accepted, started, answered and told, and what survives of it."""

from relay_agent.journal.damage import Damage
from relay_agent.journal.journal import KEEP_IDS_SECONDS, About, Admission, Incoming, Journal, Open, State
from relay_agent.journal.schema import SCHEMA_VERSION

__all__ = ["KEEP_IDS_SECONDS", "SCHEMA_VERSION", "About", "Admission", "Damage", "Incoming", "Journal", "Open", "State"]
