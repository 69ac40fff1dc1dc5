"""What `relay-agent check` and `relay-agent explain` find out (OPERATIONS §1, §2): data first, `cli_diagnose` renders it.

This room owns the checks, their order, and the walk to a URL. It must not start or change anything, hold a lock that the agent
needs, take a message from a queue, or word a cause or a cure: these stand in `causes`.
"""

from relay_agent.cli.checks.preflight import CHECK_IDS, Bounds, check_all
from relay_agent.cli.checks.result import Check, Status, exit_code, report
from relay_agent.cli.checks.target_check import Explained, explain

__all__ = ["CHECK_IDS", "Bounds", "Check", "Explained", "Status", "check_all", "exit_code", "explain", "report"]
