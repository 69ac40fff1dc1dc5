"""The queue between poller and workers: the order of lanes, closing, and that no wake-up is lost."""

from __future__ import annotations

import queue
import random
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.relay.fair_queue import Closed, FairQueue


def filled(workers: int, *lanes: str) -> FairQueue[int]:
    tasks: FairQueue[int] = FairQueue(100, workers)
    for place, lane in enumerate(lanes):
        tasks.put((lane, place))
    return tasks


def handed_out(tasks: FairQueue[int]) -> list[tuple[str, int]]:
    """Take every item that may run now, in order."""
    found = []
    try:
        while True:
            found.append(tasks.get_nowait())
    except queue.Empty:
        return found


def test_one_lane_alone_gets_all_workers_but_a_quarter() -> None:
    assert handed_out(filled(8, *"a" * 20)) == [("a", place) for place in range(6)]
    assert [len(handed_out(filled(workers, *"a" * 20))) for workers in (1, 2, 3, 4, 7, 12)] == [1, 1, 2, 3, 6, 9]


def test_two_lanes_get_a_third_each_in_turns() -> None:
    assert [lane for lane, _ in handed_out(filled(9, *"aaaaaabbbbbb"))] == list("ababab")


def test_a_slow_lane_never_holds_up_another() -> None:
    tasks = filled(4, *"a" * 20)
    assert len(handed_out(tasks)) == 3
    tasks.put(("b", 99))
    assert tasks.get_nowait() == ("b", 99)


def test_a_lane_keeps_its_order() -> None:
    tasks = filled(2, *"aaa")
    order = []
    for _ in range(3):
        lane, item = tasks.get_nowait()
        order.append(item)
        tasks.done(lane)
    assert order == [0, 1, 2]


def test_done_lets_the_next_item_of_its_lane_run() -> None:
    tasks = filled(2, "a", "a")
    tasks.get_nowait()
    with pytest.raises(queue.Empty):
        tasks.get_nowait()
    tasks.done("a")
    assert tasks.get_nowait() == ("a", 1)


def test_more_lanes_than_workers_still_get_one_each() -> None:
    assert [lane for lane, _ in handed_out(filled(2, *"abcabc"))] == list("abc")


