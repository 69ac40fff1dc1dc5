"""The policy file's text, and the verdicts and path forms that rules rest on."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from relay_agent.config.policy_file import LoadedPolicy, load_policy
from relay_agent.core.errors import ConfigurationError
from relay_agent.core.models import Url
from relay_agent.core.urls import BadUrl, IpAddress, IpNetwork, literal_address, parse_url
from relay_agent.transport.path_patterns import normal_path, parse_path, path_readings
from relay_agent.transport.policy import Policy, TargetCall, Verdict
from tests.fuzz import spellings
from tests.fuzz.harness import PLANTED, Harness, check_refusal, joined, parts, storable, text

MEMORY = Path("/dev/shm")
ADMIN = ("127.0.0.1", 8089)
DENIED = [
    ipaddress.ip_network(each)
    for each in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8")
]
"""docs/policy.md, "What is always denied"."""
TRANSLATORS = [ipaddress.IPv6Network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96")]
PLANTED_TARGET = f"""
[[target]]
hosts = ["planted.example"]
headers = {{ Authorization = "Bearer {PLANTED}" }}
proxy = "http://user:{PLANTED}@proxy.example:3128"
"""


@cache
def directory() -> tempfile.TemporaryDirectory[str]:
    """A directory for as long as the process lives: to make one for each input takes longer than all the rest."""
    return tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)


def read(content: str) -> LoadedPolicy | None:
    """Load a policy of that text; returns None if it is refused as documented."""
    path = Path(directory().name) / "policy.toml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    try:
        return load_policy(path, ADMIN)
    except ConfigurationError as error:
        assert error.mistakes
        for mistake in error.mistakes:
            assert storable(mistake.text), "a message that cannot be printed"
            assert PLANTED not in mistake.text or not planted_alone(content), "a message that repeats a secret"
        return None


def planted_alone(content: str) -> bool:
    """Return whether the secrets stand only where they were planted: not within a string of several lines that swallows them."""
    return content.count(PLANTED) == PLANTED_TARGET.count(PLANTED) and not re.search("\"\"\"|'''", content)


def policy(data: bytes) -> None:
    """A policy file is loaded with its secrets known, or is refused by mistakes that can be shown."""
    if b"/dev/" in data or b"/proc/" in data:  # The file may name any other file, and reading these may wait for ever.
        return
    head, tables = (text(part) for part in parts(data, 2))
    loaded = read(head + PLANTED_TARGET + tables)
    if loaded is not None:
        assert any(PLANTED in secret for secret in loaded.secrets) and PLANTED not in repr(loaded)


def verdict(data: bytes) -> None:
    """A verdict is the same for all spellings of an address, and no spelling of a path is allowed whose simplest form is refused.

    No rule lifts a built-in denial without naming it.
    """
    content, method, url, resolved = (text(part) for part in parts(data, 4))
    if "/dev/" in content or "/proc/" in content:
        return
    loaded = read(content)
    if loaded is None:
        return
    try:
        called = parse_url(url)
    except BadUrl:
        return
    check_spellings(loaded.rules.policy, method, called)
    check_denied(loaded.rules.policy, method, called, addresses(resolved))


def addresses(resolved: str) -> list[str]:
    """The addresses among some texts."""
    found = []
    for each in resolved.split(",")[:8]:
        with contextlib.suppress(ValueError):
            found.append(str(ipaddress.ip_address(each)))
    return found


def check_spellings(rules: Policy, method: str, url: Url) -> None:
    """Check that every spelling of the host and the method gets the verdict that this one gets, and that none of the path gets more."""
    first = rules.check_url(TargetCall(method, url))
    address = literal_address(url.host)
    own = f"[{url.host}]" if ":" in url.host else url.host
    hosts = [own.upper(), f"{own}."] if address is None and not own.endswith(".") else spellings.of_address(address) if address else []
    path, mark, query = url.target.partition("?")
    for host in hosts:
        check_same(rules, method, f"{url.scheme}://{host}:{url.port}{url.target}", first)
    simplest = rules.check_url(TargetCall(method, replace(url, target=quote(normal_path(path), safe="/", errors="surrogateescape"))))
    for other in [path, *spellings.of_path(path)] if refused(simplest) else []:
        check_refused(rules, method, f"{url.scheme}://{own}:{url.port}/{other.removeprefix('/')}{mark}{query}")
    assert rules.check_url(TargetCall(method.swapcase(), url)) == first or not method.isascii()


def check_same(rules: Policy, method: str, url: str, first: Verdict) -> None:
    """Check one spelling. A URL that is refused before rules see it cannot get around them."""
    with contextlib.suppress(BadUrl):
        assert rules.check_url(TargetCall(method, parse_url(url))) == first, f"another verdict for {url}"


def refused(verdict: Verdict) -> bool:
    """Return whether a policy refuses a call, or would if it were enforced."""
    return not verdict.allowed or verdict.would_refuse is not None


def check_refused(rules: Policy, method: str, url: str) -> None:
    """Check one spelling of a path whose simplest form is refused."""
    with contextlib.suppress(BadUrl):
        found = rules.check_url(TargetCall(method, parse_url(url)))
        assert refused(found) or found.undecided, f"allowed: {url}"


def check_denied(rules: Policy, method: str, url: Url, resolved: list[str]) -> None:
    """Check that a denied address is allowed only by a rule that names it, and that further addresses lift no denial of a rule."""
    address = literal_address(url.host)
    found = [address] if address is not None else [ipaddress.ip_address(each) for each in resolved]
    if not found:
        return
    call = TargetCall(method, url)
    reached = rules.check_url(call) if address is not None else rules.check_addresses(call, resolved)
    assert not reached.undecided
    check_named(rules, reached, found)
    if address is None and not reached.allowed and not reached.rule.startswith("built-in"):
        assert not rules.check_addresses(call, [*resolved, "192.0.2.1"]).allowed, "one more address lifts a denial"


def check_named(rules: Policy, reached: Verdict, found: list[IpAddress]) -> None:
    """Check that what is allowed is no denied address, unless the rule names it."""
    denied = [form for each in found for form in forms(each) if any(within(form, network) for network in DENIED)]
    if not reached.allowed or not denied:
        return
    rule = next((rule for rule in rules.rules if rule.name == reached.rule), None)
    assert rule is not None and rule.allows and rule.hosts is not None, "a built-in denial is lifted without a rule"
    for form in denied:
        named = [network for network in rule.hosts.networks if within(form, network)]
        assert any(contained(network, whole) for network in named for whole in DENIED), "a built-in denial is lifted by a wider rule"


def forms(address: IpAddress) -> list[IpAddress]:
    """The address, and those to which a tunnel or a translator forwards it."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    number, low = int(address), ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if number >> 32 == 0xFFFF:
        return [low]
    found: list[IpAddress] = [address]
    if number > 1 and any(address in prefix for prefix in TRANSLATORS):
        found.append(low)
    if number >> 112 == 0x2002:
        found.append(ipaddress.IPv4Address((number >> 80) & 0xFFFFFFFF))
    if number >> 96 == 0x20010000:
        found += [ipaddress.IPv4Address((number >> 64) & 0xFFFFFFFF), ipaddress.IPv4Address(~number & 0xFFFFFFFF)]
    return found


