"""What the policy decides: built-in denials and the rules of a policy file (docs/policy.md)."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_agent.core.urls import IpAddress, parse_url
from relay_agent.transport import policy
from relay_agent.transport.host_patterns import parse_hosts
from relay_agent.transport.path_patterns import PathReadings, parse_path, path_readings
from relay_agent.transport.policy import Policy, Rule, TargetCall, Verdict, interface_addresses
from tests.examples import examples

_METADATA = "built-in: link-local and cloud metadata"
_UNSPECIFIED = "built-in: unspecified addresses"
_MULTICAST = "built-in: multicast"
_ADMIN = "built-in: the agent's own admin address"


def _own_addresses() -> frozenset[IpAddress]:
    return frozenset({ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::7")})


def _judge(url: str, admin: tuple[str, int] | None = None) -> Verdict:
    return Policy(admin, local_addresses=_own_addresses).check_url(TargetCall("GET", parse_url(url)))


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
    verdict = Policy().check_addresses(TargetCall("GET", parse_url("https://rebind.lab.example/")), [address])
    assert verdict == Verdict(rule.startswith("default"), rule)


def test_a_text_that_is_not_an_address_is_an_error() -> None:
    with pytest.raises(ValueError):
        Policy().check_addresses(TargetCall("GET", parse_url("http://h/")), ["h"])


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
    assert _judge(f"http://{host}/") == Policy().check_addresses(TargetCall("GET", parse_url("http://name.example/")), [str(address)])


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
    assert policy.check_url(TargetCall("GET", url)).allowed
    assert policy.check_addresses(TargetCall("GET", url), ["127.0.0.1"]) == Verdict(False, _ADMIN)


def test_the_addresses_of_this_machine_include_loopback() -> None:
    assert ipaddress.ip_address("127.0.0.1") in interface_addresses()


# --- rules ---


def _rule(name: str, allows: bool, *hosts: str, **fields: Any) -> Rule:
    return Rule(name, allows, hosts=parse_hosts(hosts) if hosts else None, **fields)


def _call(url: str, method: str = "GET", *, secure: bool = False) -> TargetCall:
    return TargetCall(method, parse_url(url), secure)


def test_the_first_rule_that_matches_decides_and_the_default_if_none_does() -> None:
    policy = Policy(rules=(_rule("no", False, "lims"), _rule("late", True, "lims"), _rule("yes", True, "eln")), default_allows=False)
    assert policy.check_url(_call("http://lims/")) == Verdict(False, "no")
    assert policy.check_url(_call("http://eln/")) == Verdict(True, "yes")
    assert policy.check_url(_call("http://other/")) == Verdict(False, "default: deny")


@pytest.mark.parametrize("text", ["*.3.4", "*.0x1", "*.1.", "*.777"])
def test_a_pattern_that_would_match_one_spelling_of_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="part of an address"):
        parse_hosts([text])
    assert parse_hosts(["*.3com.example", "*.x1"]).domains == (".3com.example", ".x1")


@pytest.mark.parametrize("text", ["api", "/a?b", "/a#b", "/a/../b", "/%61", "/a;b", "/%ff", "*\udcff"])
def test_a_path_pattern_that_no_path_can_match_is_refused_with_a_text_that_can_be_printed(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|begin|rules") as caught:
        parse_path(text)
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize(
    "fields, matching, other",
    [
        ({"schemes": frozenset({"https"})}, _call("https://h/"), _call("http://h/")),
        ({"ports": frozenset({443, 9005})}, _call("http://h:9005/"), _call("http://h:9006/")),
        ({"methods": frozenset({"GET"})}, _call("http://h/", "get"), _call("http://h/", "POST")),
        ({"paths": (parse_path("/api/*"),)}, _call("http://h/api/x?y"), _call("http://h/api/..%2f/x")),
        ({"secure_only": True}, _call("http://h/", secure=True), _call("http://h/")),
    ],
    ids=["schemes", "ports", "methods", "paths", "secure_only"],
)
def test_each_field_of_a_rule_must_match(fields: dict[str, Any], matching: TargetCall, other: TargetCall) -> None:
    policy = Policy(rules=(_rule("it", True, **fields),), default_allows=False)
    assert policy.check_url(matching) == Verdict(True, "it")
    assert not policy.check_url(other).allowed


@pytest.mark.parametrize(
    "path", ["/cgi-bin/a.sh/..;/..;/api/x", "/cgi-bin/a.sh/%252e%252e/%252e%252e/api/x", "/cgi-bin/a.sh/x\\..\\..\\..\\api/x"]
)
def test_a_path_that_servers_read_differently_is_allowed_only_where_all_do_and_denied_where_one_does(path: str) -> None:
    allowing = Policy(rules=(_rule("api", True, paths=(parse_path("/api/*"),)),), default_allows=False)
    denying = Policy(rules=(_rule("cgi", False, paths=(parse_path("/cgi-bin/*"),)),))
    assert allowing.check_url(_call(f"http://h{path}")) == Verdict(False, "default: deny")
    assert denying.check_url(_call(f"http://h{path}")) == Verdict(False, "cgi")


def test_a_path_is_read_once_however_many_rules_have_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest path takes a tenth of a second; senders choose it."""
    seen: list[str] = []

    def noted(target: str) -> PathReadings:
        seen.append(target)
        return path_readings(target)

    monkeypatch.setattr(policy, "path_readings", noted)
    rules = [_rule(str(number), True, paths=(parse_path(f"/{number}"),)) for number in range(100)]
    assert Policy(rules=rules, default_allows=False).check_url(_call("http://h/%39%39")) == Verdict(True, "99")
    assert seen == ["/%39%39"]
    assert Policy(rules=[_rule("it", True, "h")]).check_url(_call("http://h/%39%39")).allowed
    assert len(seen) == 1, "rules without paths do not look at it"


