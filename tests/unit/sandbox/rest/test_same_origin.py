"""Who may use the sandbox: programs and its own pages, by names of this machine alone."""

from __future__ import annotations

import pytest

from relay_agent.sandbox.rest.same_origin import refusal

OWN = {"host": "127.0.0.1:8080"}
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8080", True),
        ("LOCALHOST:8080", True),
        ("sandbox.localhost:8080", True),
        ("[::1]:8080", True),
        ("[::1]", True),
        ("192.0.2.1:8080", False),
        ("evil.example", False),
        ("localhost.evil.example:8080", False),
        ("evillocalhost", False),
        ("127.0.0.1:x", False),
        ("", False),
    ],
)
def test_only_names_of_this_machine_are_answered(host: str, allowed: bool) -> None:
    assert (refusal("GET", {"host": host}) is None) == allowed


def test_a_program_sends_no_origin_and_may_do_everything() -> None:
    assert [method for method in ("GET", "POST", "DELETE") if refusal(method, OWN)] == []
    assert refusal("POST", {}) is None


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:8080", True),
        ("https://127.0.0.1:8080", False),
        ("http://127.0.0.1:9", False),
        ("http://evil.example", False),
        ("null", False),
    ],
)
def test_a_page_in_a_browser_must_be_the_sandbox_s_own(origin: str, allowed: bool) -> None:
    assert (refusal("POST", {**OWN, "origin": origin}) is None) == allowed


@pytest.mark.parametrize(("site", "allowed"), [("none", True), ("same-origin", True), ("same-site", False), ("cross-site", False)])
def test_a_browser_that_says_where_a_request_comes_from_is_believed(site: str, allowed: bool) -> None:
    assert (refusal("GET", {**OWN, "sec-fetch-site": site}) is None) == allowed


@pytest.mark.parametrize(
    ("method", "more", "allowed"),
    [
        ("GET", {}, True),
        ("POST", {}, False),
        ("GET", {"sec-fetch-mode": "no-cors"}, False),
        ("GET", {"sec-fetch-dest": "iframe"}, False),
    ],
)
def test_a_link_on_another_page_may_be_followed_but_not_embedded_or_posted(method: str, more: dict[str, str], allowed: bool) -> None:
    assert (refusal(method, {**OWN, **LINK, **more}) is None) == allowed
