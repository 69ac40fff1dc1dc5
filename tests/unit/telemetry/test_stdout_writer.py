"""Lines are written completely and in order, and logging does not wait for the reader; on real pipes."""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator

import pytest

from relay_agent.telemetry import stdout_writer
from relay_agent.telemetry.stdout_writer import Piped, output

PIPE_BYTES = 4096
LINE = "x" * 99


class Pipe:
    """A small pipe, which is soon full."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.piped = Piped(self.writing, "utf-8", time.monotonic, max_bytes=10 * PIPE_BYTES)
        self.others: list[Piped] = []

    def read(self, lines: int) -> list[str]:
        """Read so many lines."""
        data = b""
        while data.count(b"\n") < lines:
            data += os.read(self.reading, 65536)
        return data.decode().splitlines()

    def close(self) -> None:
        """Close both ends; a write that is still running fails, and so do all after it, before the descriptor can be another test's."""
        os.close(self.reading)
        for piped in (self.piped, *self.others):
            piped.close()
            piped._thread.join(20)
        os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_lines_of_many_threads_arrive_complete_and_in_each_threads_order(pipe: Pipe) -> None:
    def work(name: int) -> None:
        for number in range(50):
            pipe.piped.write(f"{name} {number} {LINE}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    lines = pipe.read(200)
    for thread in threads:
        thread.join(20)
    assert all(line.endswith(LINE) for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("2 ")] == [str(number) for number in range(50)]


def test_many_lines_are_written_piece_by_piece_without_pauses(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdout_writer, "LINGER_SECONDS", 3600.0)  # One rest, and the test would not end.
    with pipe.piped._more:
        for _ in range(300):
            pipe.piped.write(LINE)
    assert pipe.read(300) == [LINE] * 300


def test_logging_to_a_full_pipe_does_not_block_and_keeps_the_newest_lines(pipe: Pipe) -> None:
    for number in range(2000):
        pipe.piped.write(f"{number} {LINE}")
    assert pipe.piped.dropped > 1000
    kept = 2000 - pipe.piped.dropped
    numbers = [int(line.split()[0]) for line in pipe.read(kept)]
    assert numbers == sorted(numbers) and numbers[-1] == 1999


def test_the_duration_of_a_blocked_write_is_reported_until_it_ends(pipe: Pipe) -> None:
    for _ in range(100):
        pipe.piped.write(LINE)
    give_up = time.monotonic() + 20
    while not pipe.piped.blocked_seconds():
        assert time.monotonic() < give_up
    pipe.read(100)
    while pipe.piped.blocked_seconds():
        assert time.monotonic() < give_up


def test_closing_writes_all_lines_but_does_not_wait_for_a_missing_reader(pipe: Pipe) -> None:
    pipe.piped.write("last")
    pipe.piped.close(20)
    assert pipe.read(1) == ["last"]
    stuck = Piped(pipe.writing, "utf-8", time.monotonic)
    pipe.others.append(stuck)
    for _ in range(100):
        stuck.write(LINE)
    stuck.close(0.01)
    assert stuck.blocked_seconds() > 0


def test_closing_waits_for_a_slow_reader(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader reads one piece each time that `close` waits, so that the test does not depend on times."""
    monkeypatch.setattr(stdout_writer, "SLOW_READER_SECONDS", 60.0)
    for number in range(300):
        pipe.piped.write(f"{number} {LINE}")
    pieces: list[bytes] = []
    join, waits = pipe.piped._thread.join, []

    def read_a_piece_and_join(seconds: float) -> None:
        waits.append(seconds)
        written = pipe.piped._pieces
        while pipe.piped._thread.is_alive() and pipe.piped._pieces == written:
            if select.select([pipe.reading], [], [], 0.01)[0]:
                pieces.append(os.read(pipe.reading, 1000))
        join(0)

    monkeypatch.setattr(pipe.piped._thread, "join", read_a_piece_and_join)
    pipe.piped.close()
    assert len(waits) > 1
    assert not pipe.piped._thread.is_alive()
    while select.select([pipe.reading], [], [], 0)[0]:
        pieces.append(os.read(pipe.reading, 65536))
    assert [line.split()[0] for line in b"".join(pieces).decode().splitlines()] == [str(number) for number in range(300)]


def test_lines_to_a_stream_that_is_closed_at_the_start_are_discarded() -> None:
    written = output(None, time.monotonic)
    written.write("lost")
    written.close()
    assert written.blocked_seconds() == 0


def test_a_reader_that_has_gone_loses_the_lines_but_raises_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    piped = Piped(writing, "utf-8", time.monotonic)
    piped.write("lost")
    piped.close(20)
    os.close(writing)
    assert piped.blocked_seconds() == 0


def test_a_non_blocking_descriptor_gets_every_line(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    for number in range(200):
        pipe.piped.write(f"{number} {LINE}")
    assert len(pipe.read(200)) == 200


def test_a_character_that_the_streams_encoding_lacks_is_escaped() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="ascii") as stream:
        written = output(stream, time.monotonic)
        assert isinstance(written, Piped)
        written.write("a\u20ac")
        assert os.read(reading, 100) == b"a\\u20ac\n"
        written.close()
    os.close(reading)
