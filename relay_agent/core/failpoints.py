"""Fault points: the exact places where a test lets the process die.

Armed from outside, through the environment (`RELAY_FAULT_POINT`), and never silently: an agent that is armed says so in
its log. This room owns the names and the death. It must not do anything else: what a power cut would leave is what is
left, so nothing is flushed, closed or told.

A module's state in place of a constructor's argument, on purpose: a flag handed through seven rooms for the tests' sake
would be a part of each of them.
"""

from __future__ import annotations

import os
import signal
import threading
from enum import StrEnum


class Point(StrEnum):
    """Where the process can die, in the order of a command's way (docs/durability.md)."""

    RECEIVED = "received"
    BEFORE_COMMIT = "before-commit"
    AFTER_COMMIT = "after-commit"
    BEFORE_ACK = "before-ack"
    AFTER_ACK = "after-ack"
    FETCHED = "fetched"
    QUEUED = "queued"
    STARTED = "started"
    SENT = "sent"
    ANSWERED = "answered"
    SPOOLED = "spooled"
    RECORDED = "recorded"
    UPLOADED = "uploaded"
    SETTLED = "settled"
    BEFORE_TELL = "before-tell"
    TOLD = "told"
    DELIVERED = "delivered"


class _Trap:
    """What is armed in this process."""

    def __init__(self) -> None:
        self.point: Point | None = None
        self.left = 0
        self.lock = threading.Lock()


_TRAP = _Trap()


def arm(text: str | None) -> Point | None:
    """Arm `point`, or `point:N`, which dies the Nth time it is reached. The point, None where nothing is armed.

    Raises:
        ValueError: there is no such point, or N is no whole number from 1.
    """
    name, _, count = (text or "").partition(":")
    if count and not int(count) > 0:
        raise ValueError(f"{count} is no whole number from 1")
    _TRAP.point, _TRAP.left = (Point(name), int(count or 1)) if name else (None, 0)
    return _TRAP.point


def armed() -> Point | None:
    """What is armed in this process."""
    return _TRAP.point


def reach(point: Point) -> None:
    """Die here, as by `kill -9`, if a test wants it so."""
    if point is not _TRAP.point:
        return
    with _TRAP.lock:
        _TRAP.left -= 1
        if _TRAP.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
