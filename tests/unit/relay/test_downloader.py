"""An error caused by one body ends neither the agent nor other downloads; a failing journal ends the thread, as in a worker."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from relay_agent.core.errors import JournalDamaged, JournalError, JournalUnwritable
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTION_SECURE, Command, Failure
from relay_agent.relay.downloader import Downloader
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.task import Task


class FailingReader:
    """A payload reader whose every download fails, except that of the command `good`."""

    crashed = staticmethod(PayloadReader.crashed)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def download(self, task: Task, _stop: threading.Event) -> Task:
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
    downloader = Downloader(reader=cast("Any", FailingReader(error)), enqueue=queued.append, stop=threading.Event(), log=cast("Any", lines))
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
