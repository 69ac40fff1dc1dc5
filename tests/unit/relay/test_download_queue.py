"""The order of downloads: hosts that do not answer leave places to those that do, and to those that were not tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

import pytest

from relay_agent.agent.thread_wiring import DOWNLOADERS
from relay_agent.core.models import ACTION_HTTP, Command
from relay_agent.relay.download_queue import FIRST_TRY_SECONDS, HOST_PLACES, MAX_HOSTS, PLACES, DownloadQueue, Standing
from relay_agent.relay.payload_reader import DOWNLOAD_TRY_SECONDS, Download
from relay_agent.relay.task import Task

TASK = Task(Command("c-1", "agent", ACTION_HTTP), 0.0)


class World:
    """All download threads, on a clock of their own: a host in `dead` takes the whole try and fails, any other answers at once."""

    def __init__(self, dead: Iterable[Hashable] = ()) -> None:
        self.queue = DownloadQueue()
        self.dead = set(dead)
        self.time = 0.0
        self.tries: list[tuple[Hashable, float]] = []
        self.answered: dict[Hashable, float] = {}
        self._until: list[tuple[float, Download]] = []

    def put(self, *hosts: Hashable) -> None:
        for host in hosts:
            self.queue.put(Download(TASK, host))

    def run(self, host: Hashable) -> float:
        """Run until the host has answered, and return when."""
        while host not in self.answered:
            self._begin()
            ends = min(end for end, _ in self._until)
            for running in [running for running in self._until if running[0] <= ends]:
                self._until.remove(running)
                self._end(running[1], ends)
        return self.answered[host]

    def _begin(self) -> None:
        while len(self._until) < DOWNLOADERS and (job := self.queue.take()) is not None:
            self.tries.append((job.host, job.seconds))
            self._until.append((self.time + (job.seconds if job.host in self.dead else 0.0), job))

    def _end(self, job: Download, now: float) -> None:
        self.time = now
        job.answered = job.host not in self.dead
        self.queue.done(job)
        if job.answered:
            self.answered.setdefault(job.host, now)
        else:
            self.queue.put(job)


def test_any_number_of_bodies_of_one_dead_host_delay_no_other_host() -> None:
    world = World(dead=["dead"])
    world.put(*["dead"] * 500, "new")
    assert world.run("new") == 0.0


def test_any_number_of_dead_hosts_delay_no_host_that_answered_before() -> None:
    dead = [f"dead-{place}" for place in range(200)]
    world = World(dead)
    world.put("s3")
    world.run("s3")
    world.answered.clear()
    world.put(*dead, "s3")
    assert world.run("s3") == 0.0


def test_dead_hosts_delay_a_host_that_was_not_tried_by_one_short_try_each_and_five_at_a_time() -> None:
    dead = [f"dead-{place}" for place in range(10)]
    world = World(dead)
    world.put(*(host for host in dead for _ in range(3)), "new")
    assert world.run("new") <= FIRST_TRY_SECONDS * len(dead) * HOST_PLACES / PLACES[Standing.UNTRIED]
    assert {seconds for host, seconds in world.tries if host == "new"} == {FIRST_TRY_SECONDS}


def test_a_host_that_failed_yields_to_others_and_then_gets_the_whole_time_of_a_try() -> None:
    world = World(dead=["slow"])
    world.put("slow", "slow")
    job = world.queue.take()
    assert job is not None and job.seconds == FIRST_TRY_SECONDS
    job.answered = False
    world.queue.done(job)
    world.put("new")
    order = [world.queue.take(), world.queue.take()]
    assert [(job.host, job.seconds) for job in order if job is not None] == [("new", FIRST_TRY_SECONDS), ("slow", DOWNLOAD_TRY_SECONDS)]


@pytest.mark.parametrize("answered", [True, None])
def test_what_ends_without_being_tried_changes_nothing_and_an_answer_lifts_a_failure(answered: bool | None) -> None:
    queue = DownloadQueue()
    tried(queue, "host", answered=False)
    tried(queue, "host", answered=answered)
    queue.put(Download(TASK, "host"))
    queue.put(Download(TASK, "other"))
    first = queue.take()
    assert first is not None and first.host == ("host" if answered else "other")


def test_no_standing_and_no_host_takes_the_places_of_the_others() -> None:
    assert PLACES[Standing.UNTRIED] + PLACES[Standing.FAILED] < DOWNLOADERS == PLACES[Standing.ANSWERED]
    queue = DownloadQueue()
    for place in range(2 * DOWNLOADERS):
        for _ in range(4):
            queue.put(Download(TASK, place))
    taken: list[Download] = []
    while (job := queue.take()) is not None:
        taken.append(job)
    assert len(taken) == PLACES[Standing.UNTRIED]
    assert max(Counter(job.host for job in taken).values()) <= HOST_PLACES


def test_what_still_runs_when_its_host_fails_takes_no_place_of_hosts_that_answer() -> None:
    """It counts for the failed hosts from then on, which may make them more than their own places."""
    queue = DownloadQueue()
    running: list[Download] = []
    for host in range(DOWNLOADERS):
        for _ in range(HOST_PLACES):
            queue.put(Download(TASK, host))
        while (job := queue.take()) is not None:
            running.append(job)
        assert len(running) <= PLACES[Standing.UNTRIED] + PLACES[Standing.FAILED]
        failed = running.pop()
        failed.answered = False
        queue.done(failed)


def test_hosts_are_forgotten_beyond_a_bound_and_what_waits_for_them_is_not() -> None:
    queue = DownloadQueue()
    for place in range(MAX_HOSTS):
        tried(queue, place, answered=False)
    for place in range(MAX_HOSTS):
        queue.put(Download(TASK, place))
    for place in range(MAX_HOSTS, MAX_HOSTS + 2):
        queue.done(Download(TASK, place, answered=True))
    first, second, *others = drained(queue)
    assert [(job.host, job.seconds) for job in (first, second)] == [(0, FIRST_TRY_SECONDS), (1, FIRST_TRY_SECONDS)]
    assert {job.host for job in others} == set(range(2, MAX_HOSTS))


def tried(queue: DownloadQueue, host: Hashable, *, answered: bool | None) -> None:
    queue.put(Download(TASK, host))
    job = queue.take()
    assert job is not None
    job.answered = answered
    queue.done(job)


def drained(queue: DownloadQueue) -> list[Download]:
    jobs: list[Download] = []
    while (job := queue.take()) is not None:
        jobs.append(job)
        queue.done(job)
    return jobs
