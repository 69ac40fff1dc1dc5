"""The guard before the AWS emulator: it checks credentials and injects faults.

This module owns who may call SQS, S3 and CloudWatch Logs, and the form of AWS's errors. It must not keep queues or objects:
ministack does. Keys, session tokens and dates are checked, and presigned URLs by ministack, but no other signatures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from xml.sax.saxutils import escape

from relay_agent.sandbox.asgi import App, Receive, Request, Scope, Send, drop, read_request, replay, respond, until_disconnect
from relay_agent.sandbox.aws.credentials import Keys, Verdict
from relay_agent.sandbox.faults import FaultHandle, Faults

_TARGETS = {"AmazonSQS": "sqs", "Logs_20140328": "logs"}
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 .*?Credential=([^/\s]+)/")
_OBJECT_CALLS = {"GET": "GetObject", "PUT": "PutObject", "HEAD": "HeadObject", "DELETE": "DeleteObject", "POST": "PostObject"}
_SKEW = {"sqs": timedelta(minutes=5), "logs": timedelta(minutes=5), "s3": timedelta(minutes=15)}


@dataclass(frozen=True, slots=True)
class AwsCall:
    """The service and operation of a request, and the key that signed it (None if it is not signed)."""

    service: str
    operation: str
    access_key_id: str | None
    session_token: str | None
    signed_at: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of AWS: `code` is what a client reads, `kind` the name of its type if that differs."""

    status: int
    code: str
    message: str
    kind: str | None = None


class Guard:
    """An ASGI app around ministack's. `on_call(call, done)` is called when a call arrives and when it is answered."""

    def __init__(self, app: App, keys: Keys, faults: Faults, now: Callable[[], datetime], on_call: Callable[[AwsCall, bool], None]) -> None:
        self._app = app
        self._keys = keys
        self._faults = faults
        self._now = now
        self._on_call = on_call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = await read_request(scope, receive)
        await until_disconnect(receive, self._answer(scope, request, send))

    async def _answer(self, scope: Scope, request: Request, send: Send) -> None:
        call = identify(request)
        self._on_call(call, False)
        try:
            await self._judge(call, scope, request, send)
        finally:
            self._on_call(call, True)

    async def _judge(self, call: AwsCall, scope: Scope, request: Request, send: Send) -> None:
        handle = self._faults.find(call.service, call.operation, lambda: request.target + request.body.decode("utf-8", "replace"))
        if handle is not None and await _fail(handle, call, send):
            return
        refusal = self._refusal(call)
        if refusal is not None:
            await refuse(send, call.service, refusal)
            return
        await self._app(scope, replay(request.body), send)

    def _refusal(self, call: AwsCall) -> Refusal | None:
        if call.access_key_id is None:
            return _ANONYMOUS[call.service]
        verdict = self._keys.verdict(call.access_key_id, call.session_token)
        if verdict is not Verdict.GOOD:
            return _VERDICTS[call.service][verdict]
        return self._skewed(call)

    def _skewed(self, call: AwsCall) -> Refusal | None:
        if call.signed_at is None:
            return None
        signed = _amz_date(call.signed_at)
        if signed is not None and abs(self._now() - signed) <= _SKEW[call.service]:
            return None
        if call.service == "s3":
            return Refusal(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
        return Refusal(403, "SignatureDoesNotMatch", f"Signature expired: {call.signed_at} is out of range", "InvalidSignatureException")


def identify(request: Request) -> AwsCall:
    """Return what a request calls, by the target header of AWS's JSON protocols; a request without it is for S3."""
    prefix, _, operation = request.headers.get("x-amz-target", "").partition(".")
    service = _TARGETS.get(prefix, "s3")
    if service == "s3":
        operation = _OBJECT_CALLS.get(request.method, request.method)
    match = _CREDENTIAL.match(request.headers.get("authorization", ""))
    if match is not None:
        return AwsCall(service, operation, match[1], request.headers.get("x-amz-security-token"), request.headers.get("x-amz-date"))
    presigned = request.query.get("X-Amz-Credential", "").partition("/")[0]
    return AwsCall(service, operation, presigned or None, request.query.get("X-Amz-Security-Token"), None)


async def refuse(send: Send, service: str, refusal: Refusal) -> None:
    """Send an error in the service's own form: JSON with a `__type`, or S3's XML."""
    kind = refusal.kind or refusal.code
    if service == "s3":
        text = f"<Error><Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message></Error>"
        headers = [("content-type", "application/xml")]
        await respond(send, refusal.status, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode(), headers)
        return
    version = "1.0" if service == "sqs" else "1.1"
    headers = [("content-type", f"application/x-amz-json-{version}")]
    if service == "sqs":
        # SQS alone also sends the code of its former XML protocol, which SDKs prefer.
        headers.append(("x-amzn-query-error", f"{refusal.code};Sender"))
    body = json.dumps({"__type": f"com.amazon.coral.service#{kind}", "message": refusal.message})
    await respond(send, refusal.status, body.encode(), headers)


async def _fail(handle: FaultHandle, call: AwsCall, send: Send) -> bool:
    """Do what the fault says, and return whether that answers the call."""
    await handle.hang()
    fault = handle.fault
    if fault.close:
        await drop(send)
    elif fault.code is not None:
        await refuse(send, call.service, Refusal(fault.status or 400, fault.code, fault.message))
    elif fault.status is not None:
        body = fault.body.encode() if isinstance(fault.body, str) else fault.body
        await respond(send, fault.status, body, fault.headers.items())
    else:
        return False
    return True


def _amz_date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


_EXPIRED = "The security token included in the request is expired"
_INVALID = "The security token included in the request is invalid."
_MISSING = Refusal(403, "MissingAuthenticationToken", "Missing Authentication Token", "MissingAuthenticationTokenException")
_ANONYMOUS = {"sqs": _MISSING, "logs": _MISSING, "s3": Refusal(403, "AccessDenied", "Access Denied")}
_VERDICTS = {
    "sqs": {
        Verdict.EXPIRED: Refusal(403, "ExpiredToken", _EXPIRED, "ExpiredTokenException"),
        Verdict.UNKNOWN: Refusal(403, "InvalidClientTokenId", _INVALID, "UnrecognizedClientException"),
        Verdict.WRONG_TOKEN: Refusal(403, "InvalidClientTokenId", _INVALID, "UnrecognizedClientException"),
    },
    "logs": {
        Verdict.EXPIRED: Refusal(400, "ExpiredTokenException", _EXPIRED),
        Verdict.UNKNOWN: Refusal(400, "UnrecognizedClientException", _INVALID),
        Verdict.WRONG_TOKEN: Refusal(400, "UnrecognizedClientException", _INVALID),
    },
    "s3": {
        Verdict.EXPIRED: Refusal(400, "ExpiredToken", "The provided token has expired."),
        Verdict.UNKNOWN: Refusal(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
        Verdict.WRONG_TOKEN: Refusal(400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
    },
}
