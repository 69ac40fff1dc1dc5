"""The settings that say which proxy serves a call."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
from urllib.parse import quote

from relay_agent.core.urls import BadUrl, literal_address, parse_url
from relay_agent.telemetry.redaction import Redactor, proxy_secrets
from relay_agent.telemetry.secret_patterns import MASK
from relay_agent.transport.no_proxy import find_entry, parse_no_proxy
from relay_agent.transport.proxy import parse_proxy
from tests.fuzz import spellings
from tests.fuzz.harness import PLANTED, Harness, check_refusal, joined, parts, text


def no_proxy(data: bytes) -> None:
    """Any list is read, and every spelling of an address gets the answer that the address gets."""
    written, url = (text(part) for part in parts(data, 2))
    entries = parse_no_proxy(written)
    assert len(entries) <= len(written)
    try:
        called = parse_url(url)
    except BadUrl:
        return
    first = find_entry(entries, called)
    address = literal_address(called.host)
    if address is None:
        return
    for host in spellings.of_address(address):
        assert find_entry(entries, parse_url(f"{called.scheme}://{host}:{called.port}/")) == first, f"another entry for {host}"
    if first is not None and first.network is not None:
        assert isinstance(address, ipaddress.IPv4Address) == isinstance(first.network, ipaddress.IPv4Network) and address in first.network


def proxy(data: bytes) -> None:
    """A proxy's URL is parsed to what can be used and shown, or is refused by a text without its password."""
    written = text(data)
    secrets = [secret.strip() for secret in proxy_secrets(written)]
    for secret in secrets:
        assert len(secret.encode("utf-8", "surrogatepass")) < 4 or Redactor(secrets).known(f"- {secret} -") == f"- {MASK} -"
    try:
        found = parse_proxy(written)
    except BadUrl as error:
        check_refusal(error)
        return
    assert 1 <= found.port <= 65535 and found.host.isascii()
    assert PLANTED not in found.masked or PLANTED in (found.username or "") + found.host
    assert PLANTED not in repr(found) or PLANTED in (found.username or "") + found.host
    user, password = found.username or "", found.password or ""
    if found.username is not None:
        assert found.authorization is not None
        assert base64.b64decode(found.authorization.removeprefix("Basic ")) == f"{user}:{password}".encode()
    host = f"[{found.host}]" if ":" in found.host else found.host
    userinfo = "" if found.username is None else quote(user, safe="") + ("" if found.password is None else f":{quote(password, safe='')}")
    with contextlib.suppress(BadUrl):
        again = parse_proxy(f"{found.scheme}://{userinfo}{'@' if userinfo else ''}{host}:{found.port}")
        assert (again.scheme, again.host, again.port) == (found.scheme, found.host, found.port)
        assert (again.username or "", again.password or "") == (user, password)


def no_proxy_seeds() -> list[bytes]:
    """Entries of every form."""
    listed = [
        "10.0.0.0/8, .lab.example *.a:443",
        "[::1]:80,::ffff:10.0.0.0/104 fd00::/8 [fe80::]/10",
        "*",
        "*:80",
        "2130706433 0x7f.1:80",
        "a:b",
    ]
    return [
        joined(each, url)
        for each in listed
        for url in ("http://10.1.2.3/", "http://x.lab.example./", "http://[::1]:80/", "http://127.0.0.1/")
    ]


def proxy_seeds() -> list[bytes]:
    """URLs of every kind of proxy."""
    urls = [
        "http://proxy:3128",
        "proxy.example:8080",
        f"https://user:{PLANTED}@h",
        f"socks5h://u%40:{PLANTED}%2F@[::1]:1080/",
        "none",
        "h:x",
        "ftp://h",
    ]
    return [each.encode() for each in urls]


HARNESSES = [Harness("no-proxy", no_proxy, no_proxy_seeds, 512), Harness("proxy", proxy, proxy_seeds, 512)]
