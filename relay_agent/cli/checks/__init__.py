"""The checks of `relay-agent check` and `relay-agent explain` (docs/operations.md), as data; `cli.diagnose` prints them.

Owns the checks, their order, and the trace of a route to a URL. It must not start or change anything, hold a lock that the agent needs,
receive a message from a queue, or word a cause or a cure: `diagnostics` does.
"""

from relay_agent.cli.checks.preflight import CHECK_IDS, Bounds, check_all
from relay_agent.cli.checks.result import Check, Status, exit_code, report
from relay_agent.cli.checks.target_check import Explained, explain

__all__ = ["CHECK_IDS", "Bounds", "Check", "Explained", "Status", "check_all", "exit_code", "explain", "report"]
