"""Redirects and the cookies of a target."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from relay_agent.core.clock import http_date
from relay_agent.core.failures import Code
from relay_agent.core.models import Headers
from relay_agent.core.urls import parse_url
from relay_agent.relay.target import cookies, redirects
from relay_agent.transport.errors import TransportFault
from tests.fuzz.harness import PLANTED, Harness, joined, parts

NOW = 1_795_824_000.0
HOSTS = ("lims.lab.example", "lab.example", "xlab.example", "other.example", "192.0.2.1", "2.0.2.1", "example")
SECRETS: Headers = (
    ("Authorization", f"Bearer {PLANTED}"),
    ("Cookie", f"own={PLANTED}"),
    ("X-Api-Key", PLANTED),
    ("Accept", "*/*"),
    ("Content-Type", "text/plain"),
    ("Digest", "x"),
)
STATUSES = (301, 302, 303, 307, 308)
METHODS = ("GET", "POST", "HEAD", "PUT")


def cookie(data: bytes) -> None:
    """A Set-Cookie field is stored within bounds, goes only where it may, and puts nothing else into a request."""
    setter, target, *fields = [part.decode("latin-1") for part in parts(data, 8)]
    host = HOSTS[len(setter) % len(HOSTS)]
    jar = cookies.Cookies(lambda: NOW)
    jar.store(fields, host, target)
    for field in fields:
        parsed = cookies.parse(field)
        assert parsed is None or len(parsed.name) + len(parsed.value) <= cookies.MAX_PAIR
        cookies.parse_date(field)
        http_date(field)
    for other in HOSTS:
        for name, value in jar.for_request(other, target, secure=False):
            assert name and not re.search(r"[\x00-\x08\x0a-\x1f\x7f;]", name + value)
            assert other == host or (same_site(other, host) and "domain" in "".join(fields).lower()), f"a cookie of {host} goes to {other}"
    assert len(jar.for_request(host, target, secure=True)) <= cookies.MAX_COOKIES


def same_site(one: str, other: str) -> bool:
    """Return whether two hosts have a parent domain of at least two labels in common, and neither is an address."""
    names = not (one[0].isdigit() or other[0].isdigit()) and one != "example" != other
    return names and one.split(".")[-2:] == other.split(".")[-2:]


def redirect(data: bytes) -> None:
    """A redirect leads to one request that holds no secret for another origin, or is refused as a bad response."""
    flags, location, set_cookie, start = parts(data, 4)
    number = int.from_bytes(flags[:2])
    base = parse_url("http://user:pass@lims.lab.example/a/b" if start == b"" else "https://user:pass@lims.lab.example:8443/a")
    hop = redirects.Hop(base, METHODS[number % len(METHODS)], SECRETS, b"body")
    status = STATUSES[number // 4 % len(STATUSES)]
    found = redirects.redirect_location(status, (("Location", location.decode("latin-1")),))
    if found is None:
        return
    try:
        follows = redirects.next_hop(hop, status, found)
    except TransportFault as fault:
        assert fault.code == Code.EBADRESPONSE
        return
    check_hop(hop, follows, found)
    jar = cookies.Cookies(lambda: NOW)
    jar.store([set_cookie.decode("latin-1")], base.host, base.target)
    sent = redirects.with_cookies(follows, jar)
    assert all(not re.search(r"[\r\n\0]", name + value) for name, value in sent)
    assert sum(name.lower() == "cookie" for name, _ in sent) <= 1
    check_cookies(hop, follows, sent)


def check_hop(hop: redirects.Hop, follows: redirects.Hop, location: str) -> None:
    """Check what goes along to where."""
    assert follows.url.scheme in ("http", "https") and re.fullmatch(r"/[\x21-\x7e]*", follows.url.target)
    assert urlsplit(str(follows.url)).hostname is not None
    same = follows.url.host == hop.url.host and (
        (follows.url.scheme, follows.url.port) in {(hop.url.scheme, hop.url.port), *([("https", 443)] if hop.url.port == 80 else [])}
    )
    assert follows.at_origin == same
    assert same or PLANTED not in repr(follows.headers), "a secret goes to another origin"
    assert same or follows.url.authorization is None or "@" in location, "credentials go to another origin"
    if follows.body is None:
        assert follows.method in ("GET", "HEAD") and not {name.lower() for name, _ in follows.headers} & redirects.BODY_HEADERS
    else:
        assert follows.method == hop.method


def check_cookies(hop: redirects.Hop, follows: redirects.Hop, sent: Headers) -> None:
    """Check that cookies stay at the host that set them, or within its domain."""
    added = [value for name, value in sent if name.lower() == "cookie" and (name, value) not in follows.headers]
    below = hop.url.host.partition(".")[2]
    assert not added or follows.url.host == hop.url.host or follows.url.host == below or follows.url.host.endswith(f".{below}")


def cookie_seeds() -> list[bytes]:
    """Cookies with each attribute, and dates of each form."""
    fields = [
        "a=b; Path=/a; Domain=.lab.example; Secure; HttpOnly; Max-Age=60",
        "a=b; Expires=Wed, 09 Jun 2032 10:18:14 GMT; domain=lab.example",
        "c=; expires=Wednesday, 09-Jun-32 10:18:14 GMT; max-age=-1",
        "Wed Jun  9 10:18:14 2021",
        'd="e,f"; Path=x; Domain=example; max-age=' + "9" * 400,
        "=x; domain=2.0.2.1",
    ]
    return [joined("a" * number, "/a/b?c", *fields[number % 3 :]) for number in range(len(HOSTS))]


def redirect_seeds() -> list[bytes]:
    """Redirects within and across origins."""
    locations = [
        "/x",
        "//lims.lab.example/",
        "https://lims.lab.example/",
        "http://other/",
        "https://lims.lab.example:8443/b",
        "\xe9\xff",
        "//a@b:1/",
        "ftp://x",
    ]
    return [
        joined(bytes((1 + place, 1 + place * 4)), each.encode("latin-1"), "a=b; domain=lab.example; path=/", start)
        for place, each in enumerate(locations)
        for start in ("", "x")
    ]


HARNESSES = [Harness("cookie", cookie, cookie_seeds), Harness("redirect", redirect, redirect_seeds, 512)]
