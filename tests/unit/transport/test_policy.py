"""The built-in denials of the policy (SECURITY §2)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.urls import IpAddress, literal_address, parse_url
from relay_agent.transport.policy import Policy, Question, Verdict, interface_addresses

_METADATA = "built-in: link-local and cloud metadata"
_UNSPECIFIED = "built-in: unspecified addresses"
_MULTICAST = "built-in: multicast"
_ADMIN = "built-in: the agent's own admin address"


def _own_addresses() -> frozenset[IpAddress]:
    return frozenset({ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::7")})


def _judge(url: str, admin: tuple[str, int] | None = None) -> Verdict:
    return Policy(admin, local_addresses=_own_addresses).check_url("GET", parse_url(url))


@pytest.mark.parametrize(
    "host, rule",
    [
        ("169.254.169.254", _METADATA),
        ("169.254.0.1", _METADATA),
        ("2852039166", _METADATA),
        ("0xA9FEA9FE", _METADATA),
        ("0251.0376.0251.0376", _METADATA),
        ("169.254.43518", _METADATA),
        ("169.254.169.254.", _METADATA),
        ("１６９.254.169.254", _METADATA),
        ("[::ffff:169.254.169.254]", _METADATA),
        ("[::ffff:a9fe:a9fe]", _METADATA),
        ("[::169.254.169.254]", _METADATA),
        ("[::ffff:0:169.254.169.254]", _METADATA),
        ("[64:ff9b::169.254.169.254]", _METADATA),
        ("[64:ff9b:1::a9fe:a9fe]", _METADATA),
        ("[2002:a9fe:a9fe::1]", _METADATA),
        ("[2001:0:4136:e378:8000:63bf:5601:5601]", _METADATA),
        ("[fe80::1]", _METADATA),
        ("[febf::1%25eth0]", _METADATA),
        ("[fd00:ec2::254]", _METADATA),
        ("[fd00:0ec2:0:0:0:0:0:254]", _METADATA),
        ("0.0.0.0", _UNSPECIFIED),
        ("0", _UNSPECIFIED),
        ("0.1.2.3", _UNSPECIFIED),
        ("[::]", _UNSPECIFIED),
        ("[::ffff:0.0.0.0]", _UNSPECIFIED),
        ("[64:ff9b::]", _UNSPECIFIED),
        ("224.0.0.1", _MULTICAST),
        ("239.255.255.250", _MULTICAST),
        ("[ff02::1]", _MULTICAST),
        ("[::ffff:224.0.0.1]", _MULTICAST),
    ],
)
def test_denied_addresses_are_denied_in_every_spelling(host: str, rule: str) -> None:
    assert _judge(f"http://{host}/") == Verdict(False, rule)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.1",
            "[::1]",
            "localhost",
            "10.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "1.0.0.0",
            "223.255.255.255",
            "240.0.0.1",
        ),
        *("[fec0::1]", "[fd00:ec2::253]", "[2001:db8::1]", "[64:ff9b::10.0.0.1]", "[2002:a00:1::]", "lims.lab.example", "169.254.example"),
    ],
)
def test_all_other_addresses_are_allowed_including_loopback(host: str) -> None:
    assert _judge(f"http://{host}/") == Verdict(True, "default: allow")


@pytest.mark.parametrize(
    "address, rule",
    [
        ("169.254.169.254", _METADATA),
        ("::ffff:169.254.169.254", _METADATA),
        ("fe80::1%eth0", _METADATA),
        ("::", _UNSPECIFIED),
        ("ff05::2", _MULTICAST),
        ("10.0.0.1", "default: allow"),
        ("127.0.0.1", "default: allow"),
    ],
)
def test_each_address_that_a_name_resolves_to_is_judged(address: str, rule: str) -> None:
    verdict = Policy().check_address(parse_url("https://rebind.lab.example/"), address, 443)
    assert verdict == Verdict(rule.startswith("default"), rule)


def test_a_text_that_is_not_an_address_is_an_error() -> None:
    with pytest.raises(ValueError):
        Policy().check_address(parse_url("http://h/"), "h", 80)


def test_the_message_names_the_rule_and_reveals_nothing_about_the_network() -> None:
    assert _judge("http://169.254.169.254/latest").message == f"refused by the agent's policy: {_METADATA}"


@given(st.ip_addresses(v=4))
def test_every_spelling_of_an_ipv4_address_has_one_verdict(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    spellings = [str(address), str(number), hex(number), oct(number).replace("0o", "0"), f"[::ffff:{address}]", f"[64:ff9b::{address}]"]
    assert len({_judge(f"http://{host}/") for host in spellings}) == 1


@given(st.ip_addresses())
def test_a_literal_and_a_resolved_address_have_one_verdict(address: IpAddress) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    assert _judge(f"http://{host}/") == Policy().check_address(parse_url("http://name.example/"), str(address), 80)


# --- The agent's own admin address ---


@pytest.mark.parametrize("listening", ["127.0.0.1", "localhost", "::1"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST.", "a.localhost"]
)
def test_if_the_admin_pages_listen_on_loopback_every_spelling_of_it_is_denied(listening: str, host: str) -> None:
    assert _judge(f"http://{host}:8089/", (listening, 8089)) == Verdict(False, _ADMIN)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8090/", "http://127.0.0.1/", "http://192.0.2.7:8089/", "http://10.0.0.1:8089/", "http://h:8089/"]
)
def test_if_the_admin_pages_listen_on_loopback_other_ports_and_addresses_are_allowed(url: str) -> None:
    assert _judge(url, ("127.0.0.1", 8089)).allowed


@pytest.mark.parametrize("listening", ["0.0.0.0", "::", "agent.lab.example"])
def test_if_the_admin_pages_listen_everywhere_every_address_of_this_machine_is_denied(listening: str) -> None:
    for host in ("127.0.0.1", "[::1]", "192.0.2.7", "[2001:db8::7]", "[::ffff:192.0.2.7]", "localhost"):
        assert _judge(f"http://{host}:8089/", (listening, 8089)) == Verdict(False, _ADMIN)
    assert _judge("http://192.0.2.8:8089/", (listening, 8089)).allowed


def test_if_the_admin_pages_listen_on_one_address_only_that_one_is_denied() -> None:
    assert not _judge("http://192.0.2.7:8089/", ("192.0.2.7", 8089)).allowed
    assert _judge("http://127.0.0.1:8089/", ("192.0.2.7", 8089)).allowed


def test_the_admin_pages_are_denied_by_name_and_by_resolved_address() -> None:
    assert not _judge("http://Agent.lab.example:8089/", ("agent.lab.example", 8089)).allowed
    policy = Policy(("127.0.0.1", 8089))
    url = parse_url("http://rebind.lab.example:8089/")
    assert policy.check_url("GET", url).allowed
    assert policy.check_address(url, "127.0.0.1", 8089) == Verdict(False, _ADMIN)


def test_the_addresses_of_this_machine_include_loopback() -> None:
    assert ipaddress.ip_address("127.0.0.1") in interface_addresses()


# --- Rules to come ---


@dataclass(frozen=True)
class _HostRule:
    name: str
    allows: bool
    host: str

    def matches(self, question: Question) -> bool:
        return question.url.host == self.host


def test_the_first_rule_that_matches_decides_and_may_lift_a_built_in_denial() -> None:
    rules = (_HostRule("imds", True, "169.254.169.254"), _HostRule("lims", False, "lims"), _HostRule("late", True, "lims"))
    policy = Policy(rules=rules, default=Verdict(False, "default: deny"))
    assert policy.check_url("GET", parse_url("http://169.254.169.254/")) == Verdict(True, "imds")
    assert policy.check_url("GET", parse_url("http://lims/")) == Verdict(False, "lims")
    assert policy.check_url("GET", parse_url("http://other/")) == Verdict(False, "default: deny")
    assert policy.check_url("GET", parse_url("http://169.254.1.1/")) == Verdict(False, _METADATA)


def test_a_rule_gets_every_form_of_an_address() -> None:
    seen: list[Question] = []

    class Spy(_HostRule):
        def matches(self, question: Question) -> bool:
            seen.append(question)
            return False

    policy = Policy(rules=(Spy("spy", True, ""),))
    policy.check_address(parse_url("https://h/"), "64:ff9b::10.0.0.1", 443, "PUT")
    assert seen[0].addresses == (literal_address("64:ff9b::a00:1"), literal_address("10.0.0.1"))
    assert (seen[0].method, seen[0].port) == ("PUT", 443)
