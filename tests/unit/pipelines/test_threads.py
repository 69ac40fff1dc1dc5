"""Calls on threads of their own: how many run at once, and what becomes of their results."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import CancelledError, wait
from contextvars import ContextVar
from functools import partial

import pytest

from relay_agent.pipelines.threads import Threads


def ended(name: str) -> bool:
    """Whether every thread of this name has ended."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(5)
    return not any(thread.name == name for thread in threading.enumerate())


def test_what_a_call_returns_or_raises_is_in_its_future() -> None:
    threads = Threads("results")

    def fail() -> None:
        raise KeyError("x")

    assert threads.run(lambda: threading.current_thread().name).result(5) == "results"
    with pytest.raises(KeyError):
        threads.run(fail).result(5)
    assert ended("results")


def test_at_most_so_many_calls_run_at_once_and_the_others_follow_in_order() -> None:
    threads, gate, started = Threads("bounded", 2), threading.Event(), [threading.Event() for _ in range(5)]
    order: list[int] = []

    def call(number: int) -> int:
        started[number].set()
        order.append(number)
        gate.wait(5)
        return number

    futures = [threads.run(lambda number=number: call(number)) for number in range(5)]
    assert started[0].wait(5) and started[1].wait(5)
    assert sorted(order) == [0, 1] and sum(thread.name == "bounded" for thread in threading.enumerate()) == 2
    gate.set()
    assert [future.result(5) for future in futures] == list(range(5)) and sorted(order[:2]) == [0, 1] and len(order) == 5
    assert ended("bounded")


def test_calls_that_wait_can_be_cancelled_and_those_that_run_go_on() -> None:
    threads, gate = Threads("cancelled", 1), threading.Event()
    running, waiting, cancelled = (threads.run(lambda: gate.wait(5)) for _ in range(3))
    assert cancelled.cancel()
    threads.cancel(KeyError("closed"))
    assert not wait({running}, 0.05).done
    gate.set()
    assert running.result(5) is True
    for future, error in ((waiting, KeyError), (cancelled, CancelledError)):
        with pytest.raises(error):
            future.result(5)
    assert threads.run(lambda: 1).result(5) == 1 and ended("cancelled")


def test_a_call_sees_the_context_variables_of_its_caller() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")
    threads = Threads("context", 1)
    variable.set("first")
    first = threads.run(variable.get)
    variable.set("second")
    assert (first.result(5), threads.run(variable.get).result(5)) == ("first", "second")
    assert ended("context")


def test_where_no_thread_can_be_started_the_call_is_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of a program from Python 3.12 on."""
    threads = Threads("none", 1)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert threads.run(lambda: 1).result(0) == 1
        with pytest.raises(KeyError):
            threads.run(lambda: {}["x"]).result(0)
    assert threads.run(lambda: 2).result(5) == 2


def test_what_a_failed_call_held_is_freed_without_the_garbage_collector() -> None:
    class Body: ...

    body = Body()
    held = weakref.ref(body)

    def fail(request: Body) -> None:
        raise KeyError(id(request))

    future = Threads("freed").run(partial(fail, body))
    gc.disable()
    try:
        with pytest.raises(KeyError):
            future.result(5)
        assert ended("freed")
        del body, future
        assert held() is None
    finally:
        gc.enable()
