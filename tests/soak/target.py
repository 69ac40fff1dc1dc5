"""The target of a soak: records every complete request and the answer to it, and misbehaves on demand.

Refused connections come from the fronts before it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from urllib.parse import parse_qs, urlsplit

from tests.soak.checker import Answer, Request
from tests.soak.orders import digest
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget

_IDLE_SECONDS = 60.0
_LINE = b"the quick brown fox jumps over the lazy dog 0123456789 times\n"


class Ledger:
    """Every request that was seen, by its command's number: a few dozen bytes each. Any thread may call it."""

    def __init__(self) -> None:
        self._seen: dict[int, list[Request]] = {}
        self._lock = threading.Lock()

    def note(self, number: int, request: Request) -> int:
        """Take one request; which of this number's it is, from 0."""
        with self._lock:
            requests = self._seen.setdefault(number, [])
            requests.append(request)
            return len(requests) - 1

    def answered(self, number: int, place: int, answer: Answer) -> None:
        """Say what is being answered, before its first byte leaves: the agent may report it before this thread continues."""
        with self._lock:
            self._seen[number][place] = replace(self._seen[number][place], answer=answer)

    def seen(self) -> Mapping[int, list[Request]]:
        """All of it."""
        with self._lock:
            return {number: list(requests) for number, requests in self._seen.items()}


class CountingTarget(ByteTarget):
    """All instruments in one server. `moods` says what is wrong with an instrument: a kind of the plan, and its seconds."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.moods: dict[str, tuple[str, float]] = {}
        super().__init__()

    def serve(self, conn: Connection) -> None:
        """Answer requests until somebody closes; nothing but the ledger keeps them."""
        # Longer than an agent keeps a connection: a healthy target never closes one.
        conn.sock.settimeout(_IDLE_SECONDS)
        while not conn.closed and not self._stopping.is_set():
            request = conn.read_request()
            if request is None:
                return
            self._answer(conn, request)

    def _answer(self, conn: Connection, request: RawRequest) -> None:
        url = urlsplit(request.target)
        _, instrument, number_text = url.path.split("/")
        number = int(number_text)
        place = self.ledger.note(number, Request(request.method, digest(request.body), monotonic()))
        wish = {name: values[-1] for name, values in parse_qs(url.query).items()}
        mood, seconds = self.moods.get(instrument, ("", float(wish["seconds"])))
        body = _body(number, place, int(wish["size"]))
        if mood == "target resets":
            conn.reset()
        elif mood == "target silent":
            conn.hang()
            conn.close()
        elif mood == "target breaks off":
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body[: len(body) // 2])
            conn.reset()
        else:
            self._stopping.wait(seconds if mood in ("", "target slow") else 0.0)
            status = 503 if mood == "target 503" else int(wish["status"])
            self.ledger.answered(number, place, Answer(status, digest(body)))
            conn.respond(status, [("Content-Type", "text/plain; charset=utf-8")], body)


def _body(number: int, place: int, size: int) -> bytes:
    """A body that no other answer has, and that compresses well: large ones stay in the sandbox's memory."""
    head = b"answer %d to the request of command %d\n" % (place, number)
    return head + (_LINE * (size // len(_LINE) + 1))[:size]
