"""The host patterns of rules: which hosts match, however they are written (docs/policy.md)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.urls import normal_host
from relay_agent.transport.host_patterns import HostPatterns, parse_hosts, shown_host


def names(pattern: str, host: str) -> bool:
    return parse_hosts([pattern]).match_name(normal_host(host))


@pytest.mark.parametrize(
    "host", ["lims.lab.example", "LIMS.Lab.Example", "lims.lab.example.", "ｌｉｍｓ.lab.example", "lims。lab．example"]
)
@pytest.mark.parametrize("pattern", ["lims.lab.example", "LIMS.LAB.EXAMPLE", "lims.lab.example.", "*.lab.example", "*.Lab.Example.", "*"])
def test_a_name_matches_in_every_case_and_width_and_with_its_final_dot(pattern: str, host: str) -> None:
    assert names(pattern, host)


@pytest.mark.parametrize(
    "host", ["messgerät.lab.example", "MESSGERÄT.lab.example", "xn--messgert-6za.lab.example", "messgera\u0308t.lab.example"]
)
@pytest.mark.parametrize("pattern", ["messgerät.lab.example", "xn--messgert-6za.lab.example", "*.LAB.example"])
def test_an_international_name_matches_as_unicode_and_as_ascii(pattern: str, host: str) -> None:
    assert names(pattern, host)


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("lims.lab.example", "a.lims.lab.example"),
        ("lims.lab.example", "lims.lab.example.evil.example"),
        ("lims.lab.example", "xlims.lab.example"),
        ("lims.lab.example", "lims-lab.example"),
        ("*.lab.example", "lab.example"),
        ("*.lab.example", "lab.example."),
        ("*.lab.example", "evillab.example"),
        ("*.lab.example", "lims.lab.example.evil.example"),
        ("localhost", "a.localhost"),
        ("10.1.2.3", "10.1.2.3.nip.example"),
    ],
)
def test_a_name_does_not_match_what_only_looks_like_it(pattern: str, host: str) -> None:
    assert not names(pattern, host)


def test_a_domain_matches_every_name_below_it_however_deep() -> None:
    assert names("*.lab.example", "a.b.c.lab.example")


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "*.", "*.*", "a.*", "**", "*x.example", "x*.example", ".example", "*..example", "x:443", "[::1]:443", " lims", "lims "),
        *("http://lims", "lims/path", "10.0.0.0/33", "10.0.0.0/8 ", "::/129", "10.0.0.0/8/8", "a" * 64, "a\n"),
        *("*.1", "*.0.0.1", "*.0x7f", "*.168.1.1.", "*.0x", "*.08"),
    ],
)
def test_what_is_no_host_pattern_is_an_error_that_repeats_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_hosts(["lims", text])
    assert f"'{shown_host(text)}'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("agent:secret@lims", "…@lims"),
        ("//agent:secret@lims", "…@lims"),
        ("https:agent:secret@lims", "…@lims"),
        ("https://agent:secret@lims/secret?secret", "https://lims/…"),
        ("https://lims/secret", "https://lims/…"),
        ("lims/secret", "lims/…"),
        ("lims/24", "lims/24"),
        ("https://agent:x/secret@lims", "https://lims"),
        ("a:secret://x@lims", "…@lims"),
        ("https://lims/?secret", "https://lims/"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("x" * 200, "x" * 100),
    ],
)
def test_a_host_pattern_is_shown_without_what_may_be_a_user_and_password(text: str, shown: str) -> None:
    assert shown_host(text) == shown


def test_patterns_of_all_kinds_stand_beside_each_other() -> None:
    hosts = parse_hosts(["lims", "*.lab.example", "10.0.0.0/8", "[fd00::1]", "fd00:1::/32", "192.0.2.1"])
    assert hosts == HostPatterns(
        names=frozenset({"lims"}),
        domains=(".lab.example",),
        networks=tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::1/128", "fd00:1::/32", "192.0.2.1/32")),
    )


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("10.20", "write the subnet 10.20.0.0/16, or a whole address"),
        ("10.20.", "write the subnet 10.20.0.0/16, or a whole address"),
        ("10.20.30", "write the subnet 10.20.30.0/24, or a whole address"),
        ("10", "write the subnet 10.0.0.0/8, or a whole address"),
        ("010.20", "write the subnet 10.20.0.0/16, or a whole address"),
        ("１０.20", "write the subnet 10.20.0.0/16, or a whole address"),
        ("10.20.x.x", "write the subnet 10.20.0.0/16, or a whole address"),
        ("10.20.1.X", "write the subnet 10.20.1.0/24, or a whole address"),
        ("10.x", "write the subnet 10.0.0.0/8, or a whole address"),
        *(
            (text, "write whole addresses, or a subnet such as 10.20.0.0/16")
            for text in (
                *("10.0.0.0-10.0.0.9", "10.0.0.0-9", "10.20.0.0-16", "10.20.30-40.5", "10.0.0.300", "1.2.3.4.5", "1-2"),
                *(
                    "１０.1.2.3-9",
                    "10.20.0.0_16",
                    "10.1.2.3~9",
                    "10.20.0.10+5",
                    "10.1.2.3-",
                    "10.20.1-2.x",
                    "10.1.2.3;4",
                    "10.1.2.3 - 9",
                    "10.1.2.3 ",
                ),
                *("0x7f.1", "127.0x1", "0x", "192.168.1.1,192.168.1.2", "10.0.0.0_10.0.0.9", "10.0.0.0\N{EN DASH}10.0.0.9"),
            )
        ),
    ],
)
def test_a_part_or_a_range_of_addresses_is_refused_since_it_would_be_one_address_or_none(text: str, cure: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_hosts([text])
    assert str(caught.value) == f"'{text}' is only a part or a range of addresses; {cure}"


@pytest.mark.parametrize(
    "text", ["１０.1.2.3", "10。1。2。3", "①0.1.2.3", "\u200b10.1.2.3", "10.1.2.3\u200b", "10\u00ad.1.2.3", "１０.1.2.3.", "[１０.1.2.3]"]
)
def test_an_address_in_other_characters_is_refused_since_it_would_be_a_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"has characters beyond ASCII; write the address '10\.1\.2\.3', or a subnet$"):
        parse_hosts([text])


@pytest.mark.parametrize(
    ("text", "decimal"), [("192.168.001.010", "192.168.1.10"), ("010.020.030.040", "10.20.30.40"), ("10.1.2.03.", "10.1.2.3")]
)
def test_a_dotted_address_with_leading_zeros_is_refused_since_it_is_octal(text: str, decimal: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_hosts([text])
    assert str(caught.value) == f"'{text}' has numbers with leading zeros, which count as octal; write '{decimal}'"


@pytest.mark.parametrize("text", ["a,b", "a;b", "lims+eln", "lims~1", "*.a=b", "a&b.example"])
def test_a_name_with_a_character_that_no_domain_has_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has a character that no name has; write each name or subnet in its own quotes"):
        parse_hosts([text])


@pytest.mark.parametrize(
    "text",
    [
        *("my_host.example", "_x.example", "3com.example", "10.20.30.40.example", "lims-1.2", "1a.2b", "10-20.lab.example"),
        "10.1.2.lab",
        "x",
    ],
)
def test_a_name_with_numbers_is_a_name(text: str) -> None:
    assert parse_hosts([text]).names == {text}


def ipv4_spellings(address: ipaddress.IPv4Address) -> list[str]:
    """The ways to write an address as a whole that patterns may have: four parts, decimal or hexadecimal, or one, which may be octal."""
    number = int(address)
    forms: list[Callable[[int], str]] = [str, hex, lambda part: f"0X{part:X}"]
    octal: list[Callable[[int], str]] = [lambda part: f"0{part:o}", lambda part: f"000{part:o}"]
    return [form(number) for form in forms + octal if number >= 1 << 24] + [".".join(map(form, address.packed)) for form in forms]


@given(st.ip_addresses(v=4))
def test_a_pattern_means_the_same_address_in_every_way_to_write_it(address: ipaddress.IPv4Address) -> None:
    mapped = [
        f"::ffff:{address}",
        f"[::ffff:{address}]",
        f"::ffff:{address}/128",
        f"::FFFF:{int(address) >> 16:x}:{int(address) & 0xFFFF:x}",
    ]
    for text in [*ipv4_spellings(address), f"{address}.", f"{address}/32", *mapped]:
        assert parse_hosts([text]).networks == (ipaddress.IPv4Network(address),), text


@given(st.ip_addresses(v=6))
def test_an_ipv6_pattern_means_the_same_address_short_long_and_in_brackets(address: ipaddress.IPv6Address) -> None:
    found = {parse_hosts([text]).networks for text in (str(address), address.exploded.upper(), f"[{address}]", f"{address}/128")}
    assert len(found) == 1


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_a_subnet_contains_what_python_says_and_is_the_same_written_as_mapped(address: ipaddress.IPv4Address, length: int) -> None:
    expected = ipaddress.ip_network((address, length), strict=False)
    for text in (f"{address}/{length}", f"::ffff:{address}/{96 + length}", f"{address}/{expected.netmask}"):
        assert parse_hosts([text]).networks == (expected,), text


def test_localhost_in_a_deny_rule_means_this_machines_own_addresses_too() -> None:
    hosts = parse_hosts(["localhost"])
    loopback, other = ipaddress.ip_address("127.9.9.9"), ipaddress.ip_address("192.0.2.1")
    assert hosts.any_within([other, loopback])
    assert hosts.any_within([ipaddress.ip_address("::1")])
    assert not hosts.any_within([other])
    assert not hosts.all_within([loopback]), "an allow rule that names a name allows the name"
