"""Delivery to CloudWatch: the service's limits, what is kept or dropped, and the effects of a failure."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_agent.agent.log_shipper import NEWEST, OLDEST, REPORT_DROPPED_SECONDS, SPAN_MS, LogShipper, LogStream, stream_name
from relay_agent.core.clock import Clock
from relay_agent.telemetry.log_buffer import BATCH_BYTES, BATCH_EVENTS, EVENT_BYTES, EVENT_OVERHEAD, MEMORY_BYTES, LogBuffer
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor
from tests.examples import examples

NOW = datetime(2026, 11, 23, 3, 13, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "PutLogEvents")


class Service:
    """PutLogEvents and CreateLogStream as the service documents them, in memory."""

    def __init__(self) -> None:
        self.streams: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.batches: list[list[dict[str, Any]]] = []
        self.failures: list[Exception] = []
        self.poison: str | None = None
        self.rejected: dict[str, int] = {}

    @property
    def messages(self) -> list[str]:
        return [event["message"] for batch in self.batches for event in batch]

    def create_log_stream(self, *, logGroupName: str, logStreamName: str) -> dict[str, Any]:
        assert 1 <= len(logStreamName) <= 512 and not set(logStreamName) & set(":*")
        if (logGroupName, logStreamName) in self.streams:
            raise refusal("ResourceAlreadyExistsException")
        self.streams[logGroupName, logStreamName] = []
        return {}

    def put_log_events(self, *, logGroupName: str, logStreamName: str, logEvents: list[dict[str, Any]]) -> dict[str, Any]:
        if self.failures:
            raise self.failures.pop(0)
        if (logGroupName, logStreamName) not in self.streams:
            raise refusal("ResourceNotFoundException")
        self._check(logEvents)
        if self.poison is not None and any(self.poison in event["message"] for event in logEvents):
            raise refusal("InvalidParameterException")
        self.streams[logGroupName, logStreamName] += logEvents
        self.batches.append(logEvents)
        return {"rejectedLogEventsInfo": self.rejected} if self.rejected else {}

    def _check(self, events: list[dict[str, Any]]) -> None:
        times = [event["timestamp"] for event in events]
        sizes = [len(event["message"].encode()) for event in events]
        assert 1 <= len(events) <= 10_000
        assert min(sizes) >= 1
        assert max(sizes) + 26 <= 262_144
        assert sum(sizes) + 26 * len(sizes) <= 1_048_576
        assert times == sorted(times)
        assert times[-1] - times[0] < 24 * 3600 * 1000


class Rig:
    """A shipper with its service, its clock and the lines it logs."""

    def __init__(self, buffer: LogBuffer | None = None, upload: Callable[[bytes], None] | None = None) -> None:
        self.service = Service()
        self.client: Service | None = self.service
        self.group: str | None = "/agent/logs"
        self.seconds = 0.0
        self.now = NOW
        self.stdout = io.StringIO()
        self.buffer = LogBuffer() if buffer is None else buffer
        clock = Clock(now=lambda: self.now, monotonic=lambda: self.seconds)
        self.logs = Logs("info", Redactor(), self.buffer, self.stdout, clock)
        stream = LogStream(lambda: self.client, lambda: self.group, stream_name("agent-1", NOW))
        self.shipper = LogShipper(self.buffer, stream, self.logs.logger, self.logs.local, clock, upload)

    def fill(self, count: int, text: str = "line") -> None:
        for number in range(count):
            self.buffer.accept(NOW_MS, f"{text} {number}")

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.stdout.getvalue().splitlines()]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_lines_from_before_the_agent_is_initialised_are_delivered_first(rig: Rig) -> None:
    rig.client = rig.group = None
    rig.logs.logger.info("early")
    assert rig.shipper.step() == 1.0
    rig.client, rig.group = rig.service, "/agent/logs"
    rig.logs.logger.info("late")
    assert rig.shipper.step() == 5.0
    assert [json.loads(message)["event"] for message in rig.service.messages] == ["early", "late"]
    assert list(rig.service.streams) == [("/agent/logs", "agent-1/20261123T031300Z")]
    assert "".join(f"{message}\n" for message in rig.service.messages) == rig.stdout.getvalue()


def test_nothing_is_called_while_there_is_nothing_to_ship(rig: Rig) -> None:
    assert rig.shipper.step() == 5.0
    assert rig.service.streams == {}


def test_a_stream_that_is_there_already_is_used(rig: Rig) -> None:
    rig.service.streams["/agent/logs", "agent-1/20261123T031300Z"] = []
    rig.fill(1)
    rig.shipper.step()
    assert rig.service.messages == ["line 0"]


def test_a_new_log_group_gets_its_own_stream(rig: Rig) -> None:
    rig.fill(1)
    rig.shipper.step()
    rig.group = "/agent/other"
    rig.fill(1)
    rig.shipper.step()
    assert [group for group, _ in rig.service.streams] == ["/agent/logs", "/agent/other"]


def test_a_deleted_stream_is_made_again(rig: Rig) -> None:
    rig.fill(1)
    rig.shipper.step()
    rig.service.streams.clear()
    rig.fill(1)
    rig.shipper.step()
    rig.shipper.step()
    assert rig.service.messages == ["line 0", "line 0"]


def test_a_batch_has_at_most_10000_events(rig: Rig) -> None:
    rig.fill(BATCH_EVENTS + 1500, "x")
    assert rig.shipper.step() == 0.0
    assert rig.shipper.step() == 5.0
    assert [len(batch) for batch in rig.service.batches] == [10_000, 1500]


def test_a_batch_fills_its_bytes_to_the_last_one(rig: Rig) -> None:
    each = BATCH_BYTES // 8 - EVENT_OVERHEAD
    for _ in range(9):
        rig.buffer.accept(NOW_MS, "x" * each)
    rig.shipper.flush(5)
    assert [len(batch) for batch in rig.service.batches] == [8, 1]


@pytest.mark.parametrize("character", ["x", "é", "€", "\U0001f600", "\ud800"])
def test_an_event_too_long_is_cut_between_characters(rig: Rig, character: str) -> None:
    rig.buffer.accept(NOW_MS, "a" + character * EVENT_BYTES)
    rig.shipper.step()
    size = len(rig.service.messages[0].encode())
    assert EVENT_BYTES - 4 < size <= EVENT_BYTES


def test_a_batch_is_sorted_and_spans_less_than_a_day(rig: Rig) -> None:
    times = [NOW_MS - hours * 3_600_000 for hours in (0, 30, 24, 6, 54)]
    for moment in times:
        rig.buffer.accept(moment, str(moment))
    rig.shipper.flush(5)
    assert [event["timestamp"] for batch in rig.service.batches for event in batch] == sorted(times)
    assert [len(batch) for batch in rig.service.batches] == [1, 2, 2]


def test_lines_too_old_or_too_new_are_dropped_counted_and_reported(rig: Rig) -> None:
    for moment in (NOW - OLDEST, NOW - OLDEST - timedelta(milliseconds=1), NOW + NEWEST, NOW + NEWEST + timedelta(milliseconds=1)):
        rig.buffer.accept(int(moment.timestamp() * 1000), "line")
    rig.shipper.step()
    rig.shipper.flush(5)
    assert rig.service.messages.count("line") == 2
    assert rig.buffer.dropped_total == 2
    assert json.loads(rig.service.messages[-1])["count"] == 2


def test_what_the_service_rejects_is_counted(rig: Rig) -> None:
    rig.service.rejected = {"tooOldLogEventEndIndex": 2, "expiredLogEventEndIndex": 1, "tooNewLogEventStartIndex": 7}
    rig.fill(10)
    rig.shipper.step()
    assert rig.buffer.dropped_total == 2 + 3


@pytest.mark.parametrize(
    "error",
    [
        refusal("ThrottlingException"),
        refusal("ServiceUnavailableException"),
        refusal("ExpiredTokenException"),
        EndpointConnectionError(endpoint_url="http://x"),
    ],
)
def test_a_failed_batch_is_kept_and_tried_again(rig: Rig, error: Exception) -> None:
    rig.service.failures = [error, error]
    rig.fill(3)
    assert 0.5 <= rig.shipper.step() <= 60
    assert rig.shipper.waiting == 3
    rig.shipper.step()
    assert rig.shipper.step() == 5.0
    assert rig.service.messages == ["line 0", "line 1", "line 2"]
    assert rig.events == ["log-delivery-failed", "log-delivery-recovered"]


def test_the_shippers_own_failures_are_not_shipped(rig: Rig) -> None:
    rig.service.failures = [refusal("AccessDeniedException")] * 50
    rig.fill(1)
    for _ in range(50):
        rig.shipper.step()
    assert rig.shipper.waiting == 1
    assert rig.events == ["log-delivery-failed"]


def test_delays_grow_are_jittered_and_stay_under_a_minute(rig: Rig) -> None:
    rig.service.failures = [refusal("ThrottlingException")] * 2000
    rig.fill(1)
    delays = [rig.shipper.step() for _ in range(2000)]
    assert all(0.5 <= delay <= 60 for delay in delays)
    assert max(delays[:3]) <= 4
    assert max(delays) > 50
    assert len(set(delays)) > 100


def test_no_exception_of_the_client_ends_the_loop(rig: Rig) -> None:
    rig.service.failures = [RuntimeError("client is closed"), KeyError("x")]
    rig.fill(1)
    rig.shipper.step()
    rig.shipper.step()
    assert rig.shipper.step() == 5.0


def test_a_line_that_the_service_refuses_is_the_only_one_lost(rig: Rig) -> None:
    rig.service.poison = "line 37"
    rig.fill(100)
    rig.shipper.flush(60)
    delivered = [message for message in rig.service.messages if message.startswith("line")]
    assert delivered == [f"line {number}" for number in range(100) if number != 37]
    assert rig.buffer.dropped_total == 1


def test_a_batch_the_service_has_already_is_delivered(rig: Rig) -> None:
    rig.service.failures = [refusal("DataAlreadyAcceptedException")]
    rig.fill(2)
    assert rig.shipper.step() == 5.0
    assert rig.shipper.waiting == 0


def test_the_buffer_drops_the_oldest_and_says_how_many_once_delivery_works() -> None:
    rig = Rig(LogBuffer(max_lines=10))
    rig.service.failures = [refusal("ThrottlingException")] * 3
    rig.fill(25)
    for _ in range(3):
        rig.shipper.step()
    rig.fill(4, "later")
    assert rig.buffer.dropped_total == 15
    assert rig.shipper.flush(5)
    reported = json.loads(rig.service.messages[-1])
    assert (reported["event"], reported["count"]) == ("log-lines-dropped", 15)
    assert rig.service.messages[:-1] == [f"line {number}" for number in range(15, 25)] + [f"later {number}" for number in range(4)]
    assert rig.events.count("log-lines-dropped") == 1


@settings(max_examples=examples(15))
@given(st.lists(st.text(max_size=200), max_size=60))
def test_the_buffer_never_outgrows_its_bounds(lines: list[str]) -> None:
    buffer = LogBuffer(max_bytes=1000, max_lines=15)
    for line in lines:
        buffer.accept(NOW_MS, line)
    held = buffer.take()
    assert len(held) <= 15
    assert sum(line.size for line in held) <= 1000
    assert all(line.size == len(line.text.encode()) + EVENT_OVERHEAD for line in held)
    assert len(held) + buffer.dropped_total == sum(1 for line in lines if line)


@settings(max_examples=examples(10))
@given(st.lists(st.tuples(st.integers(-16 * 24 * 60, 4 * 60), st.text(max_size=30), st.sampled_from([1, 1, 40_000])), max_size=120))
def test_whatever_was_logged_the_batches_keep_the_service_s_limits(lines: list[tuple[int, str, int]]) -> None:
    rig = Rig(LogBuffer(max_bytes=64_000_000))
    for minutes, text, times in lines:
        rig.buffer.accept(NOW_MS + minutes * 60_000, text * times)
    assert rig.shipper.flush(60)
    kept = [text for minutes, text, _ in lines if text and -OLDEST <= timedelta(minutes=minutes) <= NEWEST]
    assert len([message for message in rig.service.messages if "log-lines-dropped" not in message]) == len(kept)
    assert SPAN_MS == 86_400_000


def test_flush_ends_at_the_first_failure_and_at_its_deadline(rig: Rig) -> None:
    rig.fill(1)
    rig.service.failures = [refusal("ThrottlingException")]
    assert not rig.shipper.flush(5)
    assert not rig.shipper.flush(0)
    assert rig.shipper.flush(5)
    rig.client = None
    rig.fill(1)
    assert not rig.shipper.flush(5)


def test_when_cloudwatch_stays_unreachable_lines_are_uploaded_to_the_platform() -> None:
    uploads: list[bytes] = []
    rig = Rig(upload=uploads.append)
    rig.service.failures = [EndpointConnectionError(endpoint_url="http://x")] * 3
    rig.fill(2)
    rig.shipper.step()
    rig.seconds = 299
    rig.shipper.step()
    assert uploads == []
    rig.seconds = 300
    rig.shipper.step()
    assert uploads == [b"line 0\nline 1\n"]
    assert rig.shipper.waiting == 0


def test_when_that_upload_fails_too_the_lines_are_kept() -> None:
    def upload(data: bytes) -> None:
        raise OSError("no")

    rig = Rig(upload=upload)
    rig.service.failures = [refusal("AccessDeniedException")] * 2
    rig.fill(2)
    rig.shipper.step()
    rig.seconds = 300
    rig.shipper.step()
    assert rig.shipper.waiting == 2
    rig.shipper.step()
    assert rig.service.messages == ["line 0", "line 1"]


def test_a_stream_s_name_holds_nothing_that_is_forbidden() -> None:
    assert stream_name("a:b*c", NOW) == "a-b-c/20261123T031300Z"
    assert len(stream_name("a" * 2000, NOW)) <= 512


# --- limits, one by one ---


def test_each_event_counts_26_bytes_more_than_its_text(rig: Rig) -> None:
    for _ in range(9000):
        rig.buffer.accept(NOW_MS, "x" * 100)
    assert rig.shipper.flush(5)
    assert [len(batch) for batch in rig.service.batches] == [1_048_576 // 126, 9000 - 1_048_576 // 126]


def test_a_line_that_grew_too_old_while_it_waited_is_dropped_and_counted(rig: Rig) -> None:
    rig.service.failures = [refusal("ThrottlingException")] * 2
    rig.fill(3)
    rig.shipper.step()
    rig.now += timedelta(days=14)
    rig.shipper.step()
    assert (rig.shipper.waiting, rig.buffer.dropped_total) == (3, 0)
    rig.now += timedelta(seconds=1)
    rig.shipper.flush(5)
    assert rig.buffer.dropped_total == 3
    assert [json.loads(message)["count"] for message in rig.service.messages] == [3]


def test_a_clock_that_is_set_back_does_not_break_a_batch(rig: Rig) -> None:
    for minutes in (0, 1, -600, -599, 3):
        rig.buffer.accept(NOW_MS + minutes * 60_000, str(minutes))
    assert rig.shipper.flush(5)
    assert rig.service.messages == ["-600", "-599", "0", "1", "3"]


def test_thousands_of_lines_from_before_init_arrive_first_in_order_and_whole(rig: Rig) -> None:
    rig.client = None
    rig.fill(12_000, "early")
    for _ in range(100):
        rig.shipper.step()
    rig.fill(10, "late")
    rig.client = rig.service
    assert rig.shipper.flush(5)
    assert rig.service.messages == [f"early {number}" for number in range(12_000)] + [f"late {number}" for number in range(10)]
    assert rig.buffer.dropped_total == 0


def test_what_waits_in_the_buffer_and_with_the_shipper_is_8_mib_in_all(rig: Rig) -> None:
    rig.service.failures = [refusal("ThrottlingException")] * 30
    for _ in range(30):
        for _ in range(100):
            rig.buffer.accept(NOW_MS, "x" * 8192)
        rig.shipper.step()
    held = rig.shipper.waiting * (8192 + EVENT_OVERHEAD)
    assert 7 * 1024 * 1024 < held <= MEMORY_BYTES
    assert rig.buffer.dropped_total + rig.shipper.waiting == 3000


def test_a_log_group_that_is_missing_is_waited_for(rig: Rig) -> None:
    made = rig.service.create_log_stream
    answers = iter([refusal("ResourceNotFoundException"), refusal("ResourceNotFoundException")])

    def create(**where: str) -> dict[str, Any]:
        error = next(answers, None)
        if error is not None:
            raise error
        return made(**where)

    rig.service.create_log_stream = create  # type: ignore[method-assign]
    rig.fill(2)
    rig.shipper.step()
    rig.shipper.step()
    assert rig.shipper.step() == 5.0
    assert rig.service.messages == ["line 0", "line 1"]
    assert rig.events == ["log-delivery-failed", "log-delivery-recovered"]


def test_a_sequence_token_that_an_old_service_asks_for_loses_no_line(rig: Rig) -> None:
    """PutLogEvents takes no token since 2023; an emulator that still wants one is a failure like any other."""
    rig.service.failures = [refusal("InvalidSequenceTokenException")]
    rig.fill(2)
    rig.shipper.step()
    assert rig.shipper.step() == 5.0
    assert rig.service.messages == ["line 0", "line 1"]


def test_a_proxy_that_lets_only_small_requests_through_gets_smaller_ones(rig: Rig) -> None:
    put = rig.service.put_log_events

    def narrow(**request: Any) -> dict[str, Any]:
        if sum(len(event["message"]) for event in request["logEvents"]) > 1000:
            raise refusal("413")
        return put(**request)

    rig.service.put_log_events = narrow  # type: ignore[method-assign]
    rig.fill(500)
    assert rig.shipper.flush(60)
    assert rig.service.messages == [f"line {number}" for number in range(500)]
    assert rig.buffer.dropped_total == 0


def test_reports_of_dropped_lines_do_not_cause_more_reports(rig: Rig) -> None:
    """The service rejects every line, including the report of dropped lines."""
    rig.service.rejected = {"tooNewLogEventStartIndex": 0}
    rig.fill(1)
    for _ in range(3600 // 5):
        rig.seconds += 5
        rig.shipper.step()
    assert rig.events.count("log-lines-dropped") <= 3600 / REPORT_DROPPED_SECONDS
    assert rig.buffer.dropped_total <= 1 + 3600 / REPORT_DROPPED_SECONDS


def test_a_call_that_hangs_does_not_block_logging(rig: Rig) -> None:
    hangs, go_on = threading.Event(), threading.Event()

    def hang(**_request: Any) -> dict[str, Any]:
        hangs.set()
        assert go_on.wait(10)
        raise EndpointConnectionError(endpoint_url="http://x")

    put, rig.service.put_log_events = rig.service.put_log_events, hang  # type: ignore[method-assign]
    rig.fill(1)
    shipping = threading.Thread(target=rig.shipper.step)
    shipping.start()
    assert hangs.wait(10)
    for number in range(30_000):
        rig.logs.logger.info("at-work", number=number)
    assert rig.shipper.waiting == 20_001
    go_on.set()
    shipping.join(10)
    rig.service.put_log_events = put  # type: ignore[method-assign]
    assert rig.shipper.flush(30)
    assert len(rig.service.messages) == 20_001
    assert len(rig.service.messages) - 1 + rig.buffer.dropped_total == 30_001  # the line about it had to push one more out
    assert json.loads(rig.service.messages[-1])["count"] == 10_000
