"""Back-off after failures; loops that end at once and keep the exception that ended them."""

from __future__ import annotations

import threading

import pytest

from relay_agent.core.loop import MAX_BACKOFF_SECONDS, Backoff, Loop


def test_waits_double_with_jitter_and_keep_at_least_half() -> None:
    for _ in range(50):
        backoff = Backoff(0.5)
        for expected in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0):
            assert expected / 2 <= backoff.next_seconds() <= expected


def test_waits_are_jittered() -> None:
    assert len({Backoff(8.0).next_seconds() for _ in range(20)}) > 1


def test_a_back_off_is_at_most_60_seconds() -> None:
    backoff = Backoff()
    assert max(backoff.next_seconds() for _ in range(200)) <= MAX_BACKOFF_SECONDS == 60.0


def test_a_success_starts_again_at_the_first_wait() -> None:
    backoff = Backoff(0.5)
    for _ in range(8):
        backoff.next_seconds()
    backoff.reset()
    assert backoff.next_seconds() <= 0.5


def test_a_wait_is_at_least_as_long_as_the_platform_asks() -> None:
    assert Backoff().next_seconds(at_least=120.0) == 120.0
    assert Backoff(8.0).next_seconds(at_least=0.1) >= 4.0


def test_a_loop_steps_until_the_stop() -> None:
    stop = threading.Event()
    steps: list[int] = []

    def step() -> float:
        steps.append(1)
        if len(steps) == 3:
            stop.set()
        return 0.0

    loop = Loop("x", step, stop)
    loop.start()
    loop.join(5)
    assert not loop.is_alive()
    assert (len(steps), loop.error, loop.name) == (3, None, "x")


def test_a_stop_ends_a_long_wait_at_once() -> None:
    stop, stepped = threading.Event(), threading.Event()

    def step() -> float:
        stepped.set()
        return 3600.0

    loop = Loop("x", step, stop)
    loop.start()
    assert stepped.wait(5)
    stop.set()
    loop.join(5)
    assert not loop.is_alive()


def test_a_loop_whose_stop_is_already_set_takes_no_step() -> None:
    stop = threading.Event()
    stop.set()
    loop = Loop("x", lambda: pytest.fail("stepped"), stop)
    loop.start()
    loop.join(5)
    assert loop.error is None


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_a_loop_keeps_the_exception_that_ended_it(error: BaseException) -> None:
    def step() -> float:
        raise error

    loop = Loop("x", step, threading.Event())
    loop.start()
    loop.join(5)
    assert loop.error is error
