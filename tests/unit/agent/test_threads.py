"""How threads are declared: which starts last, what ends them, which may die."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from relay_agent.agent.signals import Signals
from relay_agent.agent.threads import AgentThread, Ending, ShutdownPhase, Stops, Threads
from relay_agent.core.clock import Clock
from relay_agent.core.loop import Loop, call_in_thread, one_shot
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[3]


def threads(*declared: AgentThread, stops: Stops | None = None) -> Threads:
    statuses = {thread.name: thread.status for thread in declared if thread.status}
    return Threads(declared, statuses, cast("Watchdog", None), stops or Stops())


def idle(name: str, phase: ShutdownPhase = ShutdownPhase.WORK, **more: Any) -> AgentThread:
    return AgentThread(one_shot(name, lambda: None), phase, lambda: "idle", **more)


def test_the_first_thread_is_started_last(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(Loop, "start", lambda self: started.append(self.name))
    threads(idle("poller"), idle("sender"), idle("log-shipper")).start()
    assert started == ["log-shipper", "sender", "poller"]


def test_a_thread_that_is_yet_to_be_started_counts_as_alive() -> None:
    one = idle("one")
    all_of_them = threads(one)
    assert one.alive
    assert all_of_them.dead() == []
    assert all_of_them.over()


def test_only_the_death_of_a_core_thread_counts() -> None:
    core, other = idle("core"), idle("other", core=False)
    all_of_them = threads(core, other)
    all_of_them.start()
    for thread in all_of_them.all:
        thread.loop.join(10)
    assert [loop.name for loop in all_of_them.dead()] == ["core"]
    assert (core.alive, other.alive) == (False, False)


def test_a_loop_ends_with_its_phase_and_its_activity_is_that_of_its_status() -> None:
    stops, status = Stops(), LoopStatus(Clock())
    sender = AgentThread.looping("sender", lambda: 0.0, ShutdownPhase.ANSWERS, stops, status)
    status.begin("sending")
    assert sender.activity() == "sending"
    stops.answers.set()
    sender.loop.run()  # Returns at once.
    assert sender.loop.error is None


@pytest.mark.parametrize("phase", ShutdownPhase)
def test_every_phase_has_an_event_that_ends_it(phase: ShutdownPhase) -> None:
    stops = Stops()
    named = {
        ShutdownPhase.INTAKE: stops.intake,
        ShutdownPhase.FETCH: stops.intake,
        ShutdownPhase.WORK: stops.intake,
        ShutdownPhase.ANSWERS: stops.answers,
        ShutdownPhase.HOUSEKEEPING: stops.housekeeping,
        ShutdownPhase.LOGS: stops.housekeeping,
    }
    assert stops.of(phase) is named[phase]


def test_threads_are_found_by_phase_and_by_name() -> None:
    found = threads(idle("worker-0"), idle("worker-1"), idle("poller", ShutdownPhase.INTAKE))
    assert [thread.name for thread in found.of(ShutdownPhase.WORK)] == ["worker-0", "worker-1"]
    assert [loop.name for loop in found.loops(ShutdownPhase.INTAKE)] == ["poller"]
    assert found.named("poller").phase is ShutdownPhase.INTAKE


def test_the_stop_has_begun_once_the_intake_is_stopped() -> None:
    stops = Stops()
    found = threads(stops=stops)
    assert not found.stopping()
    stops.intake.set()
    assert found.stopping()


def test_the_first_reason_to_end_counts() -> None:
    ending = Ending()
    ending.give(3, "refused")
    ending.give(1, "stuck")
    assert (ending.code, ending.reason, ending.given.is_set()) == (3, "refused", True)


def test_a_reason_to_end_wakes_the_main_thread() -> None:
    """It waits for signals, and so looks seldom."""
    signals = Signals()
    waiting = call_in_thread(lambda: signals.wait(60.0), "waiting")
    Ending(signals.wake).give(1, "stuck")
    assert waiting.result(20.0) is False


def test_every_declared_thread_stands_in_the_design() -> None:
    wiring = (ROOT / "relay_agent" / "agent" / "thread_wiring.py").read_text(encoding="utf-8")
    declared = set(re.findall(r'(?:looping|Loop|one_shot|worker)\(f?"([a-z-]+?)(?:-\{place\})?"', wiring))
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("\n## Threads\n")[1].split("\n## ")[0]
    table = {name.removesuffix("-0") for name in re.findall(r"^\| `([a-z0-9-]+)`", design, re.MULTILINE)}
    assert declared == table - {"admin", "lookup", "make-room"}
    assert len(declared) >= 9
