"""Lines that wait to be shipped: the oldest are dropped and counted, and each fits PutLogEvents."""

from __future__ import annotations

from relay_agent.telemetry.log_buffer import EVENT_BYTES, EVENT_OVERHEAD, LogBuffer

SIZE = 4 + EVENT_OVERHEAD
"""Of a line of four characters, as PutLogEvents counts it."""


def filled(buffer: LogBuffer, *texts: str) -> LogBuffer:
    for place, text in enumerate(texts):
        buffer.accept(place, text)
    return buffer


def texts(buffer: LogBuffer, **limits: int) -> list[str]:
    return [line.text for line in buffer.take(**limits)]


def test_lines_are_taken_in_order_each_once_with_time_and_size() -> None:
    buffer = filled(LogBuffer(), "line", "\u20ac")
    assert buffer.waiting == 2
    assert [tuple(line) for line in buffer.take()] == [(0, "line", SIZE), (1, "\u20ac", 3 + EVENT_OVERHEAD)]
    assert (buffer.waiting, buffer.take()) == (0, [])


def test_a_batch_exceeds_neither_of_its_limits() -> None:
    buffer = filled(LogBuffer(), "aaaa", "bbbb", "cccc", "dddd")
    assert texts(buffer, max_bytes=2 * SIZE) == ["aaaa", "bbbb"]
    assert texts(buffer, max_bytes=SIZE - 1) == []
    assert texts(buffer, max_lines=1) == ["cccc"]
    assert texts(buffer) == ["dddd"]


def test_beyond_either_bound_the_oldest_lines_are_dropped() -> None:
    assert texts(filled(LogBuffer(max_bytes=2 * SIZE), "aaaa", "bbbb", "cccc")) == ["bbbb", "cccc"]
    assert texts(filled(LogBuffer(max_lines=1), "aaaa", "bbbb", "cccc")) == ["cccc"]


def test_lines_that_were_taken_make_room_for_others() -> None:
    buffer = filled(LogBuffer(max_bytes=2 * SIZE), "aaaa", "bbbb")
    buffer.take()
    assert texts(filled(buffer, "cccc", "dddd")) == ["cccc", "dddd"]
    assert buffer.dropped_total == 0


def test_dropped_lines_are_counted_in_all_and_reported_once() -> None:
    buffer = filled(LogBuffer(max_lines=1), "aaaa", "bbbb", "cccc")
    assert (buffer.take_unreported(), buffer.take_unreported(), buffer.dropped_total) == (2, 0, 2)
    buffer.count_dropped(3)
    assert (buffer.take_unreported(), buffer.dropped_total) == (3, 5)


def test_an_empty_line_is_not_kept_because_put_log_events_refuses_it() -> None:
    assert filled(LogBuffer(), "").waiting == 0


def test_a_line_that_is_too_long_is_cut_between_two_characters() -> None:
    ascii_line, other = filled(LogBuffer(), "x" * (EVENT_BYTES + 1), "x" + "\u20ac" * EVENT_BYTES).take(max_bytes=10**9)
    assert (len(ascii_line.text), ascii_line.size) == (EVENT_BYTES, EVENT_BYTES + EVENT_OVERHEAD)
    assert set(other.text[1:]) == {"\u20ac"}
    assert EVENT_BYTES - 3 < len(other.text.encode()) == other.size - EVENT_OVERHEAD <= EVENT_BYTES


def test_a_text_that_is_not_unicode_becomes_one_that_can_be_sent() -> None:
    assert texts(filled(LogBuffer(), "a\ud800b")) == ["a?b"]
