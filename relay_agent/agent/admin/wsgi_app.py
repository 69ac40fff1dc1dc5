"""The pages as a WSGI application: who may request which page, and the form of each (docs/operations.md, "Pages").

Owns HTTP. It must not judge anything; `status` does.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

from relay_agent.agent.admin import status_page
from relay_agent.diagnostics import command_history
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.command_history import Listed
from relay_agent.telemetry import metrics

_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
_HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
]
_NOTHING = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, without the common headers."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = (_NOTHING,)


class Known(Protocol):
    """What is known of the agent: `AgentStatus`, or `StartupStatus` before that exists."""

    def live(self) -> list[Problem]:
        """Return why it is not alive."""

    def ready(self) -> list[Problem]:
        """Return why it is not ready."""

    def status(self) -> dict[str, Any]:
        """Return the page `status.json` without the recent commands."""

    def recent(self) -> list[Listed]:
        """Return the newest commands."""


_NONE: Mapping[str, Callable[[], str]] = {}


class Pages:
    """The application behind one of the two sockets."""

    def __init__(
        self, facts: Known, render_metrics: Callable[[], bytes], host: str | None, local: Mapping[str, Callable[[], str]] = _NONE
    ) -> None:
        """`host` is the address it listens on, None on the Unix socket; `local` are further pages of text, for that socket only."""
        self._facts = facts
        self._render_metrics = render_metrics
        self._host = host
        self._routes: dict[str, Callable[[str], Reply]] = {
            "/": self._page,
            "/healthz": lambda _: self._verdict(self._facts.live(), "alive"),
            "/readyz": lambda _: self._verdict(self._facts.ready(), "ready"),
            "/metrics": lambda _: Reply(HTTPStatus.OK, metrics.CONTENT_TYPE, self._render_metrics()),
            "/status.json": self._status,
        }
        for path, text in local.items():
            self._routes[path] = lambda _, text=text: Reply(HTTPStatus.OK, _TEXT, _encoded(text()))  # type: ignore[misc]

    def show(self, facts: Known) -> None:
        """Show this status from now on."""
        self._facts = facts

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        reply = self._reply(environ)
        headers = [("Content-Type", reply.content_type), ("Content-Length", str(len(reply.body))), *_HEADERS, *reply.headers]
        start_response(f"{reply.status.value} {reply.status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [reply.body]

    def _reply(self, environ: WSGIEnvironment) -> Reply:
        if not self._is_allowed_host(environ.get("HTTP_HOST")):
            return _say(
                HTTPStatus.FORBIDDEN,
                "Use localhost or the agent's own address; other names are refused (protection against DNS rebinding).",
            )
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _say(HTTPStatus.METHOD_NOT_ALLOWED, "These pages are read-only: use GET or HEAD.", ("Allow", "GET, HEAD"))
        route = self._routes.get(environ.get("PATH_INFO", ""))
        if route is None:
            return _say(HTTPStatus.NOT_FOUND, "No such page. The pages are /, /healthz, /readyz, /metrics and /status.json.")
        return route(environ.get("QUERY_STRING", ""))

    def _is_allowed_host(self, host: str | None) -> bool:
        """Whether no web page of another name can make a browser send this Host field."""
        if not host:
            return self._host is None
        name = _without_port(host).lower()
        if name == "localhost":
            return True
        if self._host is None:
            return False
        return name == self._host.lower() or (self._host in _WILDCARDS and _is_address(name))

    # --- pages ---

    def _page(self, query: str) -> Reply:
        refresh = "refresh=off" not in query.split("&")
        text = status_page.render(self._facts.status(), self._facts.recent(), refresh=refresh)
        policy = ("Content-Security-Policy", status_page.POLICY if refresh else status_page.POLICY_WITHOUT_SCRIPTS)
        return Reply(HTTPStatus.OK, "text/html; charset=utf-8", _encoded(text), (policy,))

    def _status(self, _query: str) -> Reply:
        found: dict[str, Any] = self._facts.status() | {"commands": command_history.as_json(self._facts.recent())}
        return Reply(HTTPStatus.OK, _JSON, json.dumps(found).encode())

    @staticmethod
    def _verdict(problems: list[Problem], well: str) -> Reply:
        if not problems:
            return Reply(HTTPStatus.OK, _TEXT, f"{well}\n".encode())
        lines = [f"{problem.reason}\n  cause: {problem.cause.cause}\n  cure: {problem.cause.cure}\n" for problem in problems]
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, _encoded("".join(lines)))


def _encoded(text: str) -> bytes:
    # Half of a surrogate pair in a text of the platform's must not make the page fail.
    return text.encode("utf-8", "backslashreplace")


def _say(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Reply:
    return Reply(status, _TEXT, f"{text}\n".encode(), (_NOTHING, *headers))


def _without_port(host: str) -> str:
    """Return the name or address of a Host field; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
