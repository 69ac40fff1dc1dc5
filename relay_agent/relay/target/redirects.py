"""Where a redirect leads, and what the next request carries (RFC 9110 §15.4; docs/protocol.md, "Redirects")."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from relay_agent.core.failures import Code
from relay_agent.core.models import Body, Headers, Url
from relay_agent.core.urls import BadUrl, join, normal_host, split_host_port
from relay_agent.relay.target.cookies import Cookies
from relay_agent.transport.errors import TransportFault

MAX_REDIRECTS = 10

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

BODY_HEADERS = frozenset(
    {
        "content-type",
        "content-encoding",
        "content-language",
        "content-location",
        "content-md5",
        "content-digest",
        "repr-digest",
        "digest",
        "last-modified",
        "expect",
    }
)
"""RFC 9110 §15.4: fields that describe a body, removed with it."""

ACROSS_ORIGINS = frozenset({"accept", "accept-language", "accept-encoding", "user-agent", "range"})

ACROSS_WITH_BODY = frozenset({"content-type", "content-encoding", "content-language"})
"""PROTOCOL §3: the fields that are sent to another origin. Any other field may hold a secret, since senders choose the names."""

_NO_UTF_8 = re.compile(r"[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Hop:
    """One request of a chain of redirects."""

    url: Url
    method: str
    headers: Headers = field(repr=False)
    body: Body | None = field(repr=False)
    at_origin: bool = True
    """Whether no redirect has led to another origin. If one has, the target that sent it has chosen the URL: no secret of the agent's own
    may be added to the request, and no client certificate be shown."""


def with_cookies(hop: Hop, jar: Cookies) -> Headers:
    """Return the headers with the target's cookies added to the command's own Cookie field; theirs replace the own of the same name."""
    found = jar.for_request(cookie_host(hop), hop.url.target, secure=hop.url.scheme == "https")
    if not found:
        return hop.headers
    fresh = {name for name, _ in found}
    own = [pair.strip() for value in field_values(hop.headers, "cookie") for pair in value.split(";") if pair.strip()]
    kept = [pair for pair in own if pair.partition("=")[0].strip() not in fresh]
    line = "; ".join([*kept, *(f"{name}={value}" for name, value in found)])
    return (*(pair for pair in hop.headers if pair[0].lower() != "cookie"), ("Cookie", line))


def cookie_host(hop: Hop) -> str:
    """Return the host that cookies belong to: the Host field's, which may differ from the URL's (PROTOCOL §3)."""
    try:
        return next((normal_host(split_host_port(value)[0]) for value in field_values(hop.headers, "host")), hop.url.host)
    except BadUrl:
        return hop.url.host


def field_values(headers: Headers, name: str) -> list[str]:
    """Return the values of all fields of that name, in order."""
    return [value for key, value in headers if key.lower() == name]


def redirect_location(status: int, headers: Headers) -> str | None:
    """Return where a redirect leads; returns None if the response is no redirect or has no Location."""
    if status not in _REDIRECTS:
        return None
    values = field_values(headers, "location")
    return values[0] or None if values else None


def _percent_encoded(location: str) -> str:
    """Decode a Location that was read as ISO-8859-1: its non-ASCII bytes are UTF-8 in practice; others are percent-encoded."""
    text = location.encode("latin-1").decode("utf-8", "surrogateescape")
    return _NO_UTF_8.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)


def next_hop(hop: Hop, status: int, location: str, allowed: frozenset[str] = frozenset()) -> Hop:
    """Return the request that a redirect asks for (RFC 9110 §15.4); no secret is sent to another origin.

    `allowed` are names of further fields, in lower case, that may be sent to another origin.
    """
    url = _followed(hop.url, location)
    headers, method, body = hop.headers, hop.method, hop.body
    if (status in (301, 302) and method == "POST") or (status == 303 and method not in ("GET", "HEAD")):
        method, body = "GET", None
        headers = tuple(pair for pair in headers if pair[0].lower() not in BODY_HEADERS)
    same = _same_origin(hop.url, url)
    if not same:
        along = allowed | (ACROSS_ORIGINS if body is None else ACROSS_ORIGINS | ACROSS_WITH_BODY)
        headers = tuple(pair for pair in headers if pair[0].lower() in along)
    elif url.authorization is None:
        url = replace(url, authorization=hop.url.authorization)
    return Hop(url, method, headers, body, hop.at_origin and same)


def _followed(base: Url, location: str) -> Url:
    try:
        return join(base, _percent_encoded(location))
    except BadUrl as error:
        raise TransportFault(Code.EBADRESPONSE, f"the target redirects to something that {error}") from None


def _same_origin(before: Url, after: Url) -> bool:
    """Return whether secrets may be sent on: to the same origin, or upgraded from HTTP to HTTPS on the default ports."""
    upgraded = (before.scheme, before.port, after.scheme, after.port) == ("http", 80, "https", 443)
    return before.origin == after.origin or (upgraded and before.host == after.host)