def test_a_subnet_in_a_deny_rule_matches_when_any_address_lies_in_it() -> None:
    policy = Policy(rules=(_rule("no", False, "10.0.0.0/8"),))
    assert not policy.check_addresses(_call("http://h/"), ["192.0.2.1", "10.1.2.3"]).allowed
    assert not policy.check_addresses(_call("http://h/"), ["64:ff9b::10.0.0.1"]).allowed, "a translator forwards to it"
    assert policy.check_addresses(_call("http://h/"), ["192.0.2.1"]).allowed


def test_a_subnet_in_an_allow_rule_matches_a_name_only_if_all_its_addresses_lie_in_it() -> None:
    policy = Policy(rules=(_rule("yes", True, "10.0.0.0/8"),), default_allows=False)
    assert policy.check_url(_call("http://h/")).allowed, "undecided until the name is resolved"
    assert policy.check_addresses(_call("http://h/"), ["10.1.2.3", "10.9.9.9"]) == Verdict(True, "yes")
    assert not policy.check_addresses(_call("http://h/"), ["10.1.2.3", "192.0.2.1"]).allowed
    assert not policy.check_addresses(_call("http://h/"), ["64:ff9b::10.0.0.1"]).allowed
    assert policy.check_url(_call("http://10.1.2.3/")).allowed
    assert not policy.check_url(_call("http://192.0.2.1/")).allowed


def test_a_name_that_a_proxy_resolves_is_in_no_subnet() -> None:
    through_proxy = replace(_call("http://h/"), addresses=())
    assert not Policy(rules=(_rule("yes", True, "10.0.0.0/8"),), default_allows=False).check_url(through_proxy).allowed
    assert Policy(rules=(_rule("no", False, "10.0.0.0/8"),)).check_url(through_proxy).allowed


