"""When referenced bodies are fetched: the loop of the threads `fetcher-0` and `fetcher-1`.

Between poller and queue, because a command's host, and so its lane, stands in its body: were the workers to fetch,
one slow instrument would hold up every referenced command. It must not know rules about commands.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from relay_agent.causes import Problem, cause_of
from relay_agent.errors import JournalError, PlatformError
from relay_agent.payload_reader import PayloadReader
from relay_agent.task import Task
from relay_agent.telemetry.command_report import command_crashed
from relay_agent.telemetry.logs import Logger, RepeatedFailure

SHOWN_SECONDS = 3600.0
"""How long the page tells of a body that could not be had, while no other was asked for."""
_TOO_LARGE = "larger than"


class DownloadTrouble:
    """Says of all fetchers together that commands' bodies cannot be fetched; over when one is."""

    def __init__(self, log: Logger, monotonic: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._last: Problem | None = None
        self._at = 0.0
        self._trouble = RepeatedFailure(log, "download-failed", "download-recovered", monotonic, remind_seconds=300.0)

    def note(self, error: PlatformError | None) -> None:
        """Take what came of a try, None where it worked; a body that is too large is its sender's."""
        with self._lock:
            if error is None:
                self._trouble.success()
                self._last = None
            elif not error.reason.startswith(_TOO_LARGE):
                cause = cause_of(error)
                self._trouble.failure(error.reason, cause=cause.cause, cure=cause.cure)
                self._last, self._at = Problem(f"commands' bodies cannot be fetched: {error}", cause), self._monotonic()

    @property
    def problem(self) -> Problem | None:
        """What is wrong, until a body is fetched, for an hour at most."""
        return self._last if self._monotonic() - self._at < SHOWN_SECONDS else None


class Fetcher:
    """Takes tasks whose body is elsewhere, and queues them with their lane."""

    def __init__(self, *, reader: PayloadReader, enqueue: Callable[[Task], None], stop: threading.Event, log: Logger) -> None:
        """`enqueue` puts a task into the workers' queue; `stop` ends a wait between two tries."""
        self._reader = reader
        self._enqueue = enqueue
        self._stop = stop
        self._log = log
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0

    # --- poller, main ---

    def put(self, task: Task) -> None:
        """Fetch this task's body when its turn comes."""
        with self._lock:
            self._waiting += 1
        self._tasks.put(task)

    def waiting(self) -> int:
        """How many tasks are here."""
        with self._lock:
            return self._waiting

    def close(self) -> None:
        """End one thread that runs; what waits stays in the journal."""
        self._tasks.put(None)

    # --- the fetchers' threads ---

    def run(self) -> None:
        """Fetch until the end."""
        while (task := self._tasks.get()) is not None:
            if self._stop.is_set():
                return
            fetched = self._fetch(task)
            if fetched is None:
                return
            with self._lock:
                self._waiting -= 1
            self._enqueue(fetched)

    def _fetch(self, task: Task) -> Task | None:
        try:
            return self._reader.fetch(task, self._stop)
        except JournalError:
            raise  # As in a worker: the agent must end, and its next start takes the command up.
        except Exception as error:  # noqa: BLE001 - the top of a step: what one body trips must not end the agent, and its next start again
            command_crashed(self._log, error, task.command)
            return self._reader.unfetched(task)
