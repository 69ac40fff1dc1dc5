"""When the timer that ends a frozen process is set, and when not.

The processes that it ends are tested in `tests/integration/test_freeze_alone.py`, whole agents in `tests/integration/test_freeze.py`.
"""

from __future__ import annotations

import faulthandler
import threading

import pytest

from relay_agent.agent.freeze import Freeze


def test_the_timer_is_set_again_now_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now, limits = 0.0, []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: limits.append(seconds))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: limits.append(None))
    freeze = Freeze(300.0, lambda: now)
    for tenth in range(300):
        now = tenth / 10
        freeze.keep_alive()
    freeze.allow(25.0)
    freeze.disarm()
    freeze.disarm()
    assert limits == [300.0, 300.0, 300.0, 325.0, None]


def test_a_system_that_gives_no_thread_for_the_timer_does_not_end_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("unable to start watchdog thread")

    monkeypatch.setattr(faulthandler, "dump_traceback_later", refuse)
    freeze = Freeze(300.0)
    freeze.keep_alive()
    freeze.disarm()


def test_an_agent_that_is_not_the_process_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: limits.append(seconds))
    thread = threading.Thread(target=Freeze(300.0).keep_alive)
    thread.start()
    thread.join()
    assert limits == []
