"""The target of a qualification's own commands: a server on loopback that records what it gets.

Owns the server and its record. It answers no path but those that were announced, which nobody else knows.
"""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

HOST = "127.0.0.1"
HOLD_SECONDS = 20.0
MAX_BODY = 1_000_000
_IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    def value(self, name: str) -> str | None:
        """Return the value of a header field, None if it is absent."""
        return next((value for other, value in self.fields if other.lower() == name.lower()), None)


class QuietServer(ThreadingHTTPServer):
    """A server on a free port of loopback; a client that goes away is no error."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__((HOST, 0), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="qualification-server", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def begin(self) -> None:
        """Serve on a thread."""
        self._thread.start()

    def end(self) -> None:
        """Stop serving."""
        self.shutdown()
        self._thread.join(5.0)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a killed agent breaks its connections off."""


class QuietHandler(BaseHTTPRequestHandler):
    """What both servers share: HTTP/1.1, no log, bodies with a length."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def body(self) -> bytes:
        """Read the request's body."""
        length = self.headers.get("Content-Length", "0")
        return self.rfile.read(min(int(length), MAX_BODY)) if length.isdigit() else b""

    def answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """Send a response."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class OwnTarget:
    """The target. Use it with `with`. Any thread may call."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seen: list[Seen] = []
        self._answers: dict[str, bytes] = {}
        self._held: dict[str, threading.Event] = {}
        target = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                status, body = target.take(Seen(self.command, self.path, tuple(self.headers.items()), self.body()))
                self.answer(status, body)

            do_POST = do_GET
            do_HEAD = do_GET

        self._server = QuietServer(Handler)

    @property
    def port(self) -> int:
        """The port on loopback."""
        return self._server.port

    def announce(self, *, hold: bool = False) -> tuple[str, bytes]:
        """Return a new URL and the body that its answer will have; with `hold` the answer waits for the next `release`."""
        path = f"/qualification/{secrets.token_hex(16)}?a=1&b=%2F%20%C3%A9"
        body = json.dumps({"answer": secrets.token_hex(16), "text": "ä 漢 \U0001f9ea"}, ensure_ascii=False).encode()
        with self._changed:
            self._answers[path] = body
            if hold:
                self._held[path] = threading.Event()
        return f"http://{HOST}:{self.port}{path}", body

    def release(self) -> None:
        """Let every answer go that is held."""
        with self._changed:
            for held in self._held.values():
                held.set()

    def requests(self, url: str) -> list[Seen]:
        """Return the requests for a URL so far."""
        path = url.removeprefix(f"http://{HOST}:{self.port}")
        with self._changed:
            return [seen for seen in self._seen if seen.target == path]

    def wait_for(self, url: str, seconds: float) -> bool:
        """Wait until a request for a URL has come; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.requests(url)), seconds)

    def take(self, seen: Seen) -> tuple[int, bytes]:
        """Record a request and return its answer."""
        with self._changed:
            self._seen.append(seen)
            self._changed.notify_all()
            body = self._answers.get(seen.target)
            held = self._held.get(seen.target)
        if held is not None:
            held.wait(HOLD_SECONDS)
        return (404, b"{}") if body is None else (200, body)

    def __enter__(self) -> Self:
        self._server.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.end()
