"""The look at what changes around the agent: the files that settings name, clock, certificates. The loop of the thread `environment`.

It has a thread of its own so that the journal's upkeep waits neither for a long policy file nor for a disk of the site. What a change
means is not known here.
"""

from __future__ import annotations

from collections.abc import Callable

from relay_agent.diagnostics.loop_context import LoopContext

STEP_SECONDS = 1.0


class Surroundings:
    """Looks once a second."""

    def __init__(self, look: Callable[[], None], loop: LoopContext) -> None:
        """`look` looks once, and logs what has changed (`Monitors`)."""
        self._look = look
        self._status = loop.status

    def step(self) -> float:
        """Look; return the seconds to wait before the next step."""
        self._status.begin("watching the settings' files and the clock")
        self._look()
        self._status.success()
        return STEP_SECONDS
