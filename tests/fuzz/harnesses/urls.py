"""URLs of commands and redirects, and the addresses that hosts are written as."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import replace

from relay_agent.core.models import Url
from relay_agent.core.urls import MAX_HOST, MAX_URL, BadUrl, check_host_header, join, literal_address, normal_host, parse_url, unmapped
from tests.fuzz import spellings
from tests.fuzz.harness import Harness, check_refusal, joined, parts, text

BASE = parse_url("https://user:pass@lims.lab.example:8443/a/b?c=d")


def url(data: bytes) -> None:
    """A URL is parsed to one that parses to itself, or is refused by a text that repeats no part of it."""
    written = text(data)
    for read in (parse_url, normal_host, check_host_header):
        try:
            found = read(written)
        except BadUrl as error:
            check_refusal(error)
            continue
        if isinstance(found, Url):
            check_url(found)
        elif isinstance(found, str):
            check_host(found)


def check_url(found: Url) -> None:
    """Check what a URL promises, and that its text means the same URL."""
    assert found.scheme in ("http", "https") and 1 <= found.port <= 65535
    assert re.fullmatch(r"/[\x21-\x7e]*", found.target) and "#" not in found.target and len(found.target) <= MAX_URL + 1
    assert found.authorization is None or re.fullmatch(r"Basic [A-Za-z0-9+/]+=*", found.authorization)
    check_host(found.host)
    if len(str(found)) <= MAX_URL:
        assert parse_url(str(found)) == replace(found, authorization=None)


def check_host(host: str) -> None:
    """Check that a host is in its one form, and that an address in it is recognised wherever the system's resolver sees one."""
    assert host.isascii() and len(host) <= MAX_HOST + 1
    assert ":" in host or normal_host(host) == host
    address = literal_address(host)
    try:
        numeric = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        numeric = []
    for *_, where in numeric:  # What the resolver takes for a number must not pass for a name.
        assert address == unmapped(ipaddress.ip_address(where[0].partition("%")[0])), "an address is taken for a name"
    if address is not None:
        assert all(literal_address(normal_host(each)) == address for each in spellings.of_address(address))


def location(data: bytes) -> None:
    """A redirect's Location leads to a URL of http or https, or is refused."""
    written, base = (text(part) for part in parts(data, 2))
    try:
        start = parse_url(base) if base else BASE
    except BadUrl:
        start = BASE
    try:
        found = join(start, written)
    except BadUrl as error:
        check_refusal(error)
        return
    check_url(found)
    stays = found.origin == start.origin
    assert stays or found.authorization is None or found.authorization != start.authorization or "@" in written
    assert not {".", ".."} & set(found.target.partition("?")[0].split("/")) or written.strip(" \t\r\n")[:1] in ("", "?", "#")


def url_seeds() -> list[bytes]:
    """URLs and hosts of every form."""
    urls = [
        "http://lims.lab.example/a%2Fb//c?d=e#f",
        "https://user:p%40ss@h:8443",
        "HTTP://[2001:DB8::1%25eth0]:80/",
        "http://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/\N{LATIN SMALL LETTER E WITH ACUTE}",
        "http://xn--bcher-kva.example./",
        *(f"http://{each}/" for each in ("2130706433", "0x7f.1", "0177.0.0.1", "127.1.", "[::ffff:127.0.0.1]", "1.2.3.4.5", "0x", "09")),
        *("lims.lab.example:443", "[::1]:80", "0x7f000001", "fullwidth\uff0ehost", "_a.b-", "a" * 63 + "." + "b" * 63),
    ]
    return [each.encode() for each in urls]


def location_seeds() -> list[bytes]:
    """References of every form."""
    references = [
        "/x",
        "../../y?z",
        "//other/p",
        "https:/x",
        "https://a:b@h/",
        "?q",
        "#f",
        "",
        " a b\t",
        "x/./y/..",
        "https:rel",
        "mailto:a",
    ]
    return [joined(each, base) for each in references for base in ("", "http://h/a/b/c?d")]


HARNESSES = [Harness("url", url, url_seeds, 512), Harness("location", location, location_seeds, 512)]
