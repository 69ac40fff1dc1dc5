"""Who may use the sandbox: programs on this machine, and its own page; no other site's page, by whatever name it reached us.

This room owns that check, which stands before every server's routes, and the headers that keep a page to itself. It must not know
what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Response, request
from werkzeug.exceptions import Forbidden

OWN_NAMES = {"127.0.0.1", "localhost", "[::1]"}
"""A drill that gives this machine another name adds it."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Why a request is refused, and what to do; None if it is let in. `headers` have lower-case names.

    A program sends no `Origin`; a browser's page cannot hide its own, and cannot choose the `Host`.
    """
    host = headers.get("host")
    if host is not None and not _is_own(host):
        return "The sandbox serves this machine only, under 127.0.0.1 and localhost: ask for it by one of these (DNS rebinding)."
    if headers.get("origin", f"http://{host}") != f"http://{host}":
        return "Another site's page may not use the sandbox: use its own page, or a program."
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _follows_a_link(method, headers):
        return "Another site's page may not use the sandbox: use its own page, or a program."
    return None


def check_form() -> None:
    """Let in only forms that say that they are this page's own."""
    if request.method == "POST" and request.headers.get("origin") is None:
        raise Forbidden("The form must be sent from this page itself.")


def secure(response: Response) -> Response:
    """Give a page the headers that keep scripts, frames and caches out."""
    response.headers.update(_HEADERS)
    return response


def _is_own(host: str) -> bool:
    """Whether a Host field has a name of this machine, which nobody else can bind (RFC 6761 §6.3), with any port."""
    name, colon, port = host.lower().rpartition(":")
    if not colon or not port.isdecimal():
        name = host.lower()
    return name in OWN_NAMES or name.endswith(".localhost")


def _follows_a_link(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a person comes from another site's page: the answer is shown, and that page cannot read it."""
    return method == "GET" and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
