"""Syslog messages: each is what RFC 5424 allows, whatever the names, and holds the line unchanged."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.clock import Clock
from relay_agent.telemetry import syslog_lines
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.syslog_lines import SyslogLines
from tests.syslog_receiver import Message, parse

NOW = datetime(2026, 11, 23, 3, 13, 0, 123_000, tzinfo=UTC)
AGENT_ID = "9b9f275c-a60d-454f-8c6c-1ea094e3fd38"
CANARY = "c4n4rY-Tr0ub4dor"


def taken(lines: SyslogLines) -> list[Message]:
    return [parse(line.text.encode("ascii")) for line in lines.buffer.take()]


def logs(lines: SyslogLines, stream: io.StringIO, *, console: bool = False) -> Logs:
    clock = Clock(now=lambda: NOW, monotonic=lambda: 0.0)
    return Logs("debug", Redactor([CANARY]), LogBuffer(), stream, clock, console, lines)


@pytest.mark.parametrize("level, severity", [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_a_message_names_level_event_time_host_and_agent_and_holds_the_line(level: str, severity: int) -> None:
    lines, stream = SyslogLines(AGENT_ID, "lab-basel-1"), io.StringIO()
    getattr(logs(lines, stream).logger, level)("agent-ready", region="eu-west-1", name="Zürich")
    line = stream.getvalue().rstrip("\n")
    assert taken(lines) == [
        Message(
            3, severity, "2026-11-23T03:13:00.123Z", "lab-basel-1", "relay-agent", AGENT_ID, "agent-ready", '[meta sequenceId="1"]', line
        )
    ]


def test_the_messages_are_those_of_both_loggers_in_json_even_if_stdout_is_a_terminal() -> None:
    lines, stream = SyslogLines(AGENT_ID, "h"), io.StringIO()
    log = logs(lines, stream, console=True)
    log.logger.info("started")
    log.local.warning("log-delivery-failed")
    assert [json.loads(message.line)["event"] for message in taken(lines)] == ["started", "log-delivery-failed"]
    assert not stream.getvalue().startswith("{")


def test_secrets_are_masked_and_what_only_this_site_may_see_is_kept() -> None:
    lines = SyslogLines(AGENT_ID, "h")
    logs(lines, io.StringIO()).logger.info("command", host="lims.lab.example", text=f"a {CANARY}", withheld="host")
    (message,) = taken(lines)
    assert json.loads(message.line)["host"] == "lims.lab.example"
    assert CANARY not in message.line


def test_a_gap_in_the_sequence_shows_that_lines_were_dropped() -> None:
    lines = SyslogLines(AGENT_ID, "h", LogBuffer(max_lines=2))
    for _ in range(5):
        lines.accept("x", "info", "2026-11-23T03:13:00.123Z", "{}")
    assert [message.data for message in taken(lines)] == ['[meta sequenceId="4"]', '[meta sequenceId="5"]']
    assert lines.buffer.dropped_total == 3


def test_the_sequence_begins_again_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog_lines, "MAX_SEQUENCE", 2)
    lines = SyslogLines(AGENT_ID, "h")
    for _ in range(3):
        lines.accept("x", "info", "2026-11-23T03:13:00.123Z", "{}")
    assert [message.data[-3] for message in taken(lines)] == ["1", "2", "1"]


@given(agent=st.text(), host=st.text(), event=st.text())
def test_no_name_makes_a_message_that_the_rfc_does_not_allow(agent: str, host: str, event: str) -> None:
    lines = SyslogLines(agent, host)
    lines.accept(event, "info", "2026-11-23T03:13:00.123Z", "{}")
    assert [message.line for message in taken(lines)] == ["{}"]


def test_what_waits_is_bounded() -> None:
    lines = SyslogLines(AGENT_ID, "h")
    for _ in range(500):
        lines.accept("x", "info", "2026-11-23T03:13:00.123Z", "x" * 8192)
    assert sum(line.size for line in lines.buffer.take(10**9)) <= syslog_lines.MEMORY_BYTES
    assert lines.buffer.dropped_total > 0
