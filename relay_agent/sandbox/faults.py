"""Faults on demand: what the sandbox does in place of a correct answer, to which calls and how often.

This module owns the choice of a fault for a call, and its release. It must not know how an answer is sent.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, and the calls that it happens to.

    `service` is rest, sqs, s3 or logs, empty for all. `operation` is a part of "METHOD /path" for rest ("agent/config",
    "PUT /v1/data-acquisition/agent/status"), else the operation's name ("ReceiveMessage"), empty for all. `contains` limits it to
    requests with that text in path, query or body, such as an agent's id.

    The first `skip` matching calls pass, the next `count` meet the fault (None: all until released). The call hangs for
    `hang_seconds` (`FOREVER`: until released). Then the connection is closed without an answer (`close`), or the answer is `status`
    with `headers` and `body`, or, for AWS, the error `code` in the service's own form; without any of these the call continues.
    """

    service: str = ""
    operation: str = ""
    contains: str = ""
    count: int | None = 1
    skip: int = 0
    hang_seconds: float = 0.0
    close: bool = False
    status: int | None = None
    body: str | bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    message: str = "A fault was injected"


class FaultHandle:
    """One injected fault, until it is released. `hits` counts the calls that it happened to."""

    def __init__(self, fault: Fault, remove: Callable[[FaultHandle], None]) -> None:
        self.id = str(uuid.uuid4())
        self.fault = fault
        self.hits = 0
        self._seen = 0
        self._remove = remove
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._released = False

    def release(self) -> None:
        """End the fault, and every hang in it. May be called twice, from any thread."""
        self._remove(self)
        with self._lock:
            self._released = True
            waiting = list(self._waiting)
        for loop, event in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def __enter__(self) -> FaultHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self) -> bool:
        """Count one matching call, and return whether the fault happens to it."""
        with self._lock:
            self._seen += 1
            if self._released or self._seen <= self.fault.skip or self.spent:
                return False
            self.hits += 1
            return True

    @property
    def spent(self) -> bool:
        """Whether it has happened `count` times."""
        return self.fault.count is not None and self.hits >= self.fault.count

    async def hang(self) -> None:
        """Wait for the fault's `hang_seconds`, or until it is released."""
        if not self.fault.hang_seconds:
            return
        released = asyncio.Event()
        waiter = (asyncio.get_running_loop(), released)
        with self._lock:
            if self._released:
                return
            self._waiting.add(waiter)
        timeout = None if self.fault.hang_seconds == FOREVER else self.fault.hang_seconds
        try:
            await asyncio.wait_for(released.wait(), timeout)
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(waiter)


class Faults:
    """The injected faults, the oldest first. Any thread may call it."""

    def __init__(self, on_hit: Callable[[], None]) -> None:
        """`on_hit` is called each time a fault happens."""
        self._on_hit = on_hit
        self._handles: list[FaultHandle] = []
        self._lock = threading.Lock()

    def inject(self, fault: Fault) -> FaultHandle:
        """Inject a fault."""
        handle = FaultHandle(fault, self._remove)
        with self._lock:
            self._handles.append(handle)
        return handle

    def all(self) -> list[FaultHandle]:
        """Return the faults that were not released, spent ones included, the oldest first."""
        with self._lock:
            return list(self._handles)

    def find(self, service: str, operation: str, text: Callable[[], str]) -> FaultHandle | None:
        """Return the fault that happens to this call, after counting it; None if there is none.

        `text` returns the request's text; it is called only for a fault with `contains`.
        """
        for handle in self.all():
            if _matches(handle.fault, service, operation, text) and handle.take():
                self._on_hit()
                return handle
        return None

    def release_all(self) -> list[FaultHandle]:
        """Release every fault, and return them."""
        handles = self.all()
        for handle in handles:
            handle.release()
        return handles

    def _remove(self, handle: FaultHandle) -> None:
        with self._lock:
            if handle in self._handles:
                self._handles.remove(handle)


def _matches(fault: Fault, service: str, operation: str, text: Callable[[], str]) -> bool:
    if fault.service and fault.service != service:
        return False
    named = fault.operation in operation if service == "rest" else fault.operation in ("", operation)
    return named and (not fault.contains or fault.contains in text())
