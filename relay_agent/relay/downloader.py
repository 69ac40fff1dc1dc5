"""When referenced bodies are fetched: the loop of the threads `fetcher-0` and `fetcher-1`.

Between poller and queue, because a command's host, and so its lane, stands in its body: were the workers to fetch,
one slow instrument would hold up every referenced command. It must not know rules about commands.
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