@pytest.mark.parametrize("hosts", [(), ("*",), ("169.254.169.254.nip.example",), ("0.0.0.0/0", "::/0"), ("*.example",)])
def test_a_rule_that_does_not_name_a_denied_address_does_not_lift_its_denial(hosts: tuple[str, ...]) -> None:
    policy = Policy(rules=(_rule("all", True, *hosts),))
    assert policy.check_addresses(_call("http://169.254.169.254.nip.example/"), ["169.254.169.254"]) == Verdict(False, _METADATA)
    assert policy.check_url(_call("http://169.254.169.254/")) == Verdict(False, _METADATA)


@pytest.mark.parametrize("hosts", [("169.254.169.254",), ("169.254.0.0/16",), ("169.254.160.0/20",), ("lims", "169.254.169.254")])
def test_an_allow_rule_that_names_a_denied_address_or_its_subnet_lifts_the_denial(hosts: tuple[str, ...]) -> None:
    policy = Policy(rules=(_rule("imds", True, *hosts),), default_allows=False)
    assert policy.check_url(_call("http://169.254.169.254/")) == Verdict(True, "imds")
    assert policy.check_url(_call("http://2852039166/")) == Verdict(True, "imds")
    assert policy.check_addresses(_call("http://rebound/"), ["169.254.169.254", "10.0.0.1"]).allowed is False


def test_the_admin_pages_are_opened_only_by_a_rule_that_names_host_and_port() -> None:
    admin = ("127.0.0.1", 8089)
    call = _call("http://127.0.0.1:8089/")
    assert not Policy(admin, (_rule("all", True),)).check_url(call).allowed
    assert not Policy(admin, (_rule("loopback", True, "127.0.0.0/8"),)).check_url(call).allowed
    assert Policy(admin, (_rule("pages", True, "127.0.0.1", ports=frozenset({8089})),)).check_url(call).allowed


def test_observed_rules_refuse_nothing_but_say_what_they_would_refuse() -> None:
    policy = Policy(rules=(_rule("no", False, "lims"), _rule("yes", True, "eln")), default_allows=False, observe=True)
    assert policy.check_url(_call("http://lims/")) == Verdict(True, "observe: allow", "no")
    assert policy.check_url(_call("http://other/")) == Verdict(True, "observe: allow", "default: deny")
    assert policy.check_url(_call("http://eln/")) == Verdict(True, "yes")
    assert policy.check_url(_call("http://169.254.169.254/")) == Verdict(False, _METADATA)


@given(st.ip_addresses(v=4), st.integers(1, 31))
def test_every_spelling_of_an_address_gets_the_same_verdict(address: ipaddress.IPv4Address, length: int) -> None:
    network = ipaddress.ip_network((address, length), strict=False)
    for allows in (True, False):
        policy = Policy(rules=(_rule("net", allows, str(network)),), default_allows=not allows)
        number = int(address)
        spellings = [
            str(address),
            str(number),
            hex(number),
            f"[::ffff:{address}]",
            f"{address}.",
            ".".join(oct(part) for part in address.packed),
        ]
        spellings = [text.replace("0o", "0") for text in spellings]
        verdicts = {policy.check_url(_call(f"http://{text}/")) for text in spellings}
        assert len(verdicts) == 1, spellings


@pytest.mark.parametrize("hosts", [("*",), ("0.0.0.0/0", "::/0"), ("127.0.0.0/7",), ("rebound.lab.example",), ("*.lab.example",)])
def test_neither_a_wide_rule_nor_a_name_opens_the_admin_pages_whatever_port_it_names(hosts: tuple[str, ...]) -> None:
    policy = Policy(("127.0.0.1", 8089), (_rule("wide", True, *hosts, ports=frozenset({8089})),))
    assert policy.check_url(_call("http://127.0.0.1:8089/")) == Verdict(False, _ADMIN)
    assert policy.check_addresses(_call("http://rebound.lab.example:8089/"), ["127.0.0.1"]) == Verdict(False, _ADMIN)


