"""The control routes: inject faults and expire credentials from outside the process, for example with curl.

This module owns these routes and the validation of a fault. It must not know how a fault happens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from flask import Blueprint, request

from relay_agent.core.clock import DAY_SECONDS
from relay_agent.core.header_syntax import is_token
from relay_agent.sandbox.faults import FOREVER, Fault, FaultHandle, Faults
from relay_agent.sandbox.forms import ApiError, Json
from relay_agent.sandbox.rest.agent_routes import json_body

SERVICES = ("rest", "sqs", "s3", "logs")
_FOREVER = "forever"
_MAX_HANG_SECONDS = DAY_SECONDS
_BODILESS = (204, 304)
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|")
_CODE = re.compile(r"[A-Za-z0-9._]+")
# A fault may not set these: the sandbox frames its answers itself.
_FRAMING = frozenset({"content-length", "transfer-encoding"})


class ControlRoutes:
    """The control routes of one sandbox as a Flask blueprint. They need no token: `same_origin` decides who may call."""

    def __init__(self, faults: Faults, expire_credentials: Callable[[], None]) -> None:
        self._faults = faults
        self._expire_credentials = expire_credentials
        self.blueprint = self._routes()

    def _routes(self) -> Blueprint:
        routes = Blueprint("control", __name__, url_prefix="/sandbox")
        routes.post("/faults")(self.inject)
        routes.get("/faults")(self.listing)
        routes.delete("/faults")(self.release_all)
        routes.delete("/faults/<fault_id>")(self.release)
        routes.post("/credentials/expire")(self.expire)
        return routes

    def inject(self) -> Json:
        """`POST /sandbox/faults`: inject a fault; the answer is its id."""
        # Another site's page can send this type only after a preflight (CORS), which the sandbox never allows.
        if not request.is_json:
            raise ApiError(400, "Error validating payload", ["Content-Type must be application/json"])
        return {"id": self._faults.inject(read_fault(json_body())).id}

    def listing(self) -> Json:
        """`GET /sandbox/faults`: the faults not released yet, spent ones included, the oldest first."""
        return {"faults": [_shown(handle) for handle in self._faults.all()]}

    def release(self, fault_id: str) -> Json:
        """`DELETE /sandbox/faults/{id}`: release a fault; the answer is the fault."""
        for handle in self._faults.all():
            if handle.id == fault_id:
                handle.release()
                return _shown(handle)
        raise ApiError(404, f"Fault with id {fault_id} not found")

    def release_all(self) -> Json:
        """`DELETE /sandbox/faults`: release every fault; the answer is the faults."""
        return {"faults": [_shown(handle) for handle in self._faults.release_all()]}

    def expire(self) -> Json:
        """`POST /sandbox/credentials/expire`: let every AWS credential that was issued expire now."""
        self._expire_credentials()
        return {}


def read_fault(body: Json) -> Fault:
    """Return a fault with a request's fields, which are those of `Fault`; `hang_seconds` may be "forever".

    Raises:
        ApiError: 400; it names the wrong field.
    """
    problems = [f"{name} is not a field of a fault: they are {', '.join(_RULES)}" for name in body if name not in _RULES]
    problems += [f"{name} must be {rule}" for name, (holds, rule) in _RULES.items() if name in body and not holds(body[name])]
    problems = problems or _contradictions(body)
    if problems:
        raise ApiError(400, "Error validating payload", problems)
    hang = body.get("hang_seconds", 0.0)
    return Fault(**{**body, "hang_seconds": FOREVER if hang == _FOREVER else float(hang)})


def _contradictions(body: Json) -> list[str]:
    """Return what makes a fault do nothing, or not all that its fields say."""
    status, code = body.get("status"), body.get("code")
    problems = []
    if not (body.get("hang_seconds") or body.get("close") or status is not None or code is not None):
        problems.append("one of hang_seconds, close, status and code is required")
    if code is not None and body.get("service") not in SERVICES[1:]:
        problems.append("code is an AWS error's: service must be one of sqs, s3, logs")
    if (body.get("body") or body.get("headers")) and (status is None or code is not None):
        problems.append("body and headers need a status, and no code")
    if body.get("body") and status in _BODILESS:
        problems.append(f"body must be empty with status {status}")
    return problems


def _shown(handle: FaultHandle) -> Json:
    fault = {field.name: getattr(handle.fault, field.name) for field in fields(Fault)}
    if isinstance(fault["body"], bytes):
        fault["body"] = fault["body"].decode("utf-8", "replace")
    fault["headers"] = dict(fault["headers"])
    fault["hang_seconds"] = _FOREVER if fault["hang_seconds"] == FOREVER else fault["hang_seconds"]
    return {"id": handle.id, "hits": handle.hits, "spent": handle.spent, **fault}


def _whole(value: Any, least: int, most: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _seconds(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value == _FOREVER or (number and 0 <= value <= _MAX_HANG_SECONDS)


def _text(value: Any) -> bool:
    # A lone surrogate is valid in JSON, but cannot be encoded in an answer.
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _headers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_token(name) and name.lower() not in _FRAMING and isinstance(text, str) and _VALUE.fullmatch(text) for name, text in value.items()
    )


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "service": (lambda value: value in ("", *SERVICES), f"one of {', '.join(SERVICES)}, or empty for all"),
    "operation": (_text, "a string"),
    "contains": (_text, "a string"),
    "count": (lambda value: value is None or _whole(value, 1), "a whole number from 1, or null: until it is released"),
    "skip": (lambda value: _whole(value, 0), "a whole number from 0"),
    "hang_seconds": (_seconds, f'a number of seconds up to {_MAX_HANG_SECONDS:.0f}, or "{_FOREVER}": until it is released'),
    "close": (lambda value: isinstance(value, bool), "a boolean"),
    "status": (lambda value: value is None or _whole(value, 200, 599), "a status from 200 to 599, or null"),
    "body": (_text, "a string"),
    "headers": (_headers, "an object of strings in ASCII, without Content-Length and Transfer-Encoding"),
    "code": (lambda value: value is None or (_text(value) and bool(_CODE.fullmatch(value))), "an error code such as SlowDown, or null"),
    "message": (_text, "a string"),
}
