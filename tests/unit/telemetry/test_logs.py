"""Log lines: their form and length, what is left out, and that logging never raises."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from relay_agent.core.clock import Clock
from relay_agent.core.failures import Cause
from relay_agent.core.models import ACTION_SECURE, Status
from relay_agent.telemetry.command_report import Report, command_line
from relay_agent.telemetry.log_rendering import frames, render
from relay_agent.telemetry.logger import WITHHELD
from relay_agent.telemetry.logs import LibraryHandler, Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.repeated_failure import RepeatedFailure
from relay_agent.telemetry.secret_patterns import MASK
from tests.counting import calls_of

NOW = datetime(2026, 11, 23, 3, 13, 0, 123_456, tzinfo=UTC)
CANARY = "c4n4rY-Tr0ub4dor"
MOST_CALLS = 160


class Sink:
    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def accept(self, timestamp_ms: int, line: str) -> None:
        self.lines.append((timestamp_ms, line))


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Written:
    """A log on a stream in memory."""

    def __init__(self, level: str = "info", console: bool = False) -> None:
        self.stream = io.StringIO()
        self.sink = Sink()
        self.time = Time()
        clock = Clock(now=lambda: NOW, monotonic=self.time)
        self.logs = Logs(level, Redactor([CANARY]), self.sink, self.stream, clock, console)
        self.log = self.logs.logger

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def written() -> Written:
    return Written()


def test_a_line_is_json_with_event_time_and_level_first(written: Written) -> None:
    written.log.info("started", workers=16, host="ä")
    assert (
        written.stream.getvalue()
        == '{"event":"started","timestamp":"2026-11-23T03:13:00.123Z","level":"info","workers":16,"host":"\\u00e4"}\n'
    )


def test_the_shipped_line_is_the_line_on_stdout(written: Written) -> None:
    written.log.warning("x", a=1)
    assert written.sink.lines == [(1795403580123, written.stream.getvalue().rstrip("\n"))]


def test_local_lines_are_not_shipped(written: Written) -> None:
    written.logs.local.error("log-delivery-failed")
    assert [line["event"] for line in written.lines] == ["log-delivery-failed"]
    assert written.sink.lines == []


@pytest.mark.parametrize("level, seen", [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_events_below_the_level_are_not_logged(level: str, seen: int) -> None:
    written = Written(level)
    for method in (written.log.debug, written.log.info, written.log.warning, written.log.error):
        method("x")
    assert len(written.lines) == len(written.sink.lines) == seen


def test_two_logs_share_nothing_and_leave_structlog_alone() -> None:
    before = structlog.get_config()
    first, second = Written("debug"), Written("error")
    first.log.debug("x")
    second.log.debug("x")
    assert (len(first.lines), len(second.lines)) == (1, 0)
    assert structlog.get_config() == before


def test_bound_fields_are_in_each_line(written: Written) -> None:
    log = written.log.bind(thread="poller")
    log.info("x")
    written.log.info("y")
    assert [line.get("thread") for line in written.lines] == ["poller", None]


def test_secrets_are_masked_in_every_field(written: Written) -> None:
    written.log.info("x", reason=f"http://u:{CANARY}@h/?k=v", nested={"Authorization": "zzz"}, other=CANARY)
    assert CANARY not in written.stream.getvalue() and "zzz" not in written.stream.getvalue()
    assert written.lines[0]["other"] == MASK


def fail(message: str) -> None:
    local_secret = f"{message} {CANARY}"
    raise ConnectionError(f"bad Authorization: {local_secret}")


@pytest.mark.parametrize("level", ["info", "debug"])
def test_an_exception_is_a_short_text_and_has_its_frames_only_at_debug(level: str) -> None:
    written = Written(level)
    try:
        try:
            fail("one\ntwo")
        except ConnectionError as error:
            raise RuntimeError("three") from error
    except RuntimeError:
        written.log.error("x", exc_info=True)
    line = written.lines[0]
    assert line["exception"] == "RuntimeError: three"
    assert ("traceback" in line) == (level == "debug")
    assert "Traceback" not in written.stream.getvalue()
    assert CANARY not in written.stream.getvalue()
    if level == "debug":
        assert any("fail" in text for text in line["traceback"])
        assert any("ConnectionError" in text for text in line["traceback"])


def test_a_validation_error_shows_fields_but_never_the_input(written: Written) -> None:
    class Model(BaseModel):
        number: int

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"number": "a-value"})
    written.log.error("x", exc_info=caught.value, error=caught.value)
    assert "a-value" not in written.stream.getvalue()
    assert written.lines[0]["exception"] == "ValidationError: number: int_parsing"


def test_logging_never_raises(written: Written) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    circle: list[object] = []
    circle.append(circle)
    written.log.info("x", broken=Broken(), circle=circle, surrogate="\ud800", nan=float("inf"), kind=type)
    written.stream.close()
    written.log.info("y")
    assert len(written.sink.lines) == 2


def test_a_full_disk_loses_the_line_but_raises_nothing() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    sink = Sink()
    Logs("info", Redactor(), sink, Full()).logger.info("x")
    assert len(sink.lines) == 1


def test_lines_of_many_threads_never_mix(written: Written) -> None:
    def work() -> None:
        for number in range(200):
            written.log.info("x", number=number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(written.lines) == 800


def test_a_line_is_never_longer_than_8_kib(written: Written) -> None:
    written.log.warning("x", text="ä" * 100_000, list=["y z" * 30_000], short="whole")
    line = written.stream.getvalue()
    assert len(line) <= 8192 + 1
    assert json.loads(line)["short"] == "whole"


def test_the_console_shows_control_characters_escaped_and_still_ships_json() -> None:
    written = Written(console=True)
    written.log.info("x", host="a\x1b[31m\x9bb\u202e")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", written.stream.getvalue())
    assert "\x1b" not in shown and "\x9b" not in shown and "\u202e" not in shown
    assert r"\x1b[31m" in shown
    assert json.loads(written.sink.lines[0][1])["host"] == "a\x1b[31m\x9bb\u202e"


@given(st.text(alphabet='\x00\x1b"\\é\U0001f600\ud800x ', max_size=60), st.integers(100, 300))
def test_a_text_is_cut_only_as_far_as_its_line_needs(text: str, copies: int) -> None:
    """A line that was cut has no space for one more character, which takes twelve bytes at most."""
    line = render({"event": "x", "text": text * copies, "list": [text * copies]})
    json.loads(line)
    assert len(line) <= 8192
    if '..."' in line:
        assert len(line) > 8192 - 2 * 12


def test_the_nearest_frames_and_causes_are_kept_of_a_deep_stack_and_a_long_chain() -> None:
    def sink(depth: int) -> None:
        if depth:
            sink(depth - 1)
        raise KeyError("deep")

    error: BaseException | None = None
    for number in range(100):
        try:
            sink(50) if not number else fail(str(number))
        except (KeyError, ConnectionError) as caught:
            caught.__cause__ = error
            error = caught
    assert error is not None
    lines = frames(error, str)
    assert len(lines) <= 10 * 3
    assert lines[0].endswith("_kept_of_a_deep_stack_and_a_long_chain")
    with pytest.raises(KeyError) as deep:
        sink(50)
    assert len(frames(deep.value, str)) == 21


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


@given(TEXT, TEXT, TEXT, TEXT, st.integers(0, 2**53))
def test_a_command_line_is_at_most_500_bytes_whatever_the_sender_wrote(id: str, action: str, method: str, host: str, size: int) -> None:
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


# What libraries log


@pytest.fixture
def captured(written: Written) -> Iterator[Written]:
    restore = written.logs.capture_libraries()
    yield written
    restore()


def test_library_records_are_logged_from_warning_up_and_redacted(captured: Written) -> None:
    library = logging.getLogger("urllib3.connectionpool")
    library.info("not heard")
    library.warning("Retrying after %r: /path?X-Amz-Signature=%s", OSError("gone"), CANARY)
    line = captured.lines[0]
    assert (line["event"], line["level"], line["logger"]) == ("library", "warning", "urllib3.connectionpool")
    assert "Retrying after OSError('gone')" in line["message"]
    assert CANARY not in captured.stream.getvalue()


def test_a_library_never_prints_a_traceback(captured: Written, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        fail("x")
    except ConnectionError:
        logging.getLogger("waitress").exception("Exception while serving /%s", "path")
    assert captured.lines[0]["level"] == "error"
    assert captured.lines[0]["exception"].startswith("ConnectionError: bad Authorization")
    assert "Traceback" not in captured.stream.getvalue() and CANARY not in captured.stream.getvalue()
    assert capsys.readouterr() == ("", "")


def test_a_broken_record_of_a_library_raises_nothing(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.Logger("botocore")  # noqa: LOG001 - one of its own, beside the handlers that pytest adds
    library.addHandler(LibraryHandler(written.log, written.time))
    library.warning("%d", "no number")
    library.warning("fine")
    assert [line["message"] for line in written.lines] == ["fine"]
    assert capsys.readouterr() == ("", "")


def test_a_repeated_library_record_is_logged_once_a_minute(captured: Written) -> None:
    library = logging.getLogger("urllib3.connectionpool")
    for number in range(50):
        library.warning("Connection pool is full: %s", number)
    assert len(captured.lines) == 1
    captured.time.seconds += 60
    library.warning("Connection pool is full: %s", 51)
    assert captured.lines[1]["suppressed"] == 49


def test_a_python_warning_is_a_log_line(captured: Written) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"Unverified HTTPS request with password={CANARY}", stacklevel=1)
    assert captured.lines[0]["logger"] == "py.warnings"
    assert CANARY not in captured.stream.getvalue()


def test_capturing_libraries_can_be_undone_completely(written: Written) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, warnings.showwarning)
    written.logs.capture_libraries()()
    assert (root.handlers[:], root.level, warnings.showwarning) == before


# Failures that repeat


CAUSE = Cause("platform", "what lies behind it", "what cures it")


def repeated(written: Written, **options: Any) -> RepeatedFailure:
    return RepeatedFailure(written.log, "heartbeat-failed", "heartbeat-recovered", written.time, **options)


def test_a_repeated_failure_is_logged_when_it_starts_changes_and_ends(written: Written) -> None:
    failure = repeated(written)
    failure.success()
    for reason in ("refused", "refused", "timeout", "timeout", "refused"):
        failure.failure(reason, CAUSE, status=503)
        written.time.seconds += 10
    assert failure.failing
    failure.success()
    failure.success()
    assert not failure.failing
    assert [(line["event"], line.get("reason"), line["tries"]) for line in written.lines] == [
        ("heartbeat-failed", "refused", 1),
        ("heartbeat-failed", "timeout", 3),
        ("heartbeat-recovered", None, 5),
    ]
    assert written.lines[-1]["seconds"] == 50.0
    assert (written.lines[0]["cause"], written.lines[0]["cure"], written.lines[0]["status"]) == (CAUSE.cause, CAUSE.cure, 503)


def test_the_next_failure_is_a_new_one(written: Written) -> None:
    failure = repeated(written)
    failure.failure("refused", CAUSE)
    failure.success()
    failure.failure("refused", CAUSE)
    assert [line["event"] for line in written.lines] == ["heartbeat-failed", "heartbeat-recovered", "heartbeat-failed"]


def test_a_lasting_failure_is_logged_three_times_and_then_once_a_minute(written: Written) -> None:
    failure = repeated(written, first=3, remind_seconds=60.0)
    for _ in range(100):
        failure.failure("refused", CAUSE)
        written.time.seconds += 5
    assert [line["tries"] for line in written.lines[:5]] == [1, 2, 3, 15, 27]
    assert len(written.lines) == 3 + 8


def test_only_the_beginning_of_a_reason_is_kept(written: Written) -> None:
    failure = repeated(written)
    for number in range(100):
        failure.failure("the answer was " + "a" * 10_000 + str(number), CAUSE)
    assert [line["tries"] for line in written.lines] == [1]
    failure.failure("timeout", CAUSE)
    assert len(written.lines) == 2


def test_always_different_reasons_do_not_flood_the_log(written: Written) -> None:
    failure = repeated(written)
    for number in range(1000):
        failure.failure(f"after {number} s", CAUSE)
    assert len(written.lines) == 32
