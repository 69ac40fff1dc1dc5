"""The part of ASGI that the sandbox's two servers share: reading a whole request, sending an answer, dropping a connection.

This module owns these types and functions. It must not know what a request means.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from hypercorn.protocol.events import StreamClosed

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request with its whole body. Header names are in lower case; `target` is that of the request line, not decoded."""

    method: str
    path: str
    target: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


class Disconnected(Exception):
    """The client went away before its request was complete."""


def header_fields(scope: Scope) -> dict[str, str]:
    """Return a request's header fields, their names in lower case."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def read_request(scope: Scope, receive: Receive) -> Request:
    """Read a request to its end.

    Raises:
        Disconnected: the client closed the connection before.
    """
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    query = scope["query_string"].decode("latin-1")
    target = scope["raw_path"].decode("latin-1")
    return Request(
        method=scope["method"],
        path=scope["path"],
        target=f"{target}?{query}" if query else target,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=header_fields(scope),
        body=b"".join(parts),
    )


def replay(body: bytes) -> Receive:
    """Return a `receive` that returns a body already read, and then waits; the task is cancelled when the client disconnects."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise Disconnected

    return receive


async def respond(send: Send, status: int, body: bytes, headers: Iterable[tuple[str, str]]) -> None:
    """Send a whole answer."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if not any(name == b"content-length" for name, _ in raw):
        raw.append((b"content-length", str(len(body)).encode("ascii")))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; an empty one if it is anything else."""
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class HeldAnswer:
    """An app's answer that is held back: to be read, and then passed on or replaced. It is the `send` that the app is called with."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        """Keep a part of the answer."""
        self._messages.append(message)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self._messages[0]["status"])

    def json(self) -> dict[str, Any]:
        """Return the answer's JSON object; an empty one if it is anything else."""
        return json_object(b"".join(message.get("body", b"") for message in self._messages))

    async def pass_on(self, send: Send) -> None:
        """Send the answer as it is."""
        for message in self._messages:
            await send(message)


async def drop(send: Send) -> None:
    """Close the connection without an answer."""
    # ASGI has no message for that, but hypercorn's stream has.
    stream: Any = getattr(send, "__self__", None)
    if stream is not None:
        await stream.send(StreamClosed(stream_id=stream.stream_id))


async def until_disconnect(receive: Receive, work: Awaitable[None]) -> None:
    """Run `work`, and cancel it if the client disconnects."""
    # Otherwise a long poll whose client was killed would still take the next messages off a queue.
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
    await asyncio.gather(working, gone, return_exceptions=True)
    if not working.cancelled():
        working.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
