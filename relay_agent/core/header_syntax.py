"""The characters of HTTP header fields (RFC 9110 §5.5, §5.6.2), for those who read them and those who check what is to be sent."""

from __future__ import annotations

import re

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 - a grammar's term
"""The pattern of a token: a field's name, a method, a scheme."""

_TOKEN = re.compile(TOKEN)
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def is_token(text: str) -> bool:
    """Return whether a text is a token."""
    return _TOKEN.fullmatch(text) is not None


def folded_name(name: str) -> str:
    """Return a field's name as a target may see it: CGI (RFC 3875 §4.1.18) and WSGI take `X_Api_Key` for `X-Api-Key`."""
    return _NOT_ALPHANUMERIC.sub("_", name.lower())


def shown_name(text: str) -> str:
    """Return a field's name for display: the token that it begins with, since somebody may have written the value beside it."""
    match = _TOKEN.match(text)
    token = match[0] if match else ""
    return token if token == text else f"{token}…"


def has_control(text: str) -> bool:
    """Return whether a text contains a control character that no field's value may have: any but the tab."""
    return _CONTROL.search(text) is not None
