"""Log lines: their form, their length, what is left out, and that logging never fails."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator

import pytest
import structlog
from pydantic import BaseModel, ValidationError

from relay_agent.telemetry.logs import LibraryHandler, Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.secret_patterns import MASK
from tests.unit.telemetry.scenes import CANARY, Sink, Written, fail


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
