"""How many requests may run at the same time at the targets of one table (`max_concurrency`; docs/policy.md, "Settings for targets")."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import pytest

from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Interrupted
from relay_agent.core.failures import Code
from relay_agent.relay.target.concurrency import ConcurrencyLimit
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.target_settings import NO_SETTINGS, TargetSettings

ONE = TargetSettings("[[target]] 1 (a)", group="a", max_concurrency=1)
TWO = TargetSettings("[[target]] 2 (b)", group="b", max_concurrency=2)


@pytest.fixture
def limit() -> Iterator[ConcurrencyLimit]:
    found = ConcurrencyLimit()
    yield found
    assert not found._running, "a place was not given back"


def refused(limit: ConcurrencyLimit, target: TargetSettings) -> str:
    """Ask for a place with no time left, and return why there is none."""
    with pytest.raises(TransportFault) as caught, limit.place(target, Deadline(0.0), nothing):
        pass
    assert caught.value.code is Code.ETIMEDOUT
    return caught.value.message


def test_without_a_limit_nothing_is_counted(limit: ConcurrencyLimit) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(limit.place(NO_SETTINGS, Deadline(0.0), nothing))
        assert not limit._running


def test_as_many_as_the_table_says_may_run(limit: ConcurrencyLimit) -> None:
    with limit.place(TWO, Deadline(0.0), nothing), limit.place(TWO, Deadline(0.0), nothing):
        assert refused(limit, TWO) == "the time limit passed while the target was busy (max_concurrency = 2)"
    with limit.place(TWO, Deadline(0.0), nothing):
        pass


def test_each_table_has_its_own_count(limit: ConcurrencyLimit) -> None:
    with limit.place(ONE, Deadline(0.0), nothing), limit.place(TWO, Deadline(0.0), nothing):
        refused(limit, ONE)


def test_a_request_that_fails_gives_its_place_back(limit: ConcurrencyLimit) -> None:
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), limit.place(ONE, Deadline(0.0), nothing):
            raise error
    with limit.place(ONE, Deadline(0.0), nothing):
        pass


def test_a_table_that_was_read_again_keeps_its_count(limit: ConcurrencyLimit) -> None:
    with limit.place(TWO, Deadline(0.0), nothing):
        refused(limit, replace(TWO, max_concurrency=1))
        with limit.place(replace(TWO, max_concurrency=3), Deadline(0.0), nothing):
            pass


def test_a_table_that_moved_in_the_file_keeps_its_count(limit: ConcurrencyLimit) -> None:
    with limit.place(ONE, Deadline(0.0), nothing):
        refused(limit, replace(ONE, name="[[target]] 2 (a)"))
        with limit.place(replace(ONE, group="other"), Deadline(0.0), nothing):
            pass


def test_a_stop_ends_the_wait(limit: ConcurrencyLimit) -> None:
    def stop() -> None:
        raise Interrupted("stopped")

    with limit.place(ONE, Deadline(60.0), nothing), pytest.raises(Interrupted), limit.place(ONE, Deadline(60.0), stop):
        pass


def test_only_so_many_may_wait_since_each_holds_a_worker() -> None:
    limit, waiting = ConcurrencyLimit(most_waiting=1), threading.Event()

    def wait() -> None:
        with limit.place(ONE, Deadline(60.0), waiting.set):
            pass

    thread = threading.Thread(target=wait)
    with limit.place(ONE, Deadline(60.0), nothing):
        thread.start()
        assert waiting.wait(10)
        with pytest.raises(TransportFault) as caught, limit.place(ONE, Deadline(60.0), nothing):
            pass
        assert caught.value.code is Code.ETIMEDOUT
        assert caught.value.message == "the target is busy (max_concurrency = 1), and others wait for it already"
    thread.join(10)
    with limit.place(ONE, Deadline(0.0), nothing):
        assert "the time limit passed" in refused(limit, ONE), "those who have waited no longer count"


def test_whoever_waits_goes_on_as_soon_as_a_place_is_free(limit: ConcurrencyLimit) -> None:
    waiting, entered = threading.Event(), threading.Event()

    def wait() -> None:
        with limit.place(ONE, Deadline(60.0), waiting.set):
            entered.set()

    thread = threading.Thread(target=wait)
    with limit.place(ONE, Deadline(60.0), nothing):
        thread.start()
        assert waiting.wait(10)
        assert not entered.is_set()
    assert entered.wait(10)
    thread.join(10)


def test_never_more_than_the_limit_run_and_everyone_comes_to_his_turn(limit: ConcurrencyLimit) -> None:
    lock, turns = threading.Lock(), threading.Semaphore(0)
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        for _ in range(20):
            with limit.place(TWO, Deadline(60.0), nothing):
                with lock:
                    running += 1
                    most = max(most, running)
                with lock:
                    running -= 1
            turns.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert all(turns.acquire(timeout=30) for _ in range(6 * 20))
    for thread in threads:
        thread.join(10)
    assert most <= 2


def test_whoever_waited_is_checked_once_more_before_it_runs() -> None:
    """The rules may have changed meanwhile, or the agent may stop."""
    limit, checked, free = ConcurrencyLimit(), threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool, ExitStack() as first:
        first.enter_context(limit.place(ONE, Deadline(60.0), nothing))

        def check() -> None:
            checked.set()
            if free.is_set():
                raise Interrupted("changed")

        def wait() -> None:
            with limit.place(ONE, Deadline(60.0), check):
                raise AssertionError("it must not run")

        waiting = pool.submit(wait)
        assert checked.wait(10)
        free.set()
        first.close()
        with pytest.raises(Interrupted):
            waiting.result(10)