@pytest.mark.parametrize("ports", [None, frozenset({8089})])
@pytest.mark.parametrize("hosts", [("0.0.0.0",), ("0.0.0.0/8",), ("::",), ("0.0.0.0", "::", "127.0.0.0/8"), ("::/127",)])
@pytest.mark.parametrize("admin", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "192.0.2.7", "agent.lab.example"])
def test_a_rule_that_names_an_unspecified_address_does_not_open_the_admin_pages(admin: str, hosts: tuple[str, ...], ports: Any) -> None:
    policy = Policy((admin, 8089), (_rule("any", True, *hosts, ports=ports),), default_allows=False, local_addresses=_own_addresses)
    for host in ("0.0.0.0", "0", "0x0", "[::]", "[::ffff:0.0.0.0]", "[::ffff:0:0]", "0.0.0.0."):
        assert not policy.check_url(_call(f"http://{host}:8089/")).allowed, host
    for address in ("0.0.0.0", "::", "::ffff:0.0.0.0"):
        assert not policy.check_addresses(_call("http://rebound.lab.example:8089/"), [address]).allowed, address


def test_a_rule_that_names_an_unspecified_address_opens_other_ports_of_it() -> None:
    policy = Policy(("127.0.0.1", 8089), (_rule("any", True, "0.0.0.0"),), default_allows=False)
    assert policy.check_url(_call("http://0.0.0.0:8090/")) == Verdict(True, "any")


@pytest.mark.parametrize(
    ("admin", "hosts", "url"),
    [
        ("127.0.0.1", ("127.0.0.0/8",), "http://127.0.0.1:8089/"),
        ("127.0.0.1", ("localhost",), "http://localhost:8089/"),
        ("relay.lab.example", ("relay.lab.example",), "http://relay.lab.example:8089/"),
        ("10.1.2.3", ("10.1.2.3",), "http://10.1.2.3:8089/"),
    ],
)
def test_a_rule_that_names_the_admin_address_itself_and_its_port_opens_the_pages(admin: str, hosts: tuple[str, ...], url: str) -> None:
    policy = Policy((admin, 8089), (_rule("pages", True, *hosts, ports=frozenset({8089})),))
    assert policy.check_url(_call(url)) == Verdict(True, "pages")


# --- what is not known yet ---


def test_a_name_that_a_later_rule_opens_stays_undecided_behind_a_denied_subnet() -> None:
    rules = (_rule("no", False, "10.0.0.0/8"), _rule("pages", True, "localhost", ports=frozenset({8089})))
    policy = Policy(("127.0.0.1", 8089), rules)
    call = _call("http://localhost:8089/")
    assert policy.check_url(call) == Verdict(True, "no", undecided=True)
    assert policy.check_addresses(call, ["127.0.0.1"]) == Verdict(True, "pages")
    assert policy.check_addresses(call, ["10.0.0.1"]) == Verdict(False, "no")
    assert Policy(("127.0.0.1", 8089), rules[:1], observe=True).check_url(call) == Verdict(False, _ADMIN), "whatever its addresses are"


_HOSTS = ("localhost", "agent.lab.example", "*.lab.example", "*", "127.0.0.0/8", "::1", "192.0.2.7", "10.0.0.0/8", "169.254.0.0/24")
_ADDRESSES = {
    "localhost": ("127.0.0.1", "::1"),
    "agent.lab.example": ("127.0.0.1", "192.0.2.7", "192.0.2.8", "10.0.0.1", "169.254.0.1"),
}
_RULES = st.builds(
    lambda allows, hosts, ports, paths: (allows, tuple(hosts), ports, paths),
    st.booleans(),
    st.lists(st.sampled_from(_HOSTS), max_size=2),
    st.sampled_from([None, frozenset({8089})]),
    st.sampled_from([None, (parse_path("/api/*"),)]),
)


def _made(rules: list[tuple[bool, tuple[str, ...], Any, Any]], admin: str, *, allows: bool, observe: bool) -> Policy:
    made = [_rule(f"r{number}", *given[:1], *given[1], ports=given[2], paths=given[3]) for number, given in enumerate(rules)]
    return Policy((admin, 8089), made, default_allows=allows, observe=observe, local_addresses=_own_addresses)