@given(workers=st.integers(1, 40), lanes=st.integers(1, 40))
def test_while_lanes_are_few_a_worker_stays_free_for_one_that_has_none_yet(workers: int, lanes: int) -> None:
    tasks: FairQueue[int] = FairQueue(10_000, workers)
    for lane in range(lanes):
        for _ in range(workers):
            tasks.put((str(lane), 0))
    given_out = Counter(lane for lane, _ in handed_out(tasks))
    most = workers - max(1, workers // 4) if lanes == 1 else -(-workers // (lanes + 1))
    assert max(given_out.values()) <= max(1, most)
    if lanes < workers:
        assert given_out.total() < workers


def test_free_counts_what_waits_and_not_what_runs() -> None:
    tasks: FairQueue[int] = FairQueue(3, 4)
    for lane in "aab":
        tasks.put((lane, 0))
    assert (tasks.free(), tasks.waiting(), tasks.running()) == (0, 3, 0)
    tasks.get_nowait()
    assert (tasks.free(), tasks.waiting(), tasks.running()) == (1, 2, 1)


def test_recovery_may_put_more_than_there_are_places() -> None:
    tasks: FairQueue[int] = FairQueue(1, 4)
    for item in range(5):
        tasks.put_nowait(("a", item))
    assert (tasks.free(), tasks.waiting()) == (0, 5)


def test_a_closed_queue_hands_out_nothing_and_keeps_what_waits() -> None:
    tasks = filled(4, "a", "b")
    tasks.close()
    for _ in range(3):
        with pytest.raises(Closed):
            tasks.get(timeout=1)
    assert tasks.waiting() == 2


def test_closing_wakes_every_worker_that_waits() -> None:
    tasks: FairQueue[int] = FairQueue(10, 4)
    closed = [threading.Event() for _ in range(4)]

    def work(reported: threading.Event) -> None:
        with pytest.raises(Closed):
            tasks.get(timeout=10)
        reported.set()

    threads = [threading.Thread(target=work, args=(reported,)) for reported in closed]
    for thread in threads:
        thread.start()
    tasks.close()
    for thread in threads:
        thread.join(5)
    assert all(reported.is_set() for reported in closed)


def test_a_worker_that_was_woken_in_vain_keeps_nobody_else_from_being_woken() -> None:
    """The share of its lane fell, and its group filled up, before it had the lock."""
    limits = {"b": ("group", 1), "c": ("group", 1)}
    tasks: FairQueue[int] = FairQueue(100, 8, limits.get)
    started: queue.SimpleQueue[str] = queue.SimpleQueue()
    go_on = threading.Event()

    def work() -> None:
        try:
            while True:
                lane, _ = tasks.get()
                started.put(lane)
                go_on.wait(10)
                tasks.done(lane)
        except Closed:
            pass

    workers = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for worker in workers:
        worker.start()
    for lane in ("b", "a", "a"):
        tasks.put((lane, 0))
    assert sorted(started.get(timeout=5) for _ in range(3)) == ["a", "a", "b"]
    with tasks.mutex:  # As if both came before the worker that the first one wakes could look.
        tasks._put(("a", 1))
        tasks._waking = True
        tasks.not_empty.notify()
        tasks._put(("c", 0))
    while tasks._waking:
        go_on.wait(0.001)
    tasks.put(("d", 0))
    assert started.get(timeout=5) in ("a", "d")
    go_on.set()
    tasks.close()
    for worker in workers:
        worker.join(5)


@pytest.mark.parametrize("seed", range(5))
def test_no_wake_up_is_lost_between_workers_and_a_producer(seed: int) -> None:
    """Workers wait without a time-out: a lost wake-up would leave the last items in the queue."""
    rnd = random.Random(seed)
    tasks: FairQueue[int] = FairQueue(10_000, 6)
    total = 1500
    every_one = threading.Semaphore(0)
    most: Counter[str] = Counter()
    running: Counter[str] = Counter()
    lock = threading.Lock()

    def work() -> None:
        try:
            while True:
                lane, _ = tasks.get()
                with lock:
                    running[lane] += 1
                    most[lane] = max(most[lane], running[lane])
                with lock:
                    running[lane] -= 1
                tasks.done(lane)
                every_one.release()
        except Closed:
            pass

    workers = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for worker in workers:
        worker.start()
    lanes = ["a", "a", "a", "b", "c"]
    for item in range(total):
        tasks.put((rnd.choice(lanes), item))
    finished = sum(every_one.acquire(timeout=5) for _ in range(total))
    tasks.close()
    for worker in workers:
        worker.join(5)
    assert finished == total
    assert (tasks.waiting(), tasks.running()) == (0, 0)
    assert max(most.values()) <= 5


class Lanes(OrderedDict[str, Any]):
    """Lanes that count how many of them are iterated over."""

    looked = 0

    def __iter__(self) -> Iterator[str]:
        for lane in super().__iter__():
            self.looked += 1
            yield lane

    def keys(self) -> Any:
        raise AssertionError("all lanes were looked at")


def test_get_looks_at_no_more_lanes_than_there_are_workers_however_many_wait() -> None:
    workers = 8
    tasks: FairQueue[int] = FairQueue(10**6, workers)
    tasks._lanes = Lanes()
    for lane in range(20_000):
        tasks.put((str(lane), lane))
    handed: list[str] = []
    for _ in range(500):
        tasks._lanes.looked = 0
        handed.append(tasks.get_nowait()[0])
        assert tasks._lanes.looked <= 4 * (workers + 1)
        if len(handed) >= workers:
            tasks.done(handed[len(handed) - workers])
    assert handed == [str(lane) for lane in range(500)]


# --- limits of groups of lanes ---


def limited(workers: int, limits: dict[str, tuple[str, int]], *lanes: str) -> FairQueue[int]:
    tasks: FairQueue[int] = FairQueue(100_000, workers, limits.get)
    for place, lane in enumerate(lanes):
        tasks.put((lane, place))
    return tasks


def test_a_lane_runs_no_more_items_than_its_limit() -> None:
    tasks = limited(12, {"a": ("one", 2)}, *"aaaaaa")
    assert handed_out(tasks) == [("a", 0), ("a", 1)]
    tasks.done("a")
    assert handed_out(tasks) == [("a", 2)]


def test_the_lanes_of_a_group_share_its_limit_in_turns() -> None:
    tasks = limited(12, dict.fromkeys("abc", ("one", 2)), *"aaabbbccc")
    order = [lane for lane, _ in handed_out(tasks)]
    for ended in range(9):
        assert tasks.running() == min(2, 9 - ended)
        tasks.done(order[ended])
        order += [lane for lane, _ in handed_out(tasks)]
    assert "".join(order) == "abcabcabc"


def test_a_group_at_its_limit_takes_no_worker_from_the_lanes_behind_it() -> None:
    """A worker that took its next item would only wait for the first to end."""
    lanes = [*(f"h{number}" for number in range(50)), "b", "b"]
    tasks = limited(4, {f"h{number}": ("one", 1) for number in range(50)}, *lanes)
    assert [lane for lane, _ in handed_out(tasks)] == ["h0", "b"]


def test_a_limit_above_the_share_changes_nothing() -> None:
    assert handed_out(limited(8, {"a": ("one", 100)}, *"a" * 20)) == handed_out(filled(8, *"a" * 20))


def test_a_limit_that_is_raised_holds_from_the_next_look_on() -> None:
    limits = {"a": ("one", 1)}
    tasks = limited(12, limits, *"aaaa")
    assert len(handed_out(tasks)) == 1
    limits["a"] = ("one", 3)
    assert len(handed_out(tasks)) == 2


def test_of_lanes_without_a_limit_no_more_are_asked_about_than_there_are_workers() -> None:
    asked: list[str] = []

    def limit(lane: str) -> None:
        asked.append(lane)

    tasks: FairQueue[int] = FairQueue(10**6, 4, limit)
    for number in range(5000):
        tasks.put((str(number), 0))
    asked.clear()
    tasks.get_nowait()
    assert len(asked) <= 4 * (4 + 1)


@given(
    workers=st.integers(1, 12),
    limits=st.dictionaries(st.sampled_from("abcd"), st.sampled_from([("one", 1), ("two", 2), ("three", 3)])),
    steps=st.lists(st.one_of(st.sampled_from("abcd"), st.none()), max_size=60),
)
def test_whatever_comes_and_ends_a_group_stays_within_its_limit_and_no_item_is_lost(
    workers: int, limits: dict[str, tuple[str, int]], steps: list[str | None]
) -> None:
    """A letter puts an item, None ends the one that has run longest."""
    tasks = limited(workers, limits)
    running: list[str] = []
    put = done = 0
    for step in [*steps, *[None] * len(steps)]:
        if step is not None:
            tasks.put((step, put))
            put += 1
        elif running:
            tasks.done(running.pop(0))
            done += 1
        running += [lane for lane, _ in handed_out(tasks)]
        groups = Counter(limits[lane] for lane in running if lane in limits)
        assert all(count <= most for (_, most), count in groups.items())
    assert (done, tasks.waiting()) == (put, 0)
