"""A command's one line: its fields in order, its length, and no secret in it (docs/logs.md)."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.models import ACTION_SECURE, Status
from relay_agent.telemetry.command_report import Report, command_line
from relay_agent.telemetry.logger import WITHHELD
from tests.counting import calls_of
from tests.unit.telemetry.scenes import CANARY, Written

MOST_CALLS = 160


# The canonical line of a command
def line_of(written: Written, **fields: Any) -> None:
    command_line(written.log, Report(**fields))


def test_a_command_line_has_the_documented_fields_in_order(written: Written) -> None:
    line_of(
        written,
        id="9b9f275c",
        action="a.b",
        method="GET",
        host="h",
        port=443,
        status=Status.SUCCESS,
        status_code=200,
        bytes_in=5,
        bytes_out=6,
        queued_ms=1,
        target_ms=250,
        total_ms=300,
    )
    line_of(written, id="2", action="a.b", status=Status.REJECTED, code="UNKNOWN_COMMAND")
    first, second = written.lines
    times = ["queuedMs", "targetMs", "totalMs"]
    head = ["event", "timestamp", "level", "id", "action"]
    assert list(first) == [*head, "method", "host", "port", "status", "statusCode", "bytesIn", "bytesOut", *times]
    assert list(second) == [*head, "status", "code", "bytesIn", "bytesOut", *times]
    assert [first[name] for name in times] == [1, 250, 300]


TEXT = st.one_of(st.text(max_size=900), st.text(alphabet='\x00\x1b"\\é\U0001f600\ud800x', max_size=600))


@given(TEXT, TEXT, TEXT, TEXT, TEXT, st.integers(0, 2**53))
def test_a_command_line_is_at_most_500_bytes_whatever_the_sender_wrote(
    id: str, action: str, method: str, host: str, rule: str, size: int
) -> None:
    """And however long the name of a rule is."""
    written = Written()
    line_of(
        written,
        id=id,
        action=action,
        method=method,
        host=host,
        port=65535,
        status=Status.PROCESSING,
        code="UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        would_refuse=f"{rule[:100]} (redirect to https://{host[:253]}:65535)",
        status_code=599,
        bytes_in=size,
        bytes_out=size,
        queued_ms=86_400_000,
        target_ms=86_400_000,
        total_ms=172_800_000,
    )
    raw = written.stream.getvalue().encode()
    assert len(raw) <= 500
    assert raw.count(b"\n") == 1
    assert json.loads(raw)["bytesIn"] == size


def test_only_the_long_fields_are_cut(written: Written) -> None:
    line_of(written, id="the-id", action="a" * 3000, method="GET", host="h.example", status=Status.REJECTED)
    line = written.lines[0]
    assert (line["id"], line["method"], line["host"]) == ("the-id", "GET", "h.example")
    assert line["action"].endswith("aaa...")
    assert 490 <= len(written.stream.getvalue()) <= 500


def test_a_secret_is_masked_before_the_line_is_cut(written: Written) -> None:
    line_of(written, id=CANARY, action=f"{'a' * 150} {CANARY}" * 4, method=CANARY, host=f"u:{CANARY}@h", status=Status.FAILURE)
    assert not re.search(f"{CANARY[:8]}", written.stream.getvalue())


def test_a_command_line_takes_few_function_calls(written: Written) -> None:
    """Counted, because times depend on the machine; `make bench` measures them."""

    def line() -> None:
        line_of(written, id="9b9f275c-a60d-454f-8c6c-1ea094e3fd38", action="a.b", method="GET", host="h.example", status=Status.SUCCESS)

    assert 10 < calls_of(line) < MOST_CALLS


def test_withheld_fields_are_on_stdout_but_not_shipped(written: Written) -> None:
    line_of(written, id="7", action=ACTION_SECURE, method="PUT", host="lims.example", port=443, status=Status.SUCCESS)
    written.log.warning("x", a=1, b=2, **{WITHHELD: "b.c"})
    here, there = written.lines, [json.loads(line) for _, line in written.sink.lines]
    assert (here[0]["method"], here[0]["host"], here[0]["port"], here[1]["b"]) == ("PUT", "lims.example", 443, 2)
    assert there == [
        {name: value for name, value in here[0].items() if name not in ("method", "host", "port")},
        {name: value for name, value in here[1].items() if name != "b"},
    ]
    assert WITHHELD not in written.stream.getvalue()
