"""Delivery by syslog: the order, what is sent again, and that a failure is logged once, however often it is tried."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from relay_agent.agent.syslog_shipper import IDLE_SECONDS, INTERVAL_SECONDS, REPORT_DROPPED_SECONDS, SETTLED_SECONDS, SyslogShipper
from relay_agent.core.clock import Clock
from relay_agent.core.failures import Code, Phase, TlsTrouble
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.transport.errors import TransportFault

HOUR = 3600.0


def fault(code: Code = Code.ECONNREFUSED, trouble: TlsTrouble | None = None, phase: Phase = Phase.CONNECT) -> TransportFault:
    made = TransportFault(code, f"connect {code} logs.lab.example:6514", trouble)
    made.facts = replace(made.facts, host="logs.lab.example", port=6514, phase=phase)
    return made


class Receiver:
    """The other end of the connection: it fails as the test says."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.refuses: TransportFault | None = None
        self.ended: TransportFault | None = None
        self.fails_at: str | None = None
        self.is_open = False
        self.opened = 0

    def open(self, seconds: float) -> None:
        assert seconds > 0
        if self.refuses is not None:
            raise self.refuses
        self.opened += 1
        self.is_open = True

    def send(self, message: str) -> None:
        assert self.is_open
        if message == self.fails_at:
            self.fails_at = None
            self.is_open = False
            raise fault(Code.ECONNRESET, phase=Phase.SENDING)
        self.received.append(message)

    def look(self) -> None:
        assert self.is_open
        if self.ended is not None:
            ended, self.ended = self.ended, None
            self.is_open = False
            raise ended

    def close(self) -> None:
        self.is_open = False

    def abort(self) -> None:
        """Nothing waits."""


class Rig:
    """A shipper with its receiver, its clock and the lines it logs."""

    def __init__(self, buffer: LogBuffer | None = None) -> None:
        self.seconds = 0.0
        self.stdout = io.StringIO()
        self.buffer = buffer or LogBuffer()
        self.receiver = Receiver()
        clock = Clock(now=lambda: datetime(2026, 11, 23, tzinfo=UTC), monotonic=lambda: self.seconds)
        self.shipper = SyslogShipper(self.buffer, self.receiver, Logs("info", Redactor(), None, self.stdout, clock).logger, clock)

    def fill(self, *lines: str) -> None:
        for line in lines:
            self.buffer.accept(0, line)

    def run(self, seconds: float) -> int:
        """Step until so much time has passed; return the number of steps."""
        end, steps = self.seconds + seconds, 0
        while self.seconds < end:
            self.seconds += max(self.shipper.step(), 0.001)
            steps += 1
        return steps

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.getvalue().splitlines()]

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.logged]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_lines_go_out_in_order_over_one_connection(rig: Rig) -> None:
    rig.fill("a", "b")
    assert rig.shipper.step() == INTERVAL_SECONDS
    rig.fill("c")
    rig.shipper.step()
    assert (rig.receiver.received, rig.receiver.opened, rig.shipper.waiting) == (["a", "b", "c"], 1, 0)
    assert rig.events == []


def test_nothing_is_opened_while_no_line_waits(rig: Rig) -> None:
    rig.run(HOUR)
    assert rig.receiver.opened == 0


def test_a_receiver_that_is_away_is_logged_once_with_cause_and_cure_and_tried_ever_more_seldom(rig: Rig) -> None:
    rig.receiver.refuses = fault()
    rig.fill("a")
    assert rig.run(HOUR) < 130
    (line,) = rig.logged
    assert (line["event"], line["level"], line["tries"]) == ("syslog-failed", "warning", 1)
    assert "logs.lab.example refuses connections on port 6514" in line["cause"]
    assert "RELAY_LOG_SYSLOG" in line["cure"]
    assert rig.shipper.problem is not None
    assert rig.shipper.problem.cause.id == "syslog"


def test_its_return_is_logged_once_it_has_lasted_a_minute(rig: Rig) -> None:
    rig.receiver.refuses = fault()
    rig.fill("a", "b")
    rig.run(10)
    rig.receiver.refuses = None
    rig.run(50)
    assert (rig.receiver.received, rig.events) == (["a", "b"], ["syslog-failed"])
    rig.run(SETTLED_SECONDS + 60)
    assert (rig.events, rig.shipper.problem) == (["syslog-failed", "syslog-recovered"], None)


