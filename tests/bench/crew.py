"""The journal's users as in the agent, without a network: one that admits, some that start and finish, one that delivers.

Produces load on a journal; reports how many commands went through and how many commits they took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay_agent.core.clock import Clock
from relay_agent.core.models import Command, Status, Update
from relay_agent.protocol.messages import update_message
from relay_agent.relay.fair_queue import Closed, FairQueue
from relay_agent.relay.outbox import Outbox
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Admission, Journal

BATCH = 10
LANES = 4
CAPACITY = 1000
MESSAGE = '{"commandId": "%s", "action": "bench", "payload": "' + "x" * 400 + '"}'


@dataclass(frozen=True)
class Cost:
    """What some commands took: commits of the journal are fsyncs of its write-ahead log.

    `longest_seconds` is the longest that a batch waited to be admitted.
    """

    commands: int
    commits: int
    seconds: float
    longest_seconds: float

    @property
    def rate(self) -> float:
        """Commands per second."""
        return self.commands / self.seconds

    @property
    def commits_each(self) -> float:
        """Commits for one command, all its states together."""
        return self.commits / self.commands


class Crew:
    """The threads around one journal. Each `run` takes so many commands from their first state to their last."""

    def __init__(self, path: Path, workers: int, target_seconds: float) -> None:
        self._clock = Clock()
        self.path = path
        self._workers = workers
        self._target_seconds = target_seconds
        self._tasks: FairQueue[str] = FairQueue(CAPACITY, workers)
        self._outbox = Outbox(self._clock, lambda: self._tasks.running() + self._tasks.waiting())
        self.disk = Disk(path.parent)
        self.journal = Journal(path, self._clock, others=self._tasks.running, make_room=self.disk.make_room)
        self.disk.look()
        self._delivered = 0
        self._progress = threading.Condition()
        self._errors: list[BaseException] = []
        self._longest = 0.0

    @contextmanager
    def working(self) -> Iterator[Crew]:
        """Run workers and sender on their threads; end all of them and close the journal afterwards."""
        work = [threading.Thread(target=self._noted, args=(self._work,), name=f"worker-{place}") for place in range(self._workers)]
        threads = [*work, threading.Thread(target=self._noted, args=(self._send,), name="sender")]
        self._over = threading.Event()
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._tasks.close()
            self._over.set()
            self._outbox.drain()
            for thread in threads:
                thread.join()
            self.journal.close()

    def run(self, commands: int) -> Cost:
        """Admit so many commands, in batches, and wait until the last was delivered."""
        began, commits, until = time.monotonic(), self.journal.commits, self._delivered + commands
        left = commands
        self._longest = 0.0
        while left:
            room = min(self._tasks.free(), self._outbox.free(), BATCH, left)
            if room <= 0:
                with self._progress:
                    self._progress.wait(0.01)
            else:
                self._admit(room)
                left -= room
            self._raise()
        with self._progress:
            while self._delivered < until:
                self._raise()
                self._progress.wait(1.0)
        return Cost(commands, self.journal.commits - commits, time.monotonic() - began, self._longest)

    # --- the poller ---

    def _admit(self, count: int) -> None:
        ids = [self._clock.new_id() for _ in range(count)]
        began = time.monotonic()
        admissions = self.journal.admit([(command_id, MESSAGE % command_id, f"receipt of {command_id}") for command_id in ids])
        self._longest = max(self._longest, time.monotonic() - began)
        assert admissions == [Admission.NEW] * count
        for command_id in ids:
            self._tasks.put((f"host-{hash(command_id) % LANES}", command_id))
        self.journal.acked(ids)

    # --- a worker ---

    def _work(self) -> None:
        never = threading.Event()
        while True:
            try:
                lane, command_id = self._tasks.get()
            except Closed:
                return
            try:
                self.journal.start(command_id, True)
                if self._target_seconds:
                    never.wait(self._target_seconds)
                message = update_message(command_id, "agent", Status.SUCCESS, self._clock.now(), '{"statusCode": 200}')
                update = Update(command_id, Status.SUCCESS, message)
                self.journal.finish(update)
            finally:
                self._tasks.done(lane)
            self._outbox.command_started(Command(command_id, "agent", "bench"))
            self._outbox.put(update)

    # --- the sender ---

    def _send(self) -> None:
        while not self._over.is_set():
            entries = [entry for entry in self._outbox.take(0.1) if entry.final]
            self.journal.flush()
            if not entries:
                continue
            self.journal.deliver([entry.command_id for entry in entries])
            self._outbox.delivered(entries)
            with self._progress:
                self._delivered += len(entries)
                self._progress.notify_all()

    # --- faults ---

    def _noted(self, work: object) -> None:
        assert callable(work)
        try:
            work()
        except BaseException as error:
            self._errors.append(error)
            with self._progress:
                self._progress.notify_all()

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]
