"""The agent's threads, and what tells each of them to end.

This room owns which threads there are, and which of them the agent cannot do without. It must not know what they do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from relay_agent.periodic import Loop

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stops:
    """The events that end the threads, in the order in which they are set."""

    intake: threading.Event = field(default_factory=threading.Event)
    telling: threading.Event = field(default_factory=threading.Event)
    rest: threading.Event = field(default_factory=threading.Event)
    pages: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Threads:
    """Every thread of the agent but the main one and the pages'; nothing is started yet."""

    polling: Loop
    fetchers: list[Loop]
    workers: list[Loop]
    uploaders: list[Loop]
    telling: Loop
    keeping: list[Loop]
    """Heartbeat, configuration, upkeep."""
    shipping: Loop

    @property
    def core(self) -> list[Loop]:
        """Those without which the agent must end."""
        return [self.polling, self.telling, *self.keeping, *self.fetchers, *self.workers, *self.uploaders]

    def start(self) -> None:
        """Start all, the poller last: whatever it takes in finds everybody at work."""
        for loop in [*self.keeping, self.shipping, self.telling, *self.uploaders, *self.workers, *self.fetchers, self.polling]:
            loop.start()

    def lives(self) -> dict[str, bool]:
        """Of each whether it lives, or is still to be started."""
        return {loop.name: loop.is_alive() or loop.ident is None for loop in (*self.core, self.shipping)}

    def dead(self) -> list[str]:
        """Those of the core that have ended."""
        return [loop.name for loop in self.core if loop.ident is not None and not loop.is_alive()]

    def over(self) -> bool:
        """Whether all have ended."""
        return not any(loop.is_alive() for loop in (*self.core, self.shipping))


def once(name: str, run: Callable[[], None]) -> Loop:
    """A thread whose one step is its whole life."""
    done = threading.Event()

    def step() -> float:
        try:
            run()
        finally:
            done.set()
        return 0.0

    return Loop(name, step, done)


def aside(act: Callable[[], T], name: str) -> Future[T]:
    """Do something on a thread of its own, which ends with the process: what may hang for ever, and must hold up nobody."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(act())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
