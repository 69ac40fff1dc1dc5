"""One thread with an event loop, and the HTTP servers on loopback that run in it.

This module owns the sockets, the thread and its end. It must not know what the servers answer.
Threads: `sandbox-loop` runs everything here but `start`, `call`, `soon` and `stop`, which other threads call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from email.utils import format_datetime
from typing import Any, TypeVar

from hypercorn.asyncio import serve
from hypercorn.config import Config

from relay_agent.sandbox.asgi import App, Disconnected, Message, Receive, Scope, Send, drop, header_fields, respond
from relay_agent.sandbox.forms import ApiError
from relay_agent.sandbox.rest.same_origin import refusal

HOST = "127.0.0.1"
_HANDLER_THREADS = 16
_START_SECONDS = 10.0
_CALL_SECONDS = 30.0
_REFUSED = [("content-type", "application/json"), ("x-content-type-options", "nosniff"), ("cache-control", "no-store")]

T = TypeVar("T")
Task = Callable[[], Coroutine[Any, Any, None]]


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a loopback port; 0 means any free port.

    Raises:
        OSError: the port is taken.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(256)
    except OSError:
        listening.close()
        raise
    return listening


class Front:
    """Wraps every app: refuses other sites' requests, adds `Date`, and lists the running requests, so that a stop can end them."""

    def __init__(self, app: App, now: Callable[[], datetime]) -> None:
        self._app = app
        self._now = now
        self._under_way: dict[asyncio.Task[Any], Send] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or a lifespan event."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start" and not any(name == b"date" for name, _ in message["headers"]):
                date = format_datetime(self._now(), usegmt=True).encode("ascii")
                message = {**message, "headers": [*message["headers"], (b"date", date)]}
            await send(message)

        dated.__self__ = getattr(send, "__self__", None)  # type: ignore[attr-defined]  # `drop` looks for the stream here
        refused = refusal(scope["method"], header_fields(scope))
        if refused is not None:
            await respond(dated, 403, json.dumps(ApiError(403, refused).to_json()).encode(), _REFUSED)
            return
        task = asyncio.current_task()
        assert task is not None
        self._under_way[task] = send
        try:
            with contextlib.suppress(Disconnected):
                await self._app(scope, receive, dated)
        finally:
            del self._under_way[task]

    async def drop_all(self) -> None:
        """Close every connection with a running request, so that no long poll delays a stop."""
        for task, send in list(self._under_way.items()):
            await drop(send)
            task.cancel()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class Hosting:
    """The serving thread: started once, stopped once."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self, servers: Sequence[tuple[App, socket.socket]], tasks: Sequence[Task]) -> None:
        """Serve each app on its socket, and run each background task, until `stop`, which closes the sockets."""
        self._thread = threading.Thread(target=self._run, args=(servers, tasks), name="sandbox-loop", daemon=True)
        self._thread.start()
        self._loop = self._ready.result(_START_SECONDS)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop from another thread, and return its result.

        Raises:
            TimeoutError: it did not end within 30 s.
        """
        assert self._loop is not None and threading.current_thread() is not self._thread
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    def soon(self, act: Callable[[], object]) -> None:
        """Call `act` in the loop, from any thread; do nothing if the loop has ended."""
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(act)

    def stop(self) -> None:
        """Close every connection, end every task and join the thread."""
        if self._thread is None or self._stop is None:
            return
        self.soon(self._stop.set)
        self._thread.join()

    def _run(self, servers: Sequence[tuple[App, socket.socket]], tasks: Sequence[Task]) -> None:
        try:
            asyncio.run(self._main(servers, tasks))
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _main(self, servers: Sequence[tuple[App, socket.socket]], tasks: Sequence[Task]) -> None:
        loop = asyncio.get_running_loop()
        self._stop, closing = asyncio.Event(), asyncio.Event()
        loop.set_default_executor(ThreadPoolExecutor(_HANDLER_THREADS, thread_name_prefix="sandbox-rest"))
        fronts = [Front(app, self._now) for app, _ in servers]
        serving = [
            asyncio.create_task(serve(front, _config(listening), shutdown_trigger=closing.wait, mode="asgi"))  # type: ignore[arg-type]
            for front, (_, listening) in zip(fronts, servers, strict=True)
        ]
        background = [asyncio.create_task(task()) for task in tasks]
        self._ready.set_result(loop)
        stopping = asyncio.create_task(self._stop.wait())
        # A background task ends only by a bug; then the whole sandbox stops, rather than run without it.
        await asyncio.wait({stopping, *serving, *background}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for front in fronts:
            await front.drop_all()
        closing.set()
        for task in background:
            task.cancel()
        ended = await asyncio.gather(*background, return_exceptions=True)
        await asyncio.gather(*serving)
        for fault in ended:
            if isinstance(fault, Exception):
                raise fault


def _config(listening: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.accesslog = config.errorlog = None
    config.include_date_header = False
    config.include_server_header = False
    # Idle connections stay open about as long as AWS's, not hypercorn's 5 s.
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 1_000_000
    config.h11_max_incomplete_size = 64 * 1024
    config.graceful_timeout = 1
    return config
