"""Receipt handles that expire with the visibility timeout, as those of SQS's FIFO queues do; ministack accepts them for ever.

This module owns until when a receipt may be used. It must not know messages: ministack does. AWS: a FIFO queue refuses to delete a message
whose visibility timeout has ended ("The receipt handle has expired"), since another receiver may have it by then.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from relay_agent.sandbox.asgi import App, HeldAnswer, Receive, Request, Scope, Send, json_object, read_request, replay, respond

_EXPIRED = "The receipt handle has expired"
_JSON = ("content-type", "application/x-amz-json-1.0")
_MAX_KNOWN = 100_000
"""Receipts that are remembered; older ones are forgotten, and then accepted."""


class Receipts:
    """An ASGI app around the emulator's. `default_seconds` is the queues' own visibility timeout."""

    def __init__(self, app: App, default_seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._default_seconds = default_seconds
        self._monotonic = monotonic
        self._valid_until: OrderedDict[str, float] = OrderedDict()
        self._deleted: set[str] = set()
        """Receipts of messages that were deleted: SQS lets them be deleted again."""
        self._handlers = {
            "ReceiveMessage": self._receive,
            "ChangeMessageVisibility": self._change,
            "ChangeMessageVisibilityBatch": self._change,
            "DeleteMessage": self._delete,
            "DeleteMessageBatch": self._delete_batch,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = await read_request(scope, receive)
        service, _, operation = request.headers.get("x-amz-target", "").partition(".")
        handler = self._handlers.get(operation) if service == "AmazonSQS" else None
        if handler is None:
            await self._app(scope, replay(request.body), send)
        else:
            await handler(scope, request, json_object(request.body), send)

    async def _receive(self, scope: Scope, request: Request, params: dict[str, Any], send: Send) -> None:
        answer = HeldAnswer()
        await self._app(scope, replay(request.body), answer)
        seconds = params.get("VisibilityTimeout", self._default_seconds)
        for message in answer.json().get("Messages", []):
            self._remember(message["ReceiptHandle"], seconds)
        await answer.pass_on(send)

    async def _change(self, scope: Scope, request: Request, params: dict[str, Any], send: Send) -> None:
        for entry in params.get("Entries", [params]):
            if not self._expired(entry.get("ReceiptHandle")):
                self._remember(entry.get("ReceiptHandle"), entry.get("VisibilityTimeout", 0))
        await self._app(scope, replay(request.body), send)

    async def _delete(self, scope: Scope, request: Request, params: dict[str, Any], send: Send) -> None:
        receipt = params.get("ReceiptHandle")
        if self._expired(receipt):
            text = f"Value {receipt} for parameter ReceiptHandle is invalid. Reason: {_EXPIRED}."
            body = json.dumps({"__type": "com.amazonaws.sqs#InvalidParameterValueException", "message": text}).encode()
            await respond(send, 400, body, [_JSON, ("x-amzn-query-error", "InvalidParameterValue;Sender")])
        elif receipt in self._deleted:
            await respond(send, 200, b"{}", [_JSON])
        else:
            answer = HeldAnswer()
            await self._app(scope, replay(request.body), answer)
            if answer.status == 200:
                self._deleted.add(str(receipt))
            await answer.pass_on(send)

    async def _delete_batch(self, scope: Scope, request: Request, params: dict[str, Any], send: Send) -> None:
        receipts = {str(entry.get("Id")): str(entry.get("ReceiptHandle")) for entry in params.get("Entries", [])}
        refused = {entry for entry, receipt in receipts.items() if self._expired(receipt)}
        again = {entry for entry, receipt in receipts.items() if receipt in self._deleted} - refused
        left = [entry for entry in params.get("Entries", []) if entry.get("Id") not in refused | again]
        found: dict[str, Any] = {"Successful": [], "Failed": []}
        if left or not receipts:
            answer = HeldAnswer()
            await self._app(scope, replay(json.dumps(params | {"Entries": left}).encode()), answer)
            if answer.status != 200:
                await answer.pass_on(send)
                return
            found |= answer.json()
            self._deleted.update(receipts[entry["Id"]] for entry in found["Successful"])
        found["Successful"] += [{"Id": entry} for entry in again]
        found["Failed"] += [{"Id": entry, "SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": _EXPIRED} for entry in refused]
        await respond(send, 200, json.dumps(found).encode(), [_JSON])

    def _remember(self, receipt: object, seconds: float) -> None:
        if isinstance(receipt, str):
            self._valid_until[receipt] = self._monotonic() + seconds
            if len(self._valid_until) > _MAX_KNOWN:
                forgotten, _ = self._valid_until.popitem(last=False)
                self._deleted.discard(forgotten)

    def _expired(self, receipt: object) -> bool:
        """Return whether a receipt that was given out may no longer be used; one that is not known is ministack's to judge."""
        until = self._valid_until.get(receipt) if isinstance(receipt, str) else None
        return until is not None and self._monotonic() >= until
