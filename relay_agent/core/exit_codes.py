"""The exit codes of every `relay-agent` command (docs/operations.md, "Exit codes"). Supervisors decide by them: do not change them."""

from __future__ import annotations

EXIT_OK = 0
"""Stopped cleanly; ready; no check failed; `qualify`: everything is as expected."""
EXIT_ERROR = 1
"""`run` gave up or the token has expired; `check` or `explain` found an error; `status` found an agent that is not ready;
`qualify`: not everything is as expected."""
EXIT_CONFIGURATION = 2
"""The configuration is invalid, or (`run`) another agent holds the state directory."""
EXIT_REFUSED = 3
"""`run`: the platform refused the agent."""
EXIT_NO_AGENT = 4
"""`status`: no agent runs here."""
EXIT_HTTP_ERROR = 22
"""`send`: the target answered with an error status. The same code as curl's."""
