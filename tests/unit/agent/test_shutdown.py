"""The order of the stop, with threads that never ran, so that nothing waits.

How long a stop takes if something hangs is tested with whole agents (`test_agent_drain.py`).
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay_agent.agent.shutdown import LEAST_SECONDS, Shutdown, share
from relay_agent.agent.signals import Signals
from relay_agent.agent.threads import AgentThread, ShutdownPhase, Stops, Threads
from relay_agent.core.clock import Clock, Deadline
from relay_agent.core.errors import Call, JournalError, PlatformUnreachable
from relay_agent.core.loop import one_shot
from relay_agent.diagnostics.watchdog import Watchdog

NAMES = {
    "poller": ShutdownPhase.INTAKE,
    "sender": ShutdownPhase.ANSWERS,
    "heartbeat": ShutdownPhase.HOUSEKEEPING,
    "fetcher-0": ShutdownPhase.FETCH,
    "worker-0": ShutdownPhase.WORK,
    "uploader-0": ShutdownPhase.ANSWERS,
    "log-shipper": ShutdownPhase.LOGS,
}


class World:
    """An agent about to stop; `did` holds the actions of the stop, in order."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.logged: dict[str, dict[str, Any]] = {}
        self.platform_status = SimpleNamespace(registered=True)
        self.report_fails = self.journal_fails = False
        stops = Stops()
        for name in ("intake", "answers", "housekeeping"):
            setattr(stops, name, self._event(name))
        declared = [
            AgentThread(
                one_shot(name, lambda: None),
                phase,
                lambda: "",
                end=lambda name=name: self.did.append(f"end {name}"),  # type: ignore[misc]
                interrupt=lambda name=name: self.did.append(f"interrupt {name}"),  # type: ignore[misc]
            )
            for name, phase in NAMES.items()
        ]
        self.threads = Threads(tuple(declared), {}, cast("Watchdog", None), stops)

    def stop(self, code: int = 0, *, report: bool = True) -> list[str]:
        did = self.did
        flow = SimpleNamespace(
            tasks=SimpleNamespace(running=lambda: 1),
            inbound=SimpleNamespace(ownership=SimpleNamespace(deleting=False)),
            journal=SimpleNamespace(give_up=lambda: did.append("give up"), counts=self._counts),
            outbox=SimpleNamespace(drain=lambda: did.append("drain"), pending=lambda: 0),
            summary=SimpleNamespace(log_rest=lambda: did.append("summary")),
        )
        platform = SimpleNamespace(
            client=SimpleNamespace(interrupt=lambda _name: None, rest=SimpleNamespace(report=self._report)),
            status=self.platform_status,
            log_shipper=SimpleNamespace(flush=lambda _seconds: did.append("flush")),
        )
        log = SimpleNamespace(info=self._log, warning=self._log)
        Shutdown(
            threads=self.threads,
            flow=cast("Any", flow),
            platform=cast("Any", platform),
            signals=Signals(),
            log=cast("Any", log),
            clock=Clock(),
        ).run(10.0, code, report=report)
        return did

    def _event(self, name: str) -> threading.Event:
        event, did = threading.Event(), self.did

        class Noted(threading.Event):
            def set(self) -> None:
                did.append(f"set {name}")
                event.set()

        return Noted()

    def _counts(self) -> dict[str, int]:
        if self.journal_fails:
            raise JournalError("the disk is full")
        return {"admitted": 1, "started": 2, "finished": 4}

    def _report(self, status: str) -> None:
        self.did.append(status)
        if self.report_fails:
            raise PlatformUnreachable(Call.STATUS, "refused")

    def _log(self, event: str, **fields: Any) -> None:
        self.did.append(event)
        self.logged[event] = fields


def test_a_stop_goes_in_order() -> None:
    assert World().stop() == [
        "set intake",
        "end fetcher-0",
        "end worker-0",
        "give up",
        "interrupt worker-0",
        "end sender",
        "end uploader-0",
        "drain",
        "set answers",
        "set housekeeping",
        "STOPPED",
        "summary",
        "agent-stopped",
        "flush",
    ]


def test_the_last_line_counts_unfinished_commands_and_unsent_answers() -> None:
    world = World()
    world.stop(code=3)
    assert world.logged["agent-stopped"] == {"code": 3, "running": 1, "left": 3, "untold": 4}


def test_without_a_readable_journal_the_last_line_has_no_counts() -> None:
    world = World()
    world.journal_fails = True
    world.stop()
    assert world.logged["agent-stopped"] == {"code": 0, "running": 1}


@pytest.mark.parametrize(("registered", "report", "reported", "flushed"), [(True, False, False, True), (False, True, False, False)])
def test_stopped_is_not_reported_if_the_platform_refused_the_agent_or_it_never_registered(
    registered: bool, report: bool, reported: bool, flushed: bool
) -> None:
    world = World()
    world.platform_status.registered = registered
    did = world.stop(report=report)
    assert ("STOPPED" in did, "flush" in did) == (reported, flushed)


def test_a_stop_that_cannot_be_reported_goes_on() -> None:
    world = World()
    world.report_fails = True
    did = world.stop()
    assert did[did.index("STOPPED") :] == ["STOPPED", "stop-not-reported", "summary", "agent-stopped", "flush"]


def test_a_step_may_take_half_of_the_remaining_time_and_never_less_than_the_minimum() -> None:
    now = 0.0
    drain = Deadline(4.0, lambda: now)
    assert share(10.0, drain) == 2.0
    assert share(1.0, drain) == 1.0
    now = 4.0
    assert share(1.0, drain) == LEAST_SECONDS
