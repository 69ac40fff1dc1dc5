"""The console script `relay-agent`: starts the command line, or says which extra brings it.

`pip install tdp-relay-agent` is the sender's side alone, so click and the rest may be missing. It must not import any of them at the top.
"""

from __future__ import annotations

import sys

from relay_agent.core.exit_codes import EXIT_CONFIGURATION


def main() -> None:
    """Run the command line; exit with 2 and one line if a package of the extra `agent` is not installed."""
    try:
        from relay_agent.cli.main import main as commands

        commands()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "relay_agent":
            raise
        missing = error.name.partition(".")[0]
    else:
        return
    print(f"relay-agent: {missing} is not installed; install the agent: pip install 'tdp-relay-agent[agent]'", file=sys.stderr)
    sys.exit(EXIT_CONFIGURATION)
