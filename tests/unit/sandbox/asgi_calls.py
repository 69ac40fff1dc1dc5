"""One ASGI call without a server: the scenes of the tests of the sandbox's apps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from relay_agent.sandbox.asgi import App, Message


@dataclass
class Answered:
    """What an app sent."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def send(self, message: Message) -> None:
        self.messages.append(message)


def scope(method: str = "POST", target: str = "/", headers: dict[str, str] | None = None) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()],
    }


def call(app: App, body: bytes = b"", **request: Any) -> Answered:
    """Call an app with a request whose client stays connected."""
    answered = Answered()

    async def run() -> None:
        messages: list[Message] = [{"type": "http.request", "body": body}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()
            raise AssertionError

        await asyncio.wait_for(app(scope(**request), receive, answered.send), 10)

    asyncio.run(run())
    return answered
