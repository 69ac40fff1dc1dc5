"""In the platform's place for a sender: the two routes that it calls, with an agent behind them that answers as the test says."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt as pyjwt

from relay_agent.protocol.jwe import Opened, generate_key, open_command, seal_answer
from relay_agent.protocol.keyring import Keyring

AGENT = "agent-1"
TOKEN = pyjwt.encode({"sub": "sender"}, "k" * 32, algorithm="HS256")
KEY = generate_key()
RING = Keyring.from_text(KEY)
URL = "http://target.example/path?x=1"
Agent = Callable[[dict[str, Any]], tuple[str, Any]]


def answer(status: int = 200, headers: Any = (), body: Any = "", encoding: str = "utf-8") -> tuple[str, dict[str, Any]]:
    response = {"statusCode": status, "headers": list(headers), "body": body, "bodyEncoding": encoding, "url": URL, "elapsedMs": 12}
    return "SUCCESS" if status < 400 else "FAILURE", response


def opened(payload: dict[str, Any], agent_id: str = AGENT) -> Opened:
    """A secure command, as its agent opens it."""
    assert set(payload) == {"jwe"}
    return open_command(payload["jwe"], RING, agent_id=agent_id, now=datetime.now(UTC))


def sealed(body: dict[str, Any], jti: str | None, cid: str = "command-1", ring: Keyring = RING) -> dict[str, Any]:
    """An encrypted answer, as the agent gives one."""
    return {"statusCode": body["statusCode"], "jwe": "".join(seal_answer([json.dumps(body).encode()], ring, cid=cid, jti=jti))}


def failure(code: str, message: str = "words", status: str = "FAILURE") -> tuple[str, dict[str, Any]]:
    return status, {"code": code, "message": message, "url": URL, "elapsedMs": 3}


class Platform:
    """The two routes a sender calls, with an agent behind them that answers at once, or as `polls` has it."""

    def __init__(self) -> None:
        self.agent: Agent = lambda _payload: answer(body="hello")
        self.created: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.refusals: list[tuple[int, dict[str, str], bytes]] = []
        self.polls: list[str | tuple[int, dict[str, str], bytes]] = []
        self.polled = threading.Event()

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.headers.append(headers)
        if method == "POST" and path == "/v1/commands":
            if self.refusals:
                return self.refusals.pop(0)
            self.created.append(json.loads(body))
            return self._json({"id": f"command-{len(self.created)}", "status": "PENDING"})
        self.asked.append(path)
        self.polled.set()
        step = self.polls.pop(0) if self.polls else ""
        if isinstance(step, tuple):
            return step
        if step:
            return self._json({"id": "command-1", "status": step, "responseBody": None})
        command = self.created[int(path.rpartition("-")[2]) - 1]
        status, response = self.agent(command["payload"])
        return self._json({"id": path.rpartition("/")[2], "status": status, "responseBody": response})

    def _json(self, value: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextlib.contextmanager
def serving(platform: Platform, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve the platform on a port of loopback; every thread has ended when it is over."""

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            lowered = {name.lower(): value for name, value in self.headers.items()}
            status, headers, answered = platform.handle(self.command, self.path, lowered, body)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(answered))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answered)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
    assert not thread.is_alive()


def seconds_ahead(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