def test_what_a_failure_interrupted_is_sent_again_and_nothing_before_it(rig: Rig) -> None:
    rig.receiver.fails_at = "b"
    rig.fill("a", "b", "c")
    rig.run(2)
    assert rig.receiver.received == ["a", "b", "c"]


def test_a_receiver_that_accepts_each_connection_and_drops_it_is_one_failure(rig: Rig) -> None:
    """A load balancer with nothing behind it; and a datagram to a port where nobody listens."""
    for _ in range(100):
        rig.fill("line")
        rig.receiver.ended = fault(Code.ECONNRESET, phase=Phase.SENDING) if rig.receiver.is_open else None
        rig.run(2)
    assert rig.events == ["syslog-failed"]
    assert rig.shipper.problem is not None


def test_a_refused_datagram_does_not_count_as_over_because_nothing_is_sent(rig: Rig) -> None:
    rig.fill("line")
    rig.shipper.step()
    rig.receiver.ended = fault(phase=Phase.SENDING)
    rig.seconds += 1
    rig.run(24 * HOUR)
    assert rig.events == ["syslog-failed"]


def test_the_end_of_an_idle_connection_is_no_failure(rig: Rig) -> None:
    rig.fill("a")
    rig.shipper.step()
    rig.seconds += IDLE_SECONDS + 1
    rig.receiver.ended = fault(Code.ECONNRESET, phase=Phase.SENDING)
    rig.shipper.step()
    rig.fill("b")
    rig.shipper.step()
    assert (rig.receiver.received, rig.receiver.opened, rig.events) == (["a", "b"], 2, [])


def test_dropped_lines_are_counted_and_reported_after_the_return() -> None:
    rig = Rig(LogBuffer(max_lines=2))
    rig.fill("a", "b", "c", "d", "e")
    assert rig.shipper.dropped == 3
    rig.shipper.step()
    rig.fill("f", "g", "h")
    rig.run(REPORT_DROPPED_SECONDS + 5)
    assert [(line["event"], line["count"]) for line in rig.logged] == [("syslog-lines-dropped", 3), ("syslog-lines-dropped", 1)]


def test_many_lines_are_sent_without_a_pause(rig: Rig) -> None:
    rig.fill(*[f"{number} " + "x" * 8000 for number in range(100)])
    assert rig.shipper.step() == 0.0
    rig.run(1)
    assert len(rig.receiver.received) == 100


def test_the_last_lines_are_sent_at_the_end_unless_the_receiver_fails(rig: Rig) -> None:
    rig.fill("last")
    rig.shipper.flush(1.0)
    assert (rig.receiver.received, rig.receiver.is_open) == (["last"], False)
    rig.receiver.refuses = fault()
    rig.fill("lost")
    rig.shipper.flush(1.0)
    assert rig.shipper.waiting == 1


@pytest.mark.parametrize(
    "failed, words",
    [
        (fault(Code.ENOTFOUND), ("does not exist", "the host in RELAY_LOG_SYSLOG")),
        (fault(Code.ETIMEDOUT), ("does not answer", "no proxy is used")),
        (fault(Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, phase=Phase.TLS), ("does not trust", "RELAY_CA_FILE")),
        (fault(Code.EPROTO, TlsTrouble.NOT_TLS, Phase.TLS), ("does not speak TLS", "tcp://")),
        (fault(Code.EPROTO, TlsTrouble.CLIENT_CERTIFICATE, Phase.TLS), ("client certificate", "rsyslog")),
        (fault(Code.EPROTO, TlsTrouble.OLD_VERSION, Phase.TLS), ("older than 1.2", "RELAY_LOG_SYSLOG")),
    ],
)
def test_each_fault_has_a_cause_and_a_cure_of_its_own(rig: Rig, failed: TransportFault, words: tuple[str, str]) -> None:
    rig.receiver.refuses = failed
    rig.fill("a")
    rig.shipper.step()
    (line,) = rig.logged
    assert words[0] in line["cause"]
    assert words[1] in line["cure"]
