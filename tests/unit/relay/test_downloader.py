"""The loop around downloads: one that fails waits behind the others, and one that crashes ends neither the agent nor the others.

A failing journal ends the thread, as in a worker. Only the test of the stop has threads.
"""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTION_SECURE, Command, Failure
from relay_agent.relay.downloader import Downloader
from relay_agent.relay.payload_reader import Download, PayloadReader
from relay_agent.relay.task import Task


class FailingReader:
    """A payload reader whose every download fails, except that of the command `good`."""

    crashed = staticmethod(PayloadReader.crashed)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def download(self, job: Download) -> Task:
        task = job.task
        if task.command.id != "good":
            raise self.error
        return task


class Lines:
    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.said.append({"event": event, **fields})


def downloaded(error: Exception, action: str = ACTION_SECURE) -> tuple[list[Task], list[dict[str, Any]]]:
    """Return what is queued and logged for a command whose download raises `error` and for the command behind it."""
    queued: list[Task] = []
    lines = Lines()
    downloader = Downloader(
        reader=cast("Any", FailingReader(error)),
        enqueue=queued.append,
        stop=threading.Event(),
        log=cast("Any", lines),
        monotonic=lambda: 0.0,
    )
    for command_id in ("bad", "good"):
        downloader.put(Task(Command(command_id, "agent", action), 0.0))
    downloader.close()
    downloader.run()
    assert downloader.waiting() == 0
    return queued, lines.said


def test_a_body_that_crashes_its_download_is_answered_and_the_next_is_downloaded() -> None:
    (bad, good), (line,) = downloaded(ZeroDivisionError("ours"))
    assert isinstance(bad.request, Failure)
    assert (bad.request.code, good.request) == (Code.EBADCOMMAND, None)
    assert (line["event"], line["id"], line["withheld"]) == ("command-crashed", "bad", "exception.traceback")
    assert isinstance(line["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize("kind", [JournalError, JournalDamaged, JournalUnwritable])
def test_a_failing_journal_ends_the_thread_and_no_command_is_answered(kind: type[JournalError]) -> None:
    """An answer would be final; instead the next start resumes the command."""
    with pytest.raises(kind):
        downloaded(kind("the disk"))


class Failing:
    """A payload reader whose downloads fail until `time` is late enough; `asked` are the ids of the tries."""

    def __init__(self, **works_from: float) -> None:
        self.time = 0.0
        self.asked: list[str] = []
        self.queued: list[str] = []
        self.stop = threading.Event()
        self._works_from = works_from
        self.tried = threading.Event()
        self.downloader = Downloader(
            reader=cast("Any", self),
            enqueue=lambda task: self.queued.append(task.command.id),
            stop=self.stop,
            log=cast("Any", Lines()),
            monotonic=lambda: self.time,
        )
        for command_id in works_from:
            self.downloader.put(Task(Command(command_id, "agent", ACTION_SECURE), 0.0))

    def download(self, job: Download) -> Task | None:
        self.asked.append(job.task.command.id)
        self.tried.set()
        if self.time >= self._works_from[job.task.command.id]:
            return job.task
        job.due = self.time + 10.0
        return None

    def run(self) -> None:
        """Run one thread's loop until nothing is due."""
        self.downloader.close()
        self.downloader.run()


def test_a_download_that_fails_waits_behind_the_others_for_its_next_try() -> None:
    world = Failing(bad=20.0, worse=30.0, good=0.0, last=0.0)
    world.run()
    assert (world.asked, world.queued, world.downloader.waiting()) == (["bad", "worse", "good", "last"], ["good", "last"], 2)
    for time, queued in ((9.0, []), (10.0, []), (20.0, ["bad"]), (30.0, ["bad", "worse"])):
        world.time = time
        world.run()
        assert world.queued[2:] == queued
    assert world.asked[4:] == ["bad", "worse", "bad", "worse", "worse"]
    assert world.downloader.waiting() == 0


def test_a_stop_ends_the_wait_for_the_next_try_at_once_and_begins_no_other() -> None:
    world = Failing(bad=1000.0)
    thread = threading.Thread(target=world.downloader.run)
    thread.start()
    assert world.tried.wait(10)
    world.stop.set()
    world.downloader.close()
    thread.join(10)
    assert not thread.is_alive()
    assert (world.asked, world.queued, world.downloader.waiting()) == (["bad"], [], 1)
    world.run()
    assert world.asked == ["bad"], "nothing begins after the stop"
