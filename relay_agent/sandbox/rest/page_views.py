"""What the web pages show, as plain values: an agent's line, a command's line, a command's details.

This module owns how values are worded and shortened for people. It must not render or route.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from relay_agent.core.clock import iso
from relay_agent.sandbox.agents import Agent
from relay_agent.sandbox.commands import Command, Event

_SHOWN_CHARACTERS = 20_000
_FORM_NAMES = frozenset({"method", "url", "timeout", "headers", "body", "ignore_tls_certificate"})
_TONES = {"SUCCESS": "good", "FAILURE": "bad", "REJECTED": "bad", "ERROR": "bad", "EXPIRED": "bad", "PROCESSING": "busy"}


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, and how long ago or how far ahead it is."""

    iso: str
    age: str


@dataclass(frozen=True, slots=True)
class AgentLine:
    """One agent in the list."""

    id: str
    name: str
    online: bool
    since: Moment | None
    stopped: bool
    enabled: bool
    queue_enabled: bool
    version: str


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One command in the list."""

    id: str
    status: str
    tone: str
    method: str
    host: str
    code: str
    action: str
    agent: str
    created: Moment
    final: bool


@dataclass(frozen=True, slots=True)
class Side:
    """A request or a response: named values, headers, a body, and all of it as JSON."""

    facts: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    body: str
    raw: str


def moment(at: datetime, now: datetime) -> Moment:
    """Return a time, and its distance from `now`."""
    seconds = (now - at).total_seconds()
    if 0 <= seconds < 1:
        return Moment(iso(at), "just now")
    text = _span(abs(seconds))
    return Moment(iso(at), f"{text} ago" if seconds >= 0 else f"in {text}")


def agent_line(agent: Agent, now: datetime) -> AgentLine:
    """Return an agent's line."""
    since = agent.since(now)
    return AgentLine(
        id=agent.id,
        name=agent.name,
        online=agent.online(now),
        since=moment(since, now) if since else None,
        stopped=bool(agent.settings and agent.settings[-1][1] == "STOPPED"),
        enabled=agent.enabled,
        queue_enabled=agent.queue_enabled,
        version=agent.version or "",
    )


def command_line(command: Command, agent: Agent | None, now: datetime) -> CommandLine:
    """Return a command's line."""
    response = command.response_body if isinstance(command.response_body, dict) else {}
    return CommandLine(
        id=command.id,
        status=command.status,
        tone=_TONES.get(command.status, "quiet"),
        method="secure" if "jwe" in command.payload else str(command.payload.get("method") or "GET"),
        host=_host(command.payload.get("url")),
        code=str(response.get("statusCode") or response.get("code") or ""),
        action=command.action.rpartition("TetraScience.Connector.")[2],
        agent=agent.name if agent else command.target_id,
        created=moment(command.created_at, now),
        final=command.final,
    )


def request_side(command: Command) -> Side:
    """Return a command's request."""
    payload = command.payload
    names = ("method", "url", "timeout", "follow_redirects", "ignore_tls_certificate", "encrypt_response")
    facts = [(name, _fact(payload[name])) for name in names if name in payload]
    body = payload.get("body")
    text = body.get("raw") if isinstance(body, dict) and body.get("mode") == "raw" else body
    return Side(facts, list(_headers(payload.get("headers"))), _text(text), _pretty(payload))


def response_side(command: Command) -> Side | None:
    """Return a command's response, None if there is none."""
    response = command.response_body
    if response is None:
        return None
    if not isinstance(response, dict):
        return Side([], [], _text(response), _pretty(response))
    names = ("statusCode", "code", "message", "url", "bodyEncoding", "elapsedMs")
    facts = [(name, _fact(response[name])) for name in names if name in response]
    return Side(facts, list(_headers(response.get("headers"))), _text(response.get("body")), _pretty(response))


def repeatable(command: Command) -> bool:
    """Return whether the same command may be sent again: a secure one is for one use."""
    return "jwe" not in command.payload


def form_fields(command: Command) -> dict[str, str] | None:
    """Return what the form must hold to send such a command; None if it has something that the form has no field for."""
    payload = command.payload
    body = payload.get("body")
    text = body.get("raw", "") if isinstance(body, dict) and body.get("mode") == "raw" else "" if body is None else body
    headers = list(_headers(payload.get("headers")))
    lines = [f"{name}: {value}" for name, value in headers]
    if not payload.keys() <= _FORM_NAMES or not isinstance(text, str) or any(len(line.splitlines()) != 1 for line in lines):
        return None
    return {
        "target": command.target_id,
        "action": command.action,
        "method": _text(payload.get("method")),
        "url": _text(payload.get("url")),
        "headers": "\n".join(lines),
        "body": text,
        "timeout": _fact(payload.get("timeout")),
        "ignore_tls_certificate": "1" if payload.get("ignore_tls_certificate") is True else "",
    }


def history_lines(command: Command, now: datetime) -> list[tuple[Event, Moment, str]]:
    """Return a command's history: each event, its time, and the time since the event before."""
    events = list(command.history)
    gaps = [""] + [f"+{_span((late.at - early.at).total_seconds())}" for early, late in pairwise(events)]
    return [(event, moment(event.at, now), gap) for event, gap in zip(events, gaps, strict=True)]


def _headers(headers: Any) -> Iterator[tuple[str, str]]:
    """Yield the headers from both forms of PROTOCOL §3 and §4: a list of objects, or one object; values are text or lists of text."""
    objects = headers if isinstance(headers, list) else [headers]
    for entry in objects:
        for name, value in entry.items() if isinstance(entry, dict) else ():
            for text in value if isinstance(value, list) else [value]:
                yield str(name), str(text)


def _host(url: object) -> str:
    try:
        parts = urlsplit(str(url or ""))
        return parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _fact(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _text(value)


def _text(value: object) -> str:
    if value is None:
        return ""
    return _short(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _pretty(value: object) -> str:
    return _short(json.dumps(value, indent=2, ensure_ascii=False))


def _short(text: str) -> str:
    # Lone surrogates are valid in JSON, but cannot be encoded in a page.
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}\n… {len(text) - _SHOWN_CHARACTERS:,} more characters are not shown here"


def _span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
