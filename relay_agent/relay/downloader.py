"""When referenced bodies are downloaded: the loop of the threads `fetcher-0` and `fetcher-1`.

Downloads happen before the workers' queue because the body names the host, and the host is the lane: if workers downloaded,
one slow instrument would hold up every referenced command. What is downloaded and how is decided in `payload_reader`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from relay_agent.core.errors import JournalError
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.task import Task
from relay_agent.telemetry.command_report import command_crashed
from relay_agent.telemetry.logger import Logger


class Downloader:
    """Downloads the bodies of tasks and queues the tasks in their lanes."""

    def __init__(self, *, reader: PayloadReader, enqueue: Callable[[Task], None], stop: threading.Event, log: Logger) -> None:
        """`enqueue` puts a task into the workers' queue; `stop` ends the wait between two attempts."""
        self._reader = reader
        self._enqueue = enqueue
        self._stop = stop
        self._log = log
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0

    # --- poller, main ---

    def put(self, task: Task) -> None:
        """Queue a task for download."""
        with self._lock:
            self._waiting += 1
        self._tasks.put(task)

    def waiting(self) -> int:
        """Return how many tasks are queued or being downloaded."""
        with self._lock:
            return self._waiting

    def close(self) -> None:
        """End one of the threads; queued tasks stay in the journal for the next start."""
        self._tasks.put(None)

    # --- downloader threads ---

    def run(self) -> None:
        """Download until `close` or the stop."""
        while (task := self._tasks.get()) is not None:
            if self._stop.is_set():
                return
            downloaded = self._download(task)
            if downloaded is None:
                return
            with self._lock:
                self._waiting -= 1
            self._enqueue(downloaded)

    def _download(self, task: Task) -> Task | None:
        try:
            return self._reader.download(task, self._stop)
        except JournalError:
            raise  # As in a worker: the agent must end, and its next start resumes the command.
        except Exception as error:  # noqa: BLE001 - top of the loop: one bad body must not end the agent now and at every later start
            command_crashed(self._log, error, task.command)
            return self._reader.crashed(task)