@given(
    st.lists(_RULES, max_size=3),
    st.sampled_from(["127.0.0.1", "localhost", "agent.lab.example", "0.0.0.0"]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_a_name_is_refused_unresolved_only_if_no_addresses_of_it_would_be_allowed(
    rules: list[Any], admin: str, allows: bool, observe: bool, data: st.DataObject
) -> None:
    policy = _made(rules, admin, allows=allows, observe=observe)
    host = data.draw(st.sampled_from(sorted(_ADDRESSES)))
    addresses = data.draw(st.lists(st.sampled_from(_ADDRESSES[host]), min_size=1, max_size=2))
    call = _call(f"http://{host}:8089/api/x")
    early, late = policy.check_url(call), policy.check_addresses(call, addresses)
    assert early.allowed or not late.allowed
    if not late.built_in:
        assert late in policy.possible(call)


_TOLD_APART = Policy(
    ("127.0.0.1", 8089),
    [
        Rule("method", False, methods=frozenset({"PUT"})),
        Rule("scheme", False, schemes=frozenset({"https"})),
        Rule("port", False, ports=frozenset({8081})),
        Rule("secure", False, hosts=parse_hosts(["agent.lab.example"]), secure_only=True),
        _rule("inside", False, "10.0.0.0/8"),
        _rule("outside", True, "agent.lab.example", "192.0.2.0/24"),
    ],
    default_allows=False,
)
_CALLS = st.builds(
    lambda method, scheme, host, port, secure, known: TargetCall(method, parse_url(f"{scheme}://{host}:{port}/"), secure, known),
    st.sampled_from(["GET", "PUT"]),
    st.sampled_from(["http", "https"]),
    st.sampled_from(["agent.lab.example", "localhost", "192.0.2.7", "10.0.0.1"]),
    st.sampled_from([8080, 8081, 8089]),
    st.booleans(),
    st.sampled_from([None, ()]),
)


@settings(max_examples=examples(300))
@given(_CALLS, st.sampled_from([("10.0.0.1",), ("192.0.2.7",), ("192.0.2.7", "10.0.0.1"), ("169.254.0.1",)]))
def test_a_verdict_that_is_remembered_is_the_one_that_would_be_given_now(call: TargetCall, addresses: tuple[str, ...]) -> None:
    """One policy for all examples. Its rules tell calls apart by each of their parts."""
    assert _TOLD_APART.check_url(call) == _TOLD_APART.judge(call.with_literal_address())
    resolved = replace(call, addresses=tuple(ipaddress.ip_address(address) for address in addresses))
    assert _TOLD_APART.check_addresses(call, addresses) == _TOLD_APART.judge(resolved)


def test_a_new_address_of_this_machine_is_denied_at_the_pages_port() -> None:
    own = {ipaddress.ip_address("192.0.2.7")}
    policy = Policy(("0.0.0.0", 8089), local_addresses=lambda: frozenset(own))
    call = _call("http://192.0.2.8:8089/")
    assert policy.check_url(call).allowed
    own.add(ipaddress.ip_address("192.0.2.8"))
    assert not policy.check_url(call).allowed


@given(st.lists(_RULES, max_size=3), st.booleans(), st.booleans(), st.sampled_from(["169.254.0.1", "127.0.0.1", "10.0.0.1"]))
def test_what_a_call_may_get_includes_what_it_gets_by_any_path(rules: list[Any], allows: bool, observe: bool, host: str) -> None:
    policy = _made(rules, "127.0.0.1", allows=allows, observe=observe)
    calls = [_call(f"http://{host}:8089{path}").with_literal_address() for path in ("/", "/api/x")]
    for call in calls:
        assert set(policy.possible(call, path_known=False)) >= {policy.check_url(other) for other in calls}
