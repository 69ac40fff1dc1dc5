"""Who may use the sandbox: programs on this machine and its own page, on every route of every platform server; no other site's page.

The check comes before the routes, so that a new route cannot omit it. The page itself is tested in a browser
(`tests/e2e/test_sandbox_page.py`).
"""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from relay_agent.sandbox.server import Sandbox

FOREIGN = [
    {"Host": "rebound.example"},
    {"Host": "rebound.example:8088"},
    {"Host": "127.0.0.1.rebound.example"},
    {"Host": "localhost.rebound.example"},
    {"Host": "notlocalhost"},
    {"Host": "10.0.0.1"},
    {"Host": "[::1"},
    {"Host": ""},
    {"Origin": "http://elsewhere.example"},
    {"Origin": "https://127.0.0.1"},
    {"Origin": "http://localhost:1"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
]


def ask(url: str, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in {**headers, **({"Content-Length": str(len(body))} if body is not None else {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def routes(sandbox: Sandbox) -> list[tuple[str, str]]:
    """Every method and path there is, and some that there are not."""
    found = []
    for rule in sandbox.front.flask.url_map.iter_rules():
        path = rule.rule
        for argument in rule.arguments:
            path = path.replace(f"<path:{argument}>", "x").replace(f"<{argument}>", "x")
        found += [(method, path) for method in sorted(rule.methods or ())]
    return [*found, ("GET", "/none"), ("GET", "/v1/none"), ("POST", "/internal/none"), ("PATCH", "/")]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_no_other_sites_page_reaches_any_route(sandbox: Sandbox, headers: dict[str, str]) -> None:
    called = len(sandbox.requests)
    own = {"ts-auth-token": sandbox.jwt, "x-org-slug": sandbox.org_slug}
    for method, path in routes(sandbox):
        status, text = ask(sandbox.api_target, method, path, own | headers)
        assert (status, "127.0.0.1" in text or "own page" in text or method == "HEAD") == (403, True), (method, path)
    assert len(sandbox.requests) == called


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_no_other_sites_page_reaches_the_emulator_of_aws(sandbox: Sandbox, method: str, headers: dict[str, str]) -> None:
    called = len(sandbox.aws_calls)
    status, text = ask(sandbox.aws_endpoint, method, "/", headers)
    assert (status, "127.0.0.1" in text or "own page" in text) == (403, True)
    assert len(sandbox.aws_calls) == called


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/internal", "/api/v1/commands", "/sandbox/credentials/expire", "/send", "/agents/x/purge"])
def test_a_form_of_another_site_changes_nothing(sandbox: Sandbox, path: str, content_type: str) -> None:
    called = len(sandbox.requests)
    headers = {"Origin": "http://elsewhere.example", "Content-Type": content_type}
    assert ask(sandbox.api_target, "POST", path, headers, b"{}")[0] == 403
    assert len(sandbox.requests) == called


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9", "localhost", "LOCALHOST:8088", "[::1]", "[::1]:8088", "bucket.localhost:4566"]
)
def test_a_program_is_served_under_every_name_of_this_machine(sandbox: Sandbox, host: str) -> None:
    headers = {"Host": host, "x-org-slug": sandbox.org_slug}
    assert ask(sandbox.api_target, "GET", "/api/v1/commands", headers)[0] == 200
    assert ask(sandbox.api_target, "GET", "/", {"Host": host})[0] == 200
    assert "Access Denied" in ask(sandbox.aws_endpoint, "GET", "/", {"Host": host})[1]


def test_a_link_of_another_site_is_followed(sandbox: Sandbox) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(sandbox.api_target, "GET", "/", link)[0] == 200
    assert ask(sandbox.api_target, "POST", "/send", link)[0] == 403


def test_a_form_without_an_origin_is_refused(sandbox: Sandbox) -> None:
    assert ask(sandbox.api_target, "POST", "/send", {"Content-Type": "application/x-www-form-urlencoded"}, b"")[0] == 403
    own = {"Content-Type": "application/x-www-form-urlencoded", "Origin": sandbox.api_target}
    assert ask(sandbox.api_target, "POST", "/send", own, b"")[0] == 400