def within(address: IpAddress, network: IpNetwork) -> bool:
    """Return whether an address lies in a network of its own version."""
    return address.version == network.version and address in network


def contained(network: IpNetwork, whole: IpNetwork) -> bool:
    """Return whether a network is part of another."""
    return network.version == whole.version and network.network_address in whole and network.prefixlen >= whole.prefixlen


def path(data: bytes) -> None:
    """A path's simplest form does not change when it is taken again and is a reading; a pattern matches as its regular expression does."""
    first, second = parts(data, 2)
    target, written = text(first), second.decode("utf-8", "replace")  # A policy file is UTF-8.
    found = normal_path(target)
    assert found == expected_path(target)
    assert found.startswith("/") and "\\" not in found and ";" not in found and "//" not in found
    assert not {".", ".."} & set(found.split("/"))
    if storable(found):  # The path of a URL is ASCII; a question mark in the form was percent-encoded.
        assert normal_path(found.replace("?", "%3F")) == found
    readings = path_readings(target).paths
    assert not readings or found in readings
    try:
        pattern = parse_path(written)
    except ValueError as error:
        check_refusal(error, 2 * len(data) * 3 + 300)
        return
    if written.count("*") <= 4 and len(found) < 200:
        wanted = ".*".join(re.escape(part) for part in written.split("*"))
        assert pattern.matches(found) == (re.fullmatch(wanted, found, re.DOTALL) is not None)


