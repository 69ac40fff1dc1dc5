"""Who may use the page and the control: this machine only, and no other site's pages.

This room owns that check, and the headers that keep a page to itself. It must not know what is asked.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Response, request
from werkzeug.exceptions import Forbidden

_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def check_form() -> None:
    """Let in a browser on this machine, and only forms of this page: no other site's, by whatever name it reached us."""
    _check_host()
    if request.method == "POST" and request.headers.get("origin") != _own():
        raise Forbidden("The form must be sent from this page itself.")


def check_program() -> None:
    """Let in programs on this machine (curl sends no `Origin`), and no other site's page, which cannot hide its own."""
    _check_host()
    if request.headers.get("origin", _own()) != _own() or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Forbidden("Another site's page may not do this.")


def secure(response: Response) -> Response:
    """Give a page the headers that keep scripts, frames and caches out."""
    response.headers.update(_HEADERS)
    return response


def _check_host() -> None:
    # A name that somebody else bound to 127.0.0.1 would make their page one of this origin.
    if urlsplit(f"//{request.host}").hostname not in _HOSTS:
        raise Forbidden("This page is served to this machine only.")


def _own() -> str:
    return f"http://{request.host}"
