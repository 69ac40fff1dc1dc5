"""Fault points: the exact places where a test kills the process, or freezes it.

A fault point is armed through the environment (`RELAY_FAULT_POINT`); an armed agent logs it. Reaching one must not flush,
close or report anything: it leaves what a power cut would leave.
"""

from __future__ import annotations

import signal
import threading
from enum import StrEnum


class Point(StrEnum):
    """Where the process can be killed or frozen, in the order in which a command passes them (docs/durability.md)."""

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
    BEFORE_ANSWER = "before-answer"
    ANSWER_SENT = "answer-sent"
    DELIVERED = "delivered"


_STOP = "stop"


class _Armed:
    """The armed point of this process, and how often it is still to be reached."""

    def __init__(self) -> None:
        self.point: Point | None = None
        self.left = 0
        self.signal = signal.SIGKILL
        self.lock = threading.Lock()


# Global on purpose: as an argument it would pass through a dozen constructors that only tests need it in.
_ARMED = _Armed()


def arm(text: str | None) -> Point | None:
    """Arm `point`, or `point:N` to kill the process the Nth time that it is reached; return the point, None if `text` is empty.

    `point:stop` and `point:N:stop` freeze the process with SIGSTOP instead, until a test sends SIGCONT.

    Raises:
        ValueError: there is no such point, or N is not a whole number of 1 or more.
    """
    name, *rest = (text or "").split(":")
    freezes = rest[-1:] == [_STOP]
    count = ":".join(rest[:-1] if freezes else rest)
    if count and not int(count) > 0:
        raise ValueError(f"{count} is not a whole number of 1 or more")
    _ARMED.point, _ARMED.left = (Point(name), int(count or 1)) if name else (None, 0)
    _ARMED.signal = signal.SIGSTOP if freezes else signal.SIGKILL
    return _ARMED.point


def armed() -> Point | None:
    """Return the point that is armed in this process, None if none is."""
    return _ARMED.point


def reach(point: Point) -> None:
    """Kill or freeze the process if this point is armed and due."""
    if point is not _ARMED.point:
        return
    with _ARMED.lock:
        _ARMED.left -= 1
        if _ARMED.left == 0:
            # To this thread, which is thus halted before it does anything else; either signal is for the whole process.
            signal.pthread_kill(threading.get_ident(), _ARMED.signal)