def expected_path(target: str) -> str:
    """The normal form of a path as its definition says, at any cost."""
    decoded = target.partition("?")[0].encode("utf-8", "surrogateescape")
    while (again := unquote_to_bytes(decoded)) != decoded:
        decoded = again
    kept: list[bytes] = []
    segments = [segment.partition(b";")[0] for segment in decoded.replace(b"\\", b"/").split(b"/")]
    for segment in segments:
        kept = kept[:-1] if segment == b".." else [*kept, segment] if segment not in (b"", b".") else kept
    end = b"/" if kept and segments[-1] in (b"", b".", b"..") else b""
    return (b"/" + b"/".join(kept) + end).decode("utf-8", "surrogateescape")


RULES = """
[[rule]]
name = "lims"
action = "allow"
schemes = ["https"]
hosts = ["lims.lab.example", "*.instruments.lab.example", "10.20.0.0/16", "fe80::1", "169.254.7.0/24"]
ports = [443, 9005]
methods = ["GET", "POST"]
paths = ["/api/*", "*.csv"]
secure_only = false

[[rule]]
action = "deny"
hosts = ["192.168.1.7", "localhost", "[::1]", "::ffff:10.0.0.1", "2130706434"]
"""
SETTINGS = """
[[target]]
hosts = ["*"]
ca_file = "ca.pem"
client_cert = "agent.pem"
client_key = "agent.key"
client_key_password_file = "password"
tls_min = "1.3"
pin_sha256 = ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
allow_ignore_tls = false
proxy = "none"
max_concurrency = 2
timeout_seconds = 60.0
max_response_bytes = 50_000_000
headers = { X-Token = { file = "token" }, "X" = "y" }
redirect_headers = ["X-Tenant"]
"""


def policy_seeds() -> list[bytes]:
    """A whole file, its parts, and files with a mistake."""
    return [
        joined('mode = "observe"\ndefault = "allow"\n', RULES),
        joined("", SETTINGS),
        joined("", SETTINGS.replace('"token"', '"\\u0000"').replace('"ca.pem"', '"a\\u0000"').replace('"X"', '"\\U0001F600"')),
        joined("", '[[rule]]\naction = "allow"\npaths = ["/a"]\n[[target]]\nhosts = ["h"]\nproxy = "socks5h://h"\ntls_min = "1.2"\n'),
        joined("", '[[rule]]\nname = "a"\naction = "allow"\nhost = ["x"]\n[[rule]]\nname = "a"\naction = "deny"\n'),
        joined('mod = "x"\nrule = 3\n', '[[rule]]\nports = [0]\nhosts = ["*."]\n'),
    ]


def verdict_seeds() -> list[bytes]:
    """Calls of the kinds that rules tell apart."""
    allow = '[[rule]]\naction = "allow"\nhosts = ["169.254.169.254", "fe80::/16", "*.a"]\n'
    return [
        joined(RULES, "GET", "https://10.20.3.4/api/x?y", ""),
        joined('default = "allow"\n' + RULES, "POST", "http://192.168.1.7/a/b;c/../d", ""),
        joined('default = "allow"\n', "GET", "http://169.254.169.254/latest", ""),
        joined(
            'default = "allow"\n[[rule]]\naction = "deny"\nhosts = ["*.0.0.1", "a", "*"]\nports = [1]\n', "GET", "http://127.0.0.1:1/", ""
        ),
        joined('default = "allow"\n[[rule]]\naction = "deny"\nhosts = ["*.3.4"]\n', "GET", "http://1.2.3.4/", ""),
        joined(allow, "GET", "http://[fe80::1%25eth0]/", ""),
        joined(allow, "GET", "http://name.a/", "169.254.169.254,64:ff9b::a9fe:a9fe,::ffff:1.2.3.4"),
        joined('mode = "observe"\n' + allow, "GET", "http://0x7f.1:8089/", "2002:7f00:1::"),
        joined('mode = "observe"\n', "PUT", "http://localhost:8089/x/%2e%2e/y", ""),
    ]


def path_seeds() -> list[bytes]:
    """Paths with every step of the normal form."""
    paths = ["/api/x", "/a/../b/./c//d/", "/%61%252e%252e/x;y/z?q", "\\a\\..\\b", "/%2F%5c%3f", "/\N{LATIN SMALL LETTER E WITH ACUTE}%ff"]
    return [joined(each, pattern) for each in paths for pattern in ("/api/*", "*b*/c", "/a/b")]


HARNESSES = [Harness("policy", policy, policy_seeds), Harness("verdict", verdict, verdict_seeds), Harness("path", path, path_seeds, 512)]
