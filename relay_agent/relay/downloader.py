"""When referenced bodies are downloaded: the loop of the threads `fetcher-0` to `fetcher-7`.

Downloads happen before the workers' queue because the body names the host, and the host is the lane: if workers downloaded,
one slow instrument would delay every referenced command. What is downloaded and how is decided in `payload_reader`, in which order
in `download_queue`.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Hashable

from relay_agent.core.errors import JournalError
from relay_agent.core.urls import BadUrl, parse_url
from relay_agent.relay.download_queue import DownloadQueue
from relay_agent.relay.payload_reader import Download, PayloadReader
from relay_agent.relay.task import Task
from relay_agent.telemetry.command_report import command_crashed
from relay_agent.telemetry.logger import Logger


class Downloader:
    """Downloads the bodies of tasks and queues the tasks in their lanes. A download that fails waits behind the others for its next try."""

    def __init__(
        self,
        *,
        reader: PayloadReader,
        enqueue: Callable[[Task], None],
        stop: threading.Event,
        log: Logger,
        monotonic: Callable[[], float],
    ) -> None:
        """`enqueue` puts a task into the workers' queue; once `stop` is set no further download begins."""
        self._reader = reader
        self._enqueue = enqueue
        self._stop = stop
        self._log = log
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._ready = DownloadQueue()
        self._later: list[tuple[float, int, Download]] = []
        """A heap of the downloads that failed, by when they are due; the number keeps the order of those due at one time."""
        self._numbers = itertools.count()
        self._closing = 0
        self._waiting = 0

    # --- poller, main ---

    def put(self, task: Task) -> None:
        """Queue a task for download."""
        job = Download(task, _host(task.command.body_url))
        with self._changed:
            self._waiting += 1
            self._ready.put(job)
            self._changed.notify()

    def waiting(self) -> int:
        """Return how many tasks are queued, being downloaded, or waiting for their next try."""
        with self._changed:
            return self._waiting

    def close(self) -> None:
        """End one of the threads; tasks that are left stay in the journal for the next start."""
        with self._changed:
            self._closing += 1
            self._changed.notify_all()

    # --- downloader threads ---

    def run(self) -> None:
        """Download until `close` or the stop."""
        while (job := self._next()) is not None:
            downloaded = self._download(job)
            self._done(job, again=downloaded is None)
            if downloaded is not None:
                self._enqueue(downloaded)

    def _next(self) -> Download | None:
        """Wait for a download that is due; returns None if this thread must end."""
        with self._changed:
            while not self._stop.is_set():
                while self._later and self._later[0][0] <= self._monotonic():
                    self._ready.put(heapq.heappop(self._later)[2])
                job = self._ready.take()
                if job is not None:
                    return job
                if self._closing:
                    self._closing -= 1
                    return None
                self._changed.wait(self._later[0][0] - self._monotonic() if self._later else None)
        return None

    def _done(self, job: Download, *, again: bool) -> None:
        with self._changed:
            self._ready.done(job)
            if again:
                heapq.heappush(self._later, (job.due, next(self._numbers), job))
            else:
                self._waiting -= 1
            self._changed.notify_all()  # One that waits may have to wait less long, or may now download from a host that had its share.

    def _download(self, job: Download) -> Task | None:
        try:
            return self._reader.download(job)
        except JournalError:
            raise  # As in a worker: the agent must end, and its next start resumes the command.
        except Exception as error:  # noqa: BLE001 - top of the loop: one bad body must not end the agent now and at every later start
            command_crashed(self._log, error, job.task.command)
            return self._reader.crashed(job.task)


def _host(url: str | None) -> Hashable:
    """Return what URLs of one host and port have in common; an empty text for what is no URL, which takes no time."""
    try:
        return parse_url(url or "").origin
    except BadUrl:
        return ""
