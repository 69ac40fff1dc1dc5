"""Long polls that end as soon as a message arrives, as SQS's do; ministack alone looks only every 100 ms.

This module owns the wait of `ReceiveMessage`. It must not know queues: after any call that may have changed one it asks again.
"""

from __future__ import annotations

import asyncio
import json

from relay_agent.core.clock import Deadline
from relay_agent.sandbox.asgi import App, HeldAnswer, Receive, Request, Scope, Send, json_object, read_request, replay

_CHANGES = frozenset({"SendMessage", "SendMessageBatch", "DeleteMessage", "DeleteMessageBatch", "ChangeMessageVisibility"}) | {
    "ChangeMessageVisibilityBatch"
}
_MAX_WAIT_SECONDS = 20.0
# A message also becomes visible without a call, when its visibility timeout ends.
_TICK_SECONDS = 0.1


class LongPoll:
    """An ASGI app around ministack's, for all callers, including the sandbox itself."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._changed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = await read_request(scope, receive)
        service, _, operation = request.headers.get("x-amz-target", "").partition(".")
        if service == "AmazonSQS" and operation == "ReceiveMessage":
            await self._poll(scope, request, send)
            return
        await self._app(scope, replay(request.body), send)
        if service == "AmazonSQS" and operation in _CHANGES:
            self._changed.set()
            self._changed = asyncio.Event()

    async def _poll(self, scope: Scope, request: Request, send: Send) -> None:
        params = json_object(request.body)
        wait = params.get("WaitTimeSeconds")
        deadline = Deadline(min(float(wait), _MAX_WAIT_SECONDS) if isinstance(wait, int) else 0.0)
        once = json.dumps(params | {"WaitTimeSeconds": 0}).encode()
        while True:
            changed, answer = self._changed, HeldAnswer()
            await self._app(scope, replay(once), answer)
            if answer.status != 200 or answer.json().get("Messages") or deadline.passed:
                await answer.pass_on(send)
                return
            try:
                await asyncio.wait_for(changed.wait(), min(_TICK_SECONDS, deadline.remaining()))
            except TimeoutError:
                continue
