"""The front of the REST API: it records each call, injects faults, and hands the call to Flask on a thread.

This module owns the record of calls and the bridge to Flask. It must not know what a call means.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flask import Flask
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from relay_agent.sandbox.asgi import Receive, Request, Scope, Send, drop, read_request, respond, until_disconnect
from relay_agent.sandbox.faults import FaultHandle, Faults
from relay_agent.telemetry.secret_patterns import is_secret_header

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

CALL_KEY = "sandbox.call"
CONTROL = "/sandbox/"
"""The path of the control routes. No fault happens to them, so that a fault for all calls can be released."""
_KEPT_BODY = 256 * 1024


@dataclass(slots=True)
class RestCall:
    """One call as received. `json` is its JSON body (up to 256 KiB), `fields` the form fields of a multipart body.

    `status` is None until the call is answered, and stays None if the connection is closed instead.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: datetime
    json: Any = field(default=None, repr=False)
    fields: dict[str, str] = field(default_factory=dict, repr=False)
    status: int | None = None


class RestFront:
    """An ASGI app around the Flask app. `calls` keeps the last 5,000 calls, the newest last."""

    def __init__(self, flask: Flask, faults: Faults, now: Callable[[], datetime], on_call: Callable[[], None]) -> None:
        self.flask = flask
        self._faults = faults
        self._now = now
        self._on_call = on_call
        self.calls: deque[RestCall] = deque(maxlen=5000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = await read_request(scope, receive)
        call = self._note(request)
        try:
            await until_disconnect(receive, self._answer(request, call, send))
        finally:
            self._on_call()

    def _note(self, request: Request) -> RestCall:
        headers = {name: value for name, value in request.headers.items() if not is_secret_header(name)}
        call = RestCall(request.method, request.path, request.query, headers, self._now(), _json(request))
        self.calls.append(call)
        self._on_call()
        return call

    async def _answer(self, request: Request, call: RestCall, send: Send) -> None:
        handle = self._fault(request)
        if handle is not None:
            await handle.hang()
            if handle.fault.close:
                await drop(send)
                return
            if handle.fault.status is not None:
                body = handle.fault.body
                call.status = handle.fault.status
                await respond(send, call.status, body.encode() if isinstance(body, str) else body, handle.fault.headers.items())
                return
        environ = _environ(request, call)
        answer = await asyncio.get_running_loop().run_in_executor(None, _run, self.flask, environ)
        call.status = answer.status_code
        # A HEAD is answered with the Content-Length of the GET, but without the body.
        body = b"" if request.method == "HEAD" else answer.get_data()
        await respond(send, answer.status_code, body, answer.headers.items())

    def _fault(self, request: Request) -> FaultHandle | None:
        if request.path.startswith(CONTROL):
            return None
        return self._faults.find(
            "rest", f"{request.method} {request.path}", lambda: request.target + request.body.decode("utf-8", "replace")
        )


def _run(flask: Flask, environ: WSGIEnvironment) -> Response:
    return Response.from_app(flask, environ, buffered=True)


def _environ(request: Request, call: RestCall) -> WSGIEnvironment:
    host = request.headers.get("host", "localhost")
    builder = EnvironBuilder(
        path=request.target.partition("?")[0],
        query_string=request.target.partition("?")[2],
        method=request.method,
        base_url=f"http://{host}/",
        headers=list(request.headers.items()),
        data=request.body,
        environ_base={"REMOTE_ADDR": "127.0.0.1"},
        environ_overrides={CALL_KEY: call},
    )
    try:
        return builder.get_environ()
    finally:
        builder.close()


def _json(request: Request) -> Any:
    if "json" not in request.headers.get("content-type", "") or len(request.body) > _KEPT_BODY:
        return None
    try:
        return json.loads(request.body)
    except ValueError:
        return None
