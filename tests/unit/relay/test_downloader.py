"""What one body trips ends neither the agent nor the fetching of others; a journal that fails ends it, as in a worker."""

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
    """A payload reader whose every fetch ends with an error, but for the one of `good`."""

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
    """What is queued, and said, of a command whose fetch ends with that error and of one behind it."""
    queued: list[Task] = []
    lines = Lines()
    downloader = Downloader(reader=cast("Any", FailingReader(error)), enqueue=queued.append, stop=threading.Event(), log=cast("Any", lines))
    for command_id in ("bad", "good"):
        downloader.put(Task(Command(command_id, "agent", action), 0.0))
    downloader.close()
    downloader.run()
    assert downloader.waiting() == 0
    return queued, lines.said


def test_a_body_that_trips_us_is_answered_and_the_next_is_downloaded() -> None:
    (bad, good), (line,) = downloaded(ZeroDivisionError("ours"))
    assert isinstance(bad.request, Failure)
    assert (bad.request.code, good.request) == (Code.EBADCOMMAND, None)
    assert (line["event"], line["id"], line["withheld"]) == ("command-crashed", "bad", "exception.traceback")
    assert isinstance(line["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize("kind", [JournalError, JournalDamaged, JournalUnwritable])
def test_a_journal_that_fails_ends_it_and_no_command_is_blamed(kind: type[JournalError]) -> None:
    """Its sender would be told for good that the command was no request; the next start takes it up."""
    with pytest.raises(kind):
        downloaded(kind("the disk"))
