"""`no_proxy`: which hosts are reached without a proxy."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.transport.no_proxy import parse_no_proxy
from tests.unit.transport.scenes import SHARED, route


def _bypassed(url: str, no_proxy: str) -> bool:
    return route(url, no_proxy, all_proxy=SHARED).proxy is None


@pytest.mark.parametrize(
    "no_proxy, url, bypassed",
    [
        ("lab.example", "http://lab.example/", True),
        ("lab.example", "http://a.b.lab.example/", True),
        ("lab.example", "http://notlab.example/", False),
        ("lab.example", "http://lab.example.org/", False),
        (".lab.example", "http://a.lab.example/", True),
        (".lab.example", "http://lab.example/", True),
        ("*.lab.example", "http://a.lab.example/", True),
        ("*.lab.example", "http://xlab.example/", False),
        ("LAB.Example", "http://a.lab.EXAMPLE/", True),
        ("lab.example.", "http://a.lab.example/", True),
        ("lab.example", "http://a.lab.example./", True),
        ("bücher.example", "http://x.xn--bcher-kva.example/", True),
        ("xn--bcher-kva.example", "http://BÜCHER.example/", True),
        ("my_host", "http://my_host/", True),
        ("localhost", "http://localhost:8080/", True),
        ("localhost", "http://127.0.0.1/", False),
        ("127.0.0.1", "http://localhost/", False),
        ("*", "http://anything.example/", True),
        ("*", "http://[::1]/", True),
        ("a,*", "http://10.0.0.1/", True),
        ("lab.example:8080", "http://lab.example:8080/", True),
        ("lab.example:8080", "http://x.lab.example:8080/", True),
        ("lab.example:8080", "http://lab.example/", False),
        ("lab.example:443", "https://lab.example/", True),
        ("*:8080", "http://h:8080/", True),
        ("*:8080", "http://h/", False),
        ("10.0.0.1", "http://10.0.0.1/", True),
        ("10.0.0.1", "http://10.0.0.10/", False),
        ("0.0.1", "http://10.0.0.1/", False),
        (".0.0.1", "http://10.0.0.1/", False),
        ("10.0.0.1:81", "http://10.0.0.1:81/", True),
        ("10.0.0.1:81", "http://10.0.0.1/", False),
        ("127.0.0.1", "http://2130706433/", True),
        ("127.0.0.1", "http://0x7f.1/", True),
        ("127.0.0.1", "http://0177.0.0.1/", True),
        ("2130706433", "http://127.0.0.1/", True),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]/", True),
        ("::ffff:127.0.0.1", "http://127.0.0.1/", True),
        ("::1", "http://[::1]/", True),
        ("[::1]", "http://[0:0:0:0:0:0:0:1]/", True),
        ("[::1]:81", "http://[::1]:81/", True),
        ("[::1]:81", "http://[::1]/", False),
        ("fe80::1", "http://[fe80::1%25eth0]/", True),
        ("10.0.0.0/8", "http://10.200.3.4/", True),
        ("10.1.2.3/8", "http://10.200.3.4/", True),
        ("10.0.0.0/8", "http://11.0.0.1/", False),
        ("10.0.0.0/8", "http://10.example/", False),
        ("10.0.0.0/8:81", "http://10.0.0.1:81/", True),
        ("10.0.0.0/8:81", "http://10.0.0.1/", False),
        ("10.0.0.0/8", "http://[::ffff:10.0.0.1]/", True),
        ("::ffff:10.0.0.0/104", "http://10.0.0.1/", True),
        ("10.0.0.0/255.0.0.0", "http://10.0.0.1/", True),
        ("fd00::/8", "http://[fd12::1]/", True),
        ("[fd00::]/8", "http://[fd12::1]/", True),
        ("[fd00::/8]", "http://[fd12::1]/", True),
        ("fd00::/8", "http://[fe80::1]/", False),
        ("0.0.0.0/0", "http://[fd12::1]/", False),
        (" a , , b ", "http://b/", True),
        ("a b", "http://b/", True),
        (",,", "http://b/", False),
        ("10.0.0.0/99, http://h, h:x, [::1, *h, a/b, ::g, .", "http://h/", False),
        ("10.0.0.0/99, h:x, h", "http://h/", True),
    ],
)
def test_no_proxy_matches_hosts_as_written(no_proxy: str, url: str, bypassed: bool) -> None:
    assert _bypassed(url, no_proxy) is bypassed


def test_the_reason_repeats_the_entry_as_written() -> None:
    assert route("http://10.9.9.9/", "a, 10.0.0.0/8", http_proxy=SHARED).reason == "no_proxy names 10.0.0.0/8"


@given(st.text(max_size=80))
def test_any_no_proxy_can_be_parsed(text: str) -> None:
    parse_no_proxy(text)


_LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@given(st.lists(_LABEL, min_size=1, max_size=3).map(".".join), _LABEL, st.sampled_from(["", ".", "*."]))
def test_a_name_matches_itself_and_its_subdomains_only(name: str, label: str, lead: str) -> None:
    assert _bypassed(f"http://{name}/", lead + name)
    assert _bypassed(f"http://{label}.{name}/", lead + name)
    assert not _bypassed(f"http://{label}x{name}/", lead + name)


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_an_ipv4_subnet_contains_every_spelling_of_its_addresses(
    base: ipaddress.IPv4Address, bits: int, other: ipaddress.IPv4Address
) -> None:
    inside = other in ipaddress.ip_network((int(base), bits), strict=False)
    for host in (str(other), str(int(other)), hex(int(other)), f"[::ffff:{other}]"):
        assert _bypassed(f"http://{host}/", f"{base}/{bits}") is inside
