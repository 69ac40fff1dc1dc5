"""The thread `environment`: it looks every two seconds, and says so to the watchdog."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent.monitors import STEP_SECONDS, Monitors
from relay_agent.core.clock import Clock
from relay_agent.diagnostics.loop_status import LoopStatus


def monitors(environment: Callable[[], None], expiry: Callable[[], None]) -> Monitors:
    """Monitors whose two looks are given."""
    return Monitors(cast("Any", SimpleNamespace(look=environment)), cast("Any", SimpleNamespace(look=expiry)))


def test_each_step_looks_at_everything_once_and_says_what_it_is_doing() -> None:
    status, seen = LoopStatus(Clock()), []
    looking = monitors(lambda: seen.append(("environment", status.activity)), lambda: seen.append(("expiry", status.activity)))
    assert [looking.step(status), looking.step(status)] == [STEP_SECONDS] * 2
    assert [name for name, _ in seen] == ["environment", "expiry"] * 2
    assert "files" in seen[0][1]


def test_an_error_reaches_the_loop_which_counts_it() -> None:
    def fail() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        monitors(fail, fail).step(LoopStatus(Clock()))
