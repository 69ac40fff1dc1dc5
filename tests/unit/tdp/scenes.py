"""A tiny platform over HTTP, and AWS clients without one: the scenes of the tests of `tdp`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from botocore.exceptions import ClientError

from relay_agent.core.clock import Clock
from relay_agent.core.errors import (
    PlatformError,
)
from relay_agent.tdp.credentials import PlatformCredentials
from relay_agent.tdp.rest import TemporaryCredentials

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = "canary-jwt-5e1b"


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """Answers every request with `status`, `headers` and `body`, and records the requests."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    seen: list[Seen] = field(default_factory=list)

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        self.status, self.body = status, body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.seen.append(Seen(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(server.body)))
            self.end_headers()
            self.wfile.write(server.body)

        do_GET = do_POST = do_PUT = serve

        def log_message(self, *_args: object) -> None:
            pass

    return Handler


class Source:
    """The source of credentials: each fetch gives new ones, which are valid for `life`."""

    def __init__(self, life: timedelta = timedelta(hours=1)) -> None:
        self.now = NOW
        self.life = life
        self.fetches = 0
        self.gate: Callable[[], None] = lambda: None
        self.fault: PlatformError | None = None
        self.seen: list[tuple[str, str]] = []
        self.credentials = PlatformCredentials(self._fetch, Clock(now=lambda: self.now), lambda key, token: self.seen.append((key, token)))

    def _fetch(self) -> TemporaryCredentials:
        self.fetches += 1
        self.gate()
        if self.fault is not None:
            raise self.fault
        return TemporaryCredentials(f"key-{self.fetches}", f"secret-{self.fetches}", f"token-{self.fetches}", self.now + self.life)


def aws_error(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "canary"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "X")  # type: ignore[arg-type]
