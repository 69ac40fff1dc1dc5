"""Waiting for a change: no change is missed, and a wait ends at its time."""

from __future__ import annotations

import threading

from relay_agent.sandbox.changes import Changes


def test_what_holds_already_is_not_waited_for() -> None:
    assert Changes().wait(lambda: True, 0.0)


def test_a_wait_ends_at_its_time_with_what_holds_then() -> None:
    assert not Changes().wait(lambda: False, 0.01)
    looks = iter([False, True])
    assert Changes().wait(lambda: next(looks), 0.01)


def test_a_change_while_the_condition_is_evaluated_is_not_missed() -> None:
    changes, looks = Changes(), 0

    def holds() -> bool:
        nonlocal looks
        looks += 1
        changes.touch()
        return looks == 5

    assert changes.wait(holds, 10)
    assert looks == 5


def test_a_change_wakes_every_thread_that_waits() -> None:
    changes, done, held = Changes(), threading.Event(), []
    looking = threading.Semaphore(0)

    def holds() -> bool:
        looking.release()
        return done.is_set()

    threads = [threading.Thread(target=lambda: held.append(changes.wait(holds, 10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert looking.acquire(timeout=10)
    done.set()
    changes.touch()
    for thread in threads:
        thread.join(10)
    assert held == [True] * 3
