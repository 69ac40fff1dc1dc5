"""Who may use the sandbox: programs on this machine and its own pages, but no other site's page.

This module owns that check, which every request passes first, and the security headers of the pages. It must not know what a
request means.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Response, request
from werkzeug.exceptions import Forbidden

OWN_NAMES = {"127.0.0.1", "localhost", "[::1]"}
"""Names by which the sandbox may be called; a test that gives this machine another name adds it."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Return why a request is refused, and what to do; None if it is allowed. The names in `headers` are in lower case."""
    # A program sends no `Origin`. A page in a browser cannot suppress its own, and cannot choose the `Host`.
    host = headers.get("host")
    if host is not None and not _is_own(host):
        return "The sandbox serves only this machine: use the name 127.0.0.1 or localhost (protection against DNS rebinding)."
    if headers.get("origin", f"http://{host}") != f"http://{host}":
        return "Another site's page may not use the sandbox: use its own page, or a program."
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _follows_a_link(method, headers):
        return "Another site's page may not use the sandbox: use its own page, or a program."
    return None


def check_form() -> None:
    """Refuse a form without an `Origin`.

    Raises:
        Forbidden: it has none.
    """
    if request.method == "POST" and request.headers.get("origin") is None:
        raise Forbidden("The form must be sent from this page itself.")


def secure(response: Response) -> Response:
    """Add the headers that forbid foreign scripts, frames and caching, and return the response."""
    response.headers.update(_HEADERS)
    return response


def _is_own(host: str) -> bool:
    """Return whether a Host field, with any port, is a name of this machine that DNS cannot give to another (RFC 6761 §6.3)."""
    name, colon, port = host.lower().rpartition(":")
    if not colon or not port.isdecimal():
        name = host.lower()
    return name in OWN_NAMES or name.endswith(".localhost")


def _follows_a_link(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a person follows a link on another site's page, which cannot read the answer."""
    return method == "GET" and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
