"""The pages as an application: who may ask, for what, and in which form it is answered (docs/operations.md, "Pages")."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay_agent.agent.admin.wsgi_app import Pages
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.local_causes import STUCK


class Known:
    """An agent with the problems that the test gives it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def live(self) -> list[Problem]:
        return []

    def ready(self) -> list[Problem]:
        return self.problems

    def status(self) -> dict[str, Any]:
        return {"state": "running"}

    def recent(self) -> list[Any]:
        return []


def ask(path: str, host: str | None = "localhost:8089", *, method: str = "GET", listens: str | None = "127.0.0.1", **more: Any) -> Any:
    """Status, headers and body of a request to an application that listens on `listens`, None being the Unix socket."""
    pages = Pages(more.get("known") or Known(), lambda: b"metrics", listens, more.get("local") or {})
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path} | ({"HTTP_HOST": host} if host is not None else {})
    reported: list[Any] = []
    body = b"".join(pages(environ, lambda status, headers, *_: reported.extend((status, dict(headers)))))  # type: ignore[arg-type,func-returns-value]
    return reported[0], reported[1], body


@pytest.mark.parametrize(
    ("host", "listens", "welcome"),
    [
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:8089", "127.0.0.1", True),
        ("127.0.0.1:8089", "127.0.0.1", True),
        ("192.0.2.1:8089", "127.0.0.1", False),
        ("192.0.2.1:8089", "0.0.0.0", True),
        ("[2001:db8::1]:8089", "::", True),
        ("agent.lab.example", "0.0.0.0", False),
        ("evil.example", "127.0.0.1", False),
        (None, "127.0.0.1", False),
        (None, None, True),
        ("evil.example", None, False),
    ],
)
def test_only_names_that_no_foreign_page_can_use_are_answered(host: str | None, listens: str | None, welcome: bool) -> None:
    assert ask("/healthz", host, listens=listens)[0] == ("200 OK" if welcome else "403 Forbidden")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_pages_can_only_be_read(method: str) -> None:
    status, headers, _ = ask("/healthz", method=method)
    assert (status, headers["Allow"]) == ("405 Method Not Allowed", "GET, HEAD")


def test_head_has_the_length_and_no_body() -> None:
    _, headers, body = ask("/metrics", method="HEAD")
    assert (headers["Content-Length"], body) == ("7", b"")


def test_a_page_that_does_not_exist_is_404_and_so_is_the_log_where_it_may_not_be_shown() -> None:
    assert ask("/nothing")[0] == ask("/log")[0] == "404 Not Found"
    assert ask("/log", local={"/log": lambda: "a line\n"})[2] == b"a line\n"


def test_an_agent_that_is_not_ready_says_why_with_cause_and_cure() -> None:
    known = Known()
    assert ask("/readyz", known=known)[::2] == ("200 OK", b"ready\n")
    known.problems = [Problem("it stands still", STUCK)]
    status, _, body = ask("/readyz", known=known)
    assert status == "503 Service Unavailable"
    assert all(text in body.decode() for text in ("it stands still", STUCK.cause, STUCK.cure))


def test_a_text_with_half_of_a_surrogate_pair_is_shown() -> None:
    known = Known()
    known.problems = [Problem("AWS says \ud800", STUCK)]
    status, _, body = ask("/readyz", known=known)
    assert status == "503 Service Unavailable" and b"AWS says \\ud800" in body


def test_the_status_is_json_with_the_commands() -> None:
    _, headers, body = ask("/status.json")
    assert (headers["Content-Type"], json.loads(body)) == ("application/json", {"state": "running", "commands": []})


@pytest.mark.parametrize("path", ["/healthz", "/status.json", "/nothing"])
def test_no_page_may_load_anything(path: str) -> None:
    assert ask(path)[1]["Content-Security-Policy"].startswith("default-src 'none'")
