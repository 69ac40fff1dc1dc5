"""The policy file: what it may contain, and the message about each mistake in it (docs/policy.md)."""

from __future__ import annotations

import base64
import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay_agent.config.policy_file import MAX_BYTES, MAX_MISTAKES, LoadedPolicy, check_policy, load_policy
from relay_agent.config.policy_tls import BaseTrust
from relay_agent.core.errors import ConfigurationError
from relay_agent.core.urls import parse_url
from relay_agent.telemetry.redaction import Redactor
from relay_agent.transport.policy import TargetCall, Verdict
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.target_settings import NO_SETTINGS
from relay_agent.transport.x509 import public_key_digest
from tests.target_certificates import ca_pem
from tests.unit.config.policies import ALLOW, CANARY, TARGET, Directory

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def policy(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def decide(loaded: LoadedPolicy, url: str, method: str = "GET", *addresses: str, secure: bool = False) -> Verdict:
    """The verdict on a URL; on its addresses too, if there are any."""
    call = TargetCall(method, parse_url(url), secure)
    verdict = loaded.rules.policy.check_url(call)
    return loaded.rules.policy.check_addresses(call, addresses) if addresses and verdict.allowed else verdict


# --- what a file may say ---


def test_an_empty_file_denies_everything_and_is_enforced(policy: Directory) -> None:
    loaded = policy.load("")
    assert decide(loaded, "https://lims.lab.example/") == Verdict(False, "default: deny")
    assert loaded.rules.target("lims.lab.example") is NO_SETTINGS
    assert list(loaded.files) == [policy.file]


@pytest.mark.parametrize(("default", "allowed"), [("allow", True), ("deny", False)])
def test_the_default_decides_where_no_rule_matches(policy: Directory, default: str, allowed: bool) -> None:
    assert decide(policy.load(f'default = "{default}"'), "http://h/") == Verdict(allowed, f"default: {default}")


def test_observe_refuses_nothing_but_what_is_always_denied(policy: Directory) -> None:
    loaded = policy.load('mode = "observe"')
    assert decide(loaded, "http://h/") == Verdict(True, "observe: allow", "default: deny")
    assert not decide(loaded, "http://169.254.169.254/").allowed


@pytest.mark.parametrize(
    ("line", "matching", "other"),
    [
        ('schemes = ["https"]', ("https://h/",), ("http://h/",)),
        ('hosts = ["h", "*.lab.example", "10.0.0.0/8"]', ("http://a.lab.example/",), ("http://lab.example/", "GET", "192.0.2.1")),
        ('hosts = ["10.0.0.0/8"]', ("http://h/", "GET", "10.0.0.1", "10.0.0.2"), ("http://h/", "GET", "10.0.0.1", "192.0.2.1")),
        ("ports = [443, 9005]", ("http://h:9005/",), ("http://h:9006/",)),
        ('methods = ["get", "POST"]', ("http://h/", "Get"), ("http://h/", "PUT")),
        ('paths = ["/api/*"]', ("http://h/api/%2e/x",), ("http://h/api/%252e%252e/x",)),
        ('paths = ["/a", "/b"]', ("http://h/b",), ("http://h/c",)),
    ],
)
def test_each_key_of_a_rule_decides(policy: Directory, line: str, matching: tuple[str, ...], other: tuple[str, ...]) -> None:
    loaded = policy.load(f'[[rule]]\nname = "it"\naction = "allow"\n{line}\n')
    assert decide(loaded, *matching) == Verdict(True, "it")
    assert decide(loaded, *other) == Verdict(False, "default: deny")


def test_secure_only_matches_secure_commands_only(policy: Directory) -> None:
    loaded = policy.load(ALLOW + "secure_only = true")
    assert decide(loaded, "http://h/", secure=True).allowed
    assert not decide(loaded, "http://h/").allowed


def test_a_rule_without_a_name_is_called_by_its_number(policy: Directory) -> None:
    loaded = policy.load('[[rule]]\naction = "deny"\nports = [1]\n' + ALLOW)
    assert decide(loaded, "http://h:1/") == Verdict(False, "rule 1")
    assert decide(loaded, "http://h:2/") == Verdict(True, "rule 2")


def test_the_first_of_two_tables_for_a_target_applies(policy: Directory) -> None:
    loaded = policy.load('[[target]]\nhosts = ["a", "10.0.0.0/8"]\nmax_concurrency = 1\n[[target]]\nhosts = ["*"]\nmax_concurrency = 2\n')
    found = [loaded.rules.target(host).max_concurrency for host in ("a", "a.", "10.1.2.3", "167772161", "::ffff:10.0.0.1", "b", "a.b")]
    assert found == [1, 1, 1, 1, 1, 2, 2]


def test_a_table_for_localhost_is_not_one_for_its_addresses(policy: Directory) -> None:
    """Names are compared as the URL has them; in a deny rule the name means the addresses too."""
    loaded = policy.load('[[target]]\nhosts = ["localhost"]\nmax_concurrency = 1\n')
    assert [loaded.rules.target(host).max_concurrency for host in ("localhost", "127.0.0.1", "::1")] == [1, None, None]


def test_every_key_of_a_target_is_taken(policy: Directory) -> None:
    found = policy.target(
        f"""
        ca_file = "ca.pem"
        client_cert = "agent.pem"
        client_key = "sealed.key"
        client_key_password_file = "password"
        tls_min = "1.3"
        pin_sha256 = ["{base64.b64encode(bytes(32)).decode()}"]
        allow_ignore_tls = false
        proxy = "http://agent:{CANARY}@proxy.lab.example:3128"
        max_concurrency = 2
        timeout_seconds = 60
        max_response_bytes = 50_000_000
        headers = {{ Authorization = {{ file = "token" }}, X-Tenant = " lab " }}
        redirect_headers = ["X-Tenant"]
        """
    )
    assert found.tls is not None
    assert found.tls.client is not None
    assert (found.tls.client.certificate, found.tls.client.key) == (policy.path / "agent.pem", policy.path / "sealed.key")
    assert found.tls.roots == (policy.path / "ca.pem",)
    assert found.tls.pins == {bytes(32)}
    assert found.tls.context(verify=True).minimum_version == ssl.TLSVersion.TLSv1_3
    assert found.route is not None
    assert found.route.proxy == Proxy("http", "proxy.lab.example", 3128, "agent", CANARY)
    assert (found.allow_ignore_tls, found.max_concurrency, found.timeout_seconds, found.max_response_bytes) == (False, 2, 60.0, 50_000_000)
    assert found.headers == (("Authorization", f"Bearer {CANARY}"), ("X-Tenant", "lab"))
    assert found.redirect_headers == {"x-tenant"}
    assert CANARY not in repr(found)


@pytest.mark.parametrize("value", ["none", "NONE"])
def test_no_proxy_is_a_proxy_setting_of_its_own(policy: Directory, value: str) -> None:
    route = policy.target(f'proxy = "{value}"').route
    assert route is not None
    assert (route.proxy, "[[target]] 1 (lims.lab.example)" in route.reason) == (None, True)


def test_the_roots_of_the_settings_stay_trusted_beside_a_tables_own(policy: Directory, tmp_path: Path) -> None:
    bundle, added = tmp_path / "bundle.pem", tmp_path / "added.pem"
    bundle.write_bytes(ca_pem())
    added.write_bytes(ca_pem())
    tables = TARGET + 'ca_file = "ca.pem"\n' + '[[target]]\nhosts = ["b"]\ntls_min = "1.3"\n'
    first, second = policy.load(tables, trust=BaseTrust(bundle, added)).rules.targets
    assert first.tls is not None and second.tls is not None
    assert first.tls.roots == (policy.path / "ca.pem", added), "in place of the built-in ones, RELAY_CA_FILE in addition"
    assert second.tls.roots == (bundle, added)


def test_a_change_of_any_named_file_is_a_change_of_the_policy(policy: Directory) -> None:
    keys = 'ca_file = "ca.pem"\nclient_cert = "agent.pem"\nclient_key = "sealed.key"\nclient_key_password_file = "password"\n'
    loaded = policy.load(TARGET + keys + 'headers = { A = { file = "token" }, B = { file = "bom" } }')
    named = ("policy.toml", "ca.pem", "agent.pem", "sealed.key", "password", "token", "bom")
    assert {path.name for path in loaded.files} == set(named)
    assert None not in loaded.files.values()


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("Bearer canary-token-1", "canary-token-1"),
        ("bearer   canary-token-1", "canary-token-1"),
        (f"Basic {base64.b64encode(b'agent:canary').decode()}", "canary"),
        (f"Basic {base64.b64encode(b'agent:canary').decode()}", "agent:canary"),
        (f"basic {base64.b64encode('agent:canarü'.encode('latin-1')).decode()}", "canarü"),
        ("Token token=canary-token-1", "canary-token-1"),
        ('Custom id="a", key="canary-token-1"', "canary-token-1"),
        ("session=canary-token-1; lang=en", "canary-token-1"),
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_the_parts_of_a_secret_that_give_access_are_known_to_whoever_redacts(
    policy: Directory, value: str, seen: str, in_file: bool
) -> None:
    (policy.path / "secret").write_text(value)
    given = '{ file = "secret" }' if in_file else f"'{value}'"
    loaded = policy.load(TARGET + f"headers = {{ Authorization = {given} }}")
    assert "canary" not in Redactor(loaded.secrets).text(f"the target answered {seen!r}")
    assert not {"en", "agent", "token"} & set(loaded.secrets), "short words would be masked in every line"


def test_a_proxy_s_password_is_known_as_written_and_decoded(policy: Directory) -> None:
    loaded = policy.load(TARGET + 'proxy = "http://agent:c%61nary%21@p:1"')
    assert {"canary!", "c%61nary%21", "agent:c%61nary%21"} <= set(loaded.secrets)


def test_every_secret_is_known_to_whoever_redacts(policy: Directory) -> None:
    proxy = f"http://agent:{CANARY}-proxy@p.lab.example:3128"
    keys = 'client_cert = "agent.pem"\nclient_key = "sealed.key"\nclient_key_password_file = "password"\n'
    loaded = policy.load(
        TARGET + keys + f'proxy = "{proxy}"\nheaders = {{ A = {{ file = "token" }}, X-Api-Key = "inline-value", X-Site = "basel" }}'
    )
    assert "basel" not in loaded.secrets, "a word that is no secret would be masked in every log line"
    assert {f"Bearer {CANARY}", "inline-value", CANARY, f"{CANARY}-proxy"} <= set(loaded.secrets)
    assert CANARY not in repr(loaded)


def test_a_files_name_is_relative_to_the_policy_file_and_may_be_absolute(policy: Directory, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "there").write_text("there")
    assert policy.target('headers = { A = { file = "keys/there" } }').headers == (("A", "there"),)
    assert policy.target(f'headers = {{ A = {{ file = "{tmp_path}/keys/there" }} }}').headers == (("A", "there"),)


@pytest.mark.parametrize("file", ["bom", "password"])
def test_white_space_and_a_byte_order_mark_around_a_secret_are_cut(policy: Directory, file: str) -> None:
    assert policy.target(f'headers = {{ A = {{ file = "{file}" }} }}').headers == (("A", CANARY),)


def test_a_policy_file_may_begin_with_a_byte_order_mark(policy: Directory) -> None:
    assert decide(policy.load(b"\xef\xbb\xbf" + ALLOW.encode()), "http://h/").allowed


def test_a_rule_that_names_the_admin_pages_needs_the_agents_own_address(policy: Directory) -> None:
    loaded = policy.load('default = "allow"', admin=("127.0.0.1", 8089))
    assert decide(loaded, "http://127.0.0.1:8089/").rule == "built-in: the agent's own admin address"


# --- mistakes: table, key, and the nearest known key ---

RULE_KEYS = "name, action, schemes, hosts, ports, methods, paths, secure_only"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('mod = "observe"', "unknown key 'mod'; did you mean 'mode'?"),
        ('[[rules]]\naction = "allow"', "unknown key 'rules'; did you mean 'rule'?"),
        ("[[targets]]", "unknown key 'targets'; did you mean 'target'?"),
        ("zzz = 1", "unknown key 'zzz'; known are mode, default, rule, target"),
        (ALLOW + 'host = ["h"]', "[[rule]] 1: unknown key 'host'; did you mean 'hosts'?"),
        (ALLOW + ALLOW + 'name = "lims"\npath = ["/"]', "[[rule]] 2 (lims): unknown key 'path'; did you mean 'paths'?"),
        (ALLOW + "zzz = 1", f"[[rule]] 1: unknown key 'zzz'; known are {RULE_KEYS}"),
        (TARGET + "max_concurency = 1", "[[target]] 1 (lims.lab.example): unknown key 'max_concurency'; did you mean 'max_concurrency'?"),
        (TARGET + 'cafile = "x"', "[[target]] 1 (lims.lab.example): unknown key 'cafile'; did you mean 'ca_file'?"),
        (
            TARGET + 'client_key_password = "canary"',
            "[[target]] 1 (lims.lab.example): unknown key 'client_key_password'; did you mean 'client_key_password_file'?",
        ),
        (TARGET + "timeout = 1", "[[target]] 1 (lims.lab.example): unknown key 'timeout'; did you mean 'timeout_seconds'?"),
        (ALLOW + 'mode = "observe"', "[[rule]] 1: 'mode' is not a key of a table; write it above the first [[rule]] or [[target]]"),
        (
            TARGET + 'default = "allow"',
            "[[target]] 1 (lims.lab.example): 'default' is not a key of a table; write it above the first [[rule]] or [[target]]",
        ),
        ("[[rule]]", "[[rule]] 1: 'action' is missing"),
        ('[[rule]]\nname = "x"', "[[rule]] 1 (x): 'action' is missing"),
        ("[[target]]", "[[target]] 1: 'hosts' is missing"),
        ('[rule]\naction = "allow"', "'rule' must be written as [[rule]], with two brackets"),
        ('[target]\nhosts = ["h"]', "'target' must be written as [[target]], with two brackets"),
        ('rule = "x"', "'rule' must be written as [[rule]], with two brackets"),
        ('mode = "enforced"', "mode: input should be 'enforce' or 'observe'"),
        ("default = true", "default: input should be 'allow' or 'deny'"),
        ('[[rule]]\naction = "Allow"', "[[rule]] 1: action: input should be 'allow' or 'deny'"),
        (ALLOW + 'schemes = ["ftp"]', "[[rule]] 1: schemes: input should be 'http' or 'https'"),
        (ALLOW + 'schemes = "https"', "[[rule]] 1: schemes: input should be a valid list"),
        (ALLOW + "schemes = []", "[[rule]] 1: schemes: is empty; remove it to match everything"),
        (ALLOW + 'hosts = "lims"', "[[rule]] 1: hosts: input should be a valid list"),
        (ALLOW + "hosts = []", "[[rule]] 1: hosts: is empty; remove it to match everything"),
        (ALLOW + 'hosts = [""]', "[[rule]] 1: hosts: string should have at least 1 character"),
        (ALLOW + "hosts = [10]", "[[rule]] 1: hosts: input should be a valid string"),
        (ALLOW + 'hosts = ["a b"]', "[[rule]] 1: hosts: 'a b' has a host with a character that host names cannot have"),
        (
            ALLOW + 'hosts = ["https://user:canary@lims.lab.example"]',
            "[[rule]] 1: hosts: 'https://lims.lab.example' is a URL; write only the host, and put https in a rule's `schemes`",
        ),
        (ALLOW + 'hosts = ["ftp://lims"]', "[[rule]] 1: hosts: 'ftp://lims' is a URL; write only the host"),
        (ALLOW + 'hosts = ["lims:443"]', "[[rule]] 1: hosts: 'lims:443' contains a port; put it in a rule's `ports`"),
        (ALLOW + 'hosts = ["[::1]:443"]', "[[rule]] 1: hosts: '[::1]:443' contains a port; put it in a rule's `ports`"),
        (ALLOW + 'hosts = ["10.0.0.0/40"]', "[[rule]] 1: hosts: '10.0.0.0/40' is not a subnet such as 10.20.0.0/16"),
        (ALLOW + 'ports = ["443"]', "[[rule]] 1: ports: input should be a valid integer"),
        (ALLOW + "ports = [0]", "[[rule]] 1: ports: input should be greater than or equal to 1"),
        (ALLOW + "ports = [65_536]", "[[rule]] 1: ports: input should be less than or equal to 65535"),
        (ALLOW + "ports = [true]", "[[rule]] 1: ports: input should be a valid integer"),
        (ALLOW + "ports = 443", "[[rule]] 1: ports: input should be a valid list"),
        (ALLOW + "methods = []", "[[rule]] 1: methods: is empty; remove it to match everything"),
        (
            ALLOW + 'methods = ["GET, POST"]',
            "[[rule]] 1: methods: 'GET…' matches nothing; write each name in its own quotes, without wildcards",
        ),
        (ALLOW + 'methods = ["*"]', "[[rule]] 1: methods: '*' matches nothing; write each name in its own quotes, without wildcards"),
        (ALLOW + 'paths = ["api"]', "[[rule]] 1: paths: 'api' does not begin with / or *"),
        (ALLOW + 'secure_only = "yes"', "[[rule]] 1: secure_only: input should be a valid boolean"),
        (ALLOW + 'name = ""', "[[rule]] 1: name: string should have at least 1 character"),
        (ALLOW + f'name = "{"x" * 101}"', f"[[rule]] 1 ({'x' * 100}): name: string should have at most 100 characters"),
        ((ALLOW + 'name = "a"\n') * 2, "two rules have the name 'a'"),
        *(
            (
                ALLOW + f'name = "{name}"',
                f"[[rule]] 1 ({name}): name: must not begin with 'built-in', 'default', 'observe:' or 'rule' and a number,"
                " as the agent's own names of rules do",
            )
            for name in ("built-in: multicast", "Default: deny", " default", "rule 2", "RULE 1", "observe: allow")
        ),
        ("rule = [1]", "[[rule]] 1: must be a table of keys and values"),
        ('target = ["x"]', "[[target]] 1: must be a table of keys and values"),
        ("rule = [[1]]", "[[rule]] 1: must be a table of keys and values"),
        (
            ALLOW + 'hosts = ["fe80::1%eth0"]',
            "[[rule]] 1: hosts: 'fe80::1%eth0' has a zone, which rules do not look at; write the address without it",
        ),
        (
            "[[target]]\nhosts = ['[fe80::1%25eth0]']",
            "[[target]] 1 ([fe80::1%25eth0]): hosts: '[fe80::1%25eth0]' has a zone, which rules do not look at;"
            " write the address without it",
        ),
        (ALLOW + f"ports = [{'1,' * 10_001}]", "[[rule]] 1: ports: has more than 10,000 entries"),
        ("[[rule]]\n" * 10_001, "rule: has more than 10,000 entries"),
        (TARGET + 'tls_min = "1.1"', "[[target]] 1 (lims.lab.example): tls_min: input should be '1.2' or '1.3'"),
        (TARGET + "tls_min = 1.2", '[[target]] 1 (lims.lab.example): tls_min: write it in quotes: "1.2"'),
        (TARGET + "pin_sha256 = []", "[[target]] 1 (lims.lab.example): pin_sha256: is empty; remove it"),
        ("[[target]]\nhosts = []", "[[target]] 1: hosts: is empty; name at least one host"),
        ('[[target]]\nhosts = ["a", "b"]\ntls_min = 1.3', '[[target]] 1 (a, …): tls_min: write it in quotes: "1.3"'),
        (TARGET + "max_concurrency = 0", "[[target]] 1 (lims.lab.example): max_concurrency: input should be greater than or equal to 1"),
        (TARGET + "max_concurrency = 1.5", "[[target]] 1 (lims.lab.example): max_concurrency: input should be a valid integer"),
        (TARGET + "timeout_seconds = 0", "[[target]] 1 (lims.lab.example): timeout_seconds: input should be greater than 0"),
        (TARGET + "timeout_seconds = nan", "[[target]] 1 (lims.lab.example): timeout_seconds: input should be less than or equal to 86400"),
        (TARGET + "timeout_seconds = inf", "[[target]] 1 (lims.lab.example): timeout_seconds: input should be less than or equal to 86400"),
        (TARGET + 'timeout_seconds = "60"', "[[target]] 1 (lims.lab.example): timeout_seconds: input should be a valid number"),
        (
            TARGET + "max_response_bytes = 1",
            "[[target]] 1 (lims.lab.example): max_response_bytes: input should be greater than or equal to 1024",
        ),
        (TARGET + 'allow_ignore_tls = "no"', "[[target]] 1 (lims.lab.example): allow_ignore_tls: input should be a valid boolean"),
        (TARGET + "headers = []", "[[target]] 1 (lims.lab.example): headers: input should be a valid dictionary"),
        (TARGET + 'ca_file = ["canary"]', "[[target]] 1 (lims.lab.example): ca_file: input should be a valid string"),
        ('[[target]]\nhosts = ["*.1"]', "[[target]] 1 (*.1): hosts: '*.1' is part of an address; write a subnet such as 10.20.0.0/16"),
    ],
)
def test_a_mistake_is_reported_with_its_table_its_key_and_the_nearest_known_key(policy: Directory, text: str, says: str) -> None:
    assert policy.mistake(text) == says


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ('ca_file = "no.pem"', "ca_file: cannot read {}/no.pem (No such file or directory)"),
        ('ca_file = "."', "ca_file: cannot read {} (Is a directory)"),
        ('ca_file = "agent.key"', "ca_file: {}/agent.key contains no PEM certificate"),
        ('ca_file = "damaged.pem"', "ca_file: {}/damaged.pem contains a damaged certificate"),
        (
            'headers = { A = { file = "no" } }',
            "header field A is unusable: cannot read the file, since the value is the name of none"
            " and may be the secret itself (No such file or directory)",
        ),
        ('headers = { A = {file="sub/no.txt"} }', "header field A is unusable: cannot read {}/sub/no.txt (No such file or directory)"),
        ('headers = { A = { file = "." } }', "header field A is unusable: cannot read {} (Is a directory)"),
        ('headers = { A = { file = "empty" } }', "header field A is unusable: {}/empty is empty"),
        ('headers = { A = { file = "blank" } }', "header field A is unusable: {}/blank is empty"),
        ('headers = { A = { file = "latin-1" } }', "header field A is unusable: {}/latin-1 is not UTF-8 text"),
        ('headers = { A = { file = "long" } }', "header field A is unusable: {}/long is larger than 65,536 bytes"),
        ('headers = { A = { file = "two-lines" } }', "header field A is unusable: contains a control character"),
        ('headers = { A = { fil = "canary" } }', "header field A is unusable: unknown key 'fil'; did you mean 'file'?"),
        ('headers = { A = { file = "token", zzz = 1 } }', "header field A is unusable: unknown key 'zzz'; known are file"),
        ('headers = { A = { "Bearer canary" = 1 } }', "header field A is unusable: unknown key 'Bearer…'; known are file"),
        ('headers = { A = { file = ["canary"] } }', 'header field A is unusable: must be a text, or {{ file = "…" }}'),
        ("headers = { A = {} }", 'header field A is unusable: must be a text, or {{ file = "…" }}'),
        (
            'auth = { digest = { user = "u", password = { fil = "canary" } } }',
            "auth.digest.password is unusable: unknown key 'fil'; did you mean 'file'?",
        ),
        ('headers = { A = ["canary"] }', 'header field A is unusable: must be a text, or {{ file = "…" }}'),
        ('headers = { A = "canary\\r\\nB: c" }', "header field A is unusable: contains a control character"),
        (
            'headers = { A = "canary€" }',
            "header field A is unusable: contains a character beyond ISO-8859-1; percent-encode it, or give its UTF-8 bytes as ISO-8859-1",
        ),
        ('headers = { "A B" = "canary" }', "header field A… is unusable: has a name that is not a token (RFC 9110 §5.1)"),
        ('redirect_headers = ["Cookie"]', "redirect_headers: Cookie cannot be passed on; the agent sets it for each request"),
        (
            'headers = { Upgrade = "h2c" }',
            "header field Upgrade is unusable: cannot be set; the agent does",
        ),
        ('headers = { Host = "canary" }', "header field Host is unusable: cannot be set; the agent does"),
        (
            'headers = { content-length = "1" }',
            "header field content-length is unusable: cannot be set; the agent does",
        ),
        (
            'headers = { Transfer-Encoding = "chunked" }',
            "header field Transfer-Encoding is unusable: cannot be set; the agent does",
        ),
        (
            'headers = { CONNECTION = "close" }',
            "header field CONNECTION is unusable: cannot be set; the agent does",
        ),
        *(
            (f'headers = {{ {name} = "1" }}', f"header field {name} is unusable: cannot be set; the agent does")
            for name in ("Content_Length", "Transfer_Encoding", "Proxy_Connection", "PROXY_AUTHORIZATION", "Keep-Alive", "keep_alive")
        ),
        *(
            (f'redirect_headers = ["{name}"]', f"redirect_headers: {name} cannot be passed on; the agent sets it for each request")
            for name in ("Content_Length", "Transfer_Encoding", "Keep_Alive")
        ),
        ('headers = { A = "canary", a = "canary2" }', "header field a is unusable: there are two fields of this name"),
        (
            'headers = { X_A = "canary", X-A = "canary2" }',
            "header field X-A is unusable: there are two fields of this name, since many servers take it for X_A",
        ),
        ('proxy = "ftp://u:canary@p"', "proxy: must begin with http://, https:// or socks5h://"),
        ('proxy = "http://u:canary/@p"', "proxy: must end after host and port; percent-encode / ? # @ and spaces in a password"),
        ('proxy = "http://u:canary@p:99999"', "proxy: has a port that is not between 1 and 65535; expected: host:port"),
        ('proxy = ""', "proxy: has no host; expected: host:port"),
        (
            'redirect_headers = ["X-A, X-B"]',
            "redirect_headers: 'X-A…' matches nothing; write each name in its own quotes, without wildcards",
        ),
    ],
)
def test_a_mistake_in_a_value_of_a_target_is_reported_without_the_value(policy: Directory, keys: str, says: str) -> None:
    assert policy.mistake(TARGET + keys) == f"[[target]] 1 (lims.lab.example): {says.format(policy.path)}"


_MISPLACED = [
    *(
        f"{table}hosts = ['{host}']"
        for table in (ALLOW, "[[target]]\n", ALLOW + "host = 1\n", "[[target]]\nzzz = 1\n")
        for host in (
            *(f"agent:{CANARY}@lims", f"//agent:{CANARY}@lims", f"https:agent:{CANARY}@lims", f"https://agent:{CANARY}@lims/"),
            *(f"https://agent:x/{CANARY}@lims", f"agent:x@{CANARY}@lims:443", f"{CANARY}@10.0.0.0/8", f"*.{CANARY}@lims", f"{CANARY}@"),
            *(f"https://lims/?token={CANARY}", f"https://lims#{CANARY}", f"agent@lims?{CANARY}"),
        )
    ),
    f"{ALLOW}hosts = ['lims?{CANARY}']",
    f"{ALLOW}hosts = ['lims/{CANARY}']",
    f"{ALLOW}hosts = ['https://hooks/services/{CANARY}']",
    f"{ALLOW}paths = ['/x?token={CANARY}']",
    f"{ALLOW}paths = ['https://agent:{CANARY}@lims/x']",
    f"{ALLOW}methods = ['GET {CANARY}']",
    f"{ALLOW}'X-Key: {CANARY}' = 1",
    f"'X-Key: {CANARY}' = 1",
    *(
        TARGET + key
        for key in (
            f"'X-Key: {CANARY}' = 'x'",
            f"headers = {{ 'X-Key: {CANARY}' = 'x' }}",
            f"headers = {{ 'X-Key {CANARY}' = 1 }}",
            f"headers = {{ ': {CANARY}' = {{ file = 'no' }} }}",
            f"redirect_headers = ['X-Key: {CANARY}']",
            f"redirect_headers = ['X-Key={CANARY}']",
            f"auth = {{ 'digest {CANARY}' = 1 }}",
            f"auth = {{ digest = {{ 'user {CANARY}' = 1, user = 'u', password = 'x' }} }}",
            f"headers = {{ A = {{ file = '{CANARY}' }} }}",
            f"headers = {{ A = {{ file = 'x {CANARY} €' }} }}",
            f"auth = {{ digest = {{ user = 'u', password = {{ file = '{CANARY}' }} }} }}",
            f"headers = {{ A = {{ file = 'x/{CANARY}==' }} }}",
            *(
                f"headers = {{ A = {{ file = '{text}' }} }}"
                for text in (
                    *(f"https://agent:{CANARY}@vault.example/x", f"https://hooks.example/services/T0/{CANARY}", f"agent:{CANARY}@vault"),
                    *(f"wJalrXUtnFEMI/K7MDENG/{CANARY}", f"{CANARY}/3 horse", f"/https://{CANARY}", f"https://{CANARY}/x.pem"),
                )
            ),
            f"auth = {{ digest = {{ user = 'u', password = {{ file = 'q/3m+Zk9v/{CANARY}/jKlMnOp' }} }} }}",
            f"ca_file = 'https://agent:{CANARY}@vault.example/ca.pem'",
            f"client_cert = 'agent.pem'\nclient_key = 'https://agent:{CANARY}@vault.example/agent.key'",
            f"client_cert = 'agent.pem'\nclient_key_password_file = 'Tr0ub4dor/{CANARY} horse'",
            f"headers = {{ 'Authorization: Bearer {CANARY}' = '1', 'Authorization: Bearer {CANARY}' = '2' }}",
            f"headers = {{ A = {{ '{CANARY}' = 1, '{CANARY}' = 2 }} }}",
            f"[a.'{CANARY}']\n[a.'{CANARY}']",
            f"a.'{CANARY}' = {{}}\n[a.'{CANARY}'.b]",
            f"ca_file = '{CANARY}'",
            f"client_cert = '{CANARY}'",
            f"client_cert = 'agent.pem'\nclient_key = '{CANARY}'",
            f"client_cert = 'agent.pem'\nclient_key_password_file = '{CANARY}'",
            f"client_cert = 'agent.pem'\nclient_key_password_file = '{CANARY}{'!' * 300}'",
        )
    ),
]


@pytest.mark.parametrize("text", _MISPLACED)
def test_a_secret_in_a_wrong_place_is_in_no_message(policy: Directory, text: str) -> None:
    # As it is, and as the log shows it.
    for said in policy.mistakes(text):
        assert CANARY not in said


@pytest.mark.parametrize(
    "name", ["Authorization", "Proxy-Authentication", "Cookie", "X-Api-Key", "X-Auth-Token", "password", "Client-Secret"]
)
@pytest.mark.parametrize("value", ['{ file = "no" }', '{ file = "empty" }', '{ file = "two-lines" }', "1", '"canary\\r\\nX"', '"canary€"'])
def test_the_reason_stays_readable_in_the_log_beside_a_sensitive_name(policy: Directory, name: str, value: str) -> None:
    said = policy.mistake(TARGET + f"headers = {{ {name} = {value} }}")
    assert f"header field {name} is unusable: " in said


def test_all_mistakes_in_a_policy_file_are_reported_at_once(policy: Directory) -> None:
    assert len(policy.mistakes('mod = 1\n[[rule]]\naction = "x"\n[[target]]\nhost = ["h"]')) == 4
    found = policy.mistakes(
        ALLOW + 'hosts = ["a b"]\npaths = ["x", "y"]\n' + TARGET + 'ca_file = "no"\nproxy = "ftp://x"\nclient_key = "x"'
    )
    assert len(found) == 6


def test_a_mistake_in_the_form_of_one_table_hides_none_in_the_values_of_another(policy: Directory) -> None:
    rules = ALLOW + "hots = ['a']\n" + ALLOW + "hosts = ['a b']\n"
    targets = TARGET + "max_concurency = 1\n" + TARGET + "headers = { A = { fil = 'x' } }\n"
    found = policy.mistakes("mod = 1\n" + rules + targets)
    assert sorted(text.partition(":")[0] for text in found) == [
        "[[rule]] 1",
        "[[rule]] 2",
        "[[target]] 1 (lims.lab.example)",
        "[[target]] 2 (lims.lab.example)",
        "unknown key 'mod'; did you mean 'mode'?",
    ]


def test_a_table_with_several_hosts_is_named_by_its_first(policy: Directory) -> None:
    said = policy.mistake('[[target]]\nhosts = ["a.lab.example", "b"]\nca_file = "no.pem"')
    assert said.startswith("[[target]] 1 (a.lab.example, …): ca_file: ")


# --- the file itself ---


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'mode = "observe', "is not valid TOML: Unterminated string (at end of document)"),
        (b"mode = observe", "is not valid TOML: Invalid value (at line 1, column 8)"),
        (b'[[rule]]\nname = "a"\nname = "canary"', "is not valid TOML: Cannot overwrite a value (at end of document)"),
        (b'# Pr\xfcfraum\nmode = "observe"', "is not UTF-8 text"),
        ('mode = "observe"'.encode("utf-16"), "is not UTF-8 text"),
        (b"a = {b = 1, b = 2}", "is not valid TOML: Duplicate inline table key (at line 1, column 18)"),
        (b"[a]\n[a]\n", "is not valid TOML: Cannot declare (at line 2, column 3)"),
        (b"a b", "is not valid TOML: Expected '=' after a key in a key/value pair (at line 1, column 3)"),
        (b"x = " + b"[" * 10_000, "is not valid TOML: it contains a number with too many digits, or brackets nested too deeply"),
        (b"x = " + b"1" * 10_000, "is not valid TOML: it contains a number with too many digits, or brackets nested too deeply"),
    ],
    ids=["string", "value", "twice", "latin-1", "utf-16", "key", "table", "sign", "brackets", "digits"],
)
def test_a_file_that_is_no_toml_is_reported_with_the_place(policy: Directory, content: bytes, says: str) -> None:
    assert policy.mistake(content) == says


def test_a_file_that_is_too_large_is_refused_unread(policy: Directory) -> None:
    policy.load(b"#" * MAX_BYTES)
    assert policy.mistake(b"#" * (MAX_BYTES + 1)) == "is larger than 1 MiB, the most that a policy file may be"
    with policy.file.open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(ConfigurationError, match="is larger than 1 MiB"):
        load_policy(policy.file)


def test_many_mistakes_are_counted_and_the_first_are_told(policy: Directory) -> None:
    for text in ("[[rule]]\n" * 1000, "".join(f'[[rule]]\naction = "deny"\nname = "n{number // 2}"\n' for number in range(2000))):
        found = policy.mistakes(text)
        assert (len(found), found[-1]) == (MAX_MISTAKES + 1, f"{1000 - MAX_MISTAKES} more mistakes")


def test_ten_thousand_rules_are_loaded_in_linear_time(policy: Directory) -> None:
    """Counting each name in a list of all took minutes: 10,000 rules would compare 100 million names."""
    text = "".join(f'[[rule]]\naction = "deny"\nname = "n{number}"\n' for number in range(10_000))
    began = time.process_time()
    assert len(policy.load(text).rules.policy.rules) == 10_000
    assert time.process_time() - began < 5


@pytest.mark.parametrize(("name", "why"), [("missing.toml", "No such file or directory"), (".", "Is a directory")])
def test_a_policy_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_policy(tmp_path / name)
    assert caught.value.problems == [f"RELAY_POLICY_FILE: cannot read {tmp_path / name} ({why})"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
@pytest.mark.parametrize("name", ["policy.toml", "token", "ca.pem", "agent.key"])
def test_a_file_that_may_not_be_read_is_named(policy: Directory, name: str) -> None:
    keys = 'ca_file = "ca.pem"\nclient_cert = "agent.pem"\nclient_key = "agent.key"\nheaders = { A = { file = "token" } }'
    policy.load(TARGET + keys)
    (policy.path / name).chmod(0)
    with pytest.raises(ConfigurationError) as caught:
        load_policy(policy.file)
    assert f"cannot read {policy.path / name} (Permission denied)" in str(caught.value)


def unreadable(monkeypatch: pytest.MonkeyPatch, refused: Path) -> None:
    """Let the system refuse to open a file, as it does for a user without the right to read it; root may read every file."""
    real = os.open

    def opened(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path) == str(refused):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", opened)


@pytest.mark.parametrize("name", ["policy.toml", "token", "ca.pem", "agent.pem", "agent.key"])
def test_a_named_pipe_is_refused_at_once_wherever_a_file_is_named(policy: Directory, name: str) -> None:
    """Opening it would hold up the start, and the thread that reads the policy again, until somebody wrote to it."""
    keys = 'ca_file = "ca.pem"\nclient_cert = "agent.pem"\nclient_key = "agent.key"\nheaders = { A = { file = "token" } }'
    policy.load(TARGET + keys)
    (policy.path / name).unlink()
    os.mkfifo(policy.path / name)
    with pytest.raises(ConfigurationError) as caught:
        load_policy(policy.file)
    assert f"cannot read {policy.path / name} (it is not a regular file)" in str(caught.value)


@pytest.mark.parametrize("name", ["policy.toml", "token", "ca.pem", "agent.pem"])
def test_a_file_that_the_system_refuses_is_named(policy: Directory, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    keys = 'ca_file = "ca.pem"\nclient_cert = "agent.pem"\nclient_key = "agent.key"\nheaders = { A = { file = "token" } }'
    policy.load(TARGET + keys)
    unreadable(monkeypatch, policy.path / name)
    with pytest.raises(ConfigurationError) as caught:
        load_policy(policy.file)
    assert f"cannot read {policy.path / name} (Permission denied)" in str(caught.value)


def test_the_check_of_the_setting_says_the_same_in_one_sentence_for_each_mistake(policy: Directory) -> None:
    policy.file.write_text('mod = 1\n[[rule]]\naction = "x"')
    with pytest.raises(ValueError) as caught:
        check_policy(policy.file)
    assert str(caught.value) == (
        "policy.toml: [[rule]] 1: action: input should be 'allow' or 'deny'; policy.toml: unknown key 'mod'; did you mean 'mode'?"
    )
    policy.file.write_text("")
    assert check_policy(policy.file) == policy.file


# --- the page ---


def examples() -> dict[str, str]:
    """The TOML blocks of the page, by the heading that they stand under."""
    found: dict[str, str] = {}
    heading = ""
    text = (DOCS / "policy.md").read_text(encoding="utf-8")
    for match in re.finditer(r"^#+ ([^\n]+)$|^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        else:
            assert heading not in found, f"two blocks under {heading}"
            found[heading] = match[2]
    return found


A_DAY = "http://h/"  # any URL that no example is about
Check = Callable[[LoadedPolicy], None]


def _lims_only(loaded: LoadedPolicy) -> None:
    assert decide(loaded, "https://lims.lab.example/api/samples?x") == Verdict(True, "lims")
    for url, method in [
        ("http://lims.lab.example/api/x", "GET"),
        ("https://lims.lab.example/admin", "GET"),
        ("https://lims.lab.example/api/..%2fadmin", "GET"),
        ("https://lims.lab.example/api/x", "DELETE"),
        ("https://eln.lab.example/api/x", "GET"),
    ]:
        assert decide(loaded, url, method) == Verdict(False, "default: deny")


def _first(loaded: LoadedPolicy) -> None:
    assert decide(loaded, "http://lims.lab.example:8080/x", "DELETE") == Verdict(True, "lims")
    assert decide(loaded, A_DAY) == Verdict(False, "default: deny")


def _subnets(loaded: LoadedPolicy) -> None:
    controls = Verdict(False, "not the building's controls")
    instruments = Verdict(True, "instruments")
    assert decide(loaded, "http://10.20.1.2/") == instruments
    assert decide(loaded, "http://10.20.1.2:8080/") == Verdict(False, "default: deny")
    assert decide(loaded, "http://10.20.9.2/") == controls
    assert decide(loaded, "http://0x0a.0x140902/") == controls
    assert decide(loaded, "https://balance.instruments.lab.example/", "GET", "192.0.2.1") == instruments
    assert decide(loaded, "https://balance.instruments.lab.example/", "GET", "192.0.2.1", "10.20.9.1") == controls
    assert decide(loaded, "https://hplc.lab.example/", "GET", "10.20.1.1", "10.20.1.2") == instruments
    assert decide(loaded, "https://hplc.lab.example/", "GET", "10.20.1.1", "192.0.2.1") == Verdict(False, "default: deny")
    balance = loaded.rules.target("balance.instruments.lab.example")
    assert (balance.max_concurrency, balance.timeout_seconds) == (1, 60.0)
    assert loaded.rules.target("hplc.instruments.lab.example") is NO_SETTINGS


def _proxy(loaded: LoadedPolicy) -> None:
    assert decide(loaded, "http://www.vendor.com/") == Verdict(False, "no unencrypted calls to the internet")
    assert decide(loaded, "https://www.vendor.com/") == Verdict(True, "default: allow")
    assert decide(loaded, "http://lims.lab.example/") == Verdict(True, "default: allow")
    routes = {host: loaded.rules.target(host).route for host in ("lims.lab.example", "10.1.2.3", "www.vendor.com", "192.0.2.1")}
    shown = {host: route.proxy.masked if route and route.proxy else None for host, route in routes.items()}
    proxy = "http://proxy.lab.example:3128"
    assert shown == {"lims.lab.example": None, "10.1.2.3": None, "www.vendor.com": proxy, "192.0.2.1": proxy}
    assert None not in routes.values()


def _credentials(loaded: LoadedPolicy) -> None:
    assert decide(loaded, "https://eln.lab.example/x") == Verdict(True, "eln")
    assert not decide(loaded, "http://eln.lab.example/x").allowed
    target = loaded.rules.target("eln.lab.example")
    assert target.headers == (("Authorization", f"Bearer {CANARY}"),)
    assert not target.allow_ignore_tls


def _certificate(loaded: LoadedPolicy) -> None:
    assert decide(loaded, "https://sequencer.lab.example/x") == Verdict(True, "sequencer")
    tls = loaded.rules.target("sequencer.lab.example").tls
    assert tls is not None and tls.client is not None
    assert tls.context(verify=True).minimum_version == ssl.TLSVersion.TLSv1_3


def _challenges(loaded: LoadedPolicy) -> None:
    balance, sharepoint, other = (
        loaded.rules.target(host) for host in ("balance.instruments.lab.example", "sharepoint.lab.example", "other.example")
    )
    assert balance.auth is not None and sharepoint.auth is not None and other.auth is None
    assert other.proxy_auth is not None and other.route is not None
    assert CANARY not in repr((balance, sharepoint, other))


DECIDED: dict[str, Check] = {
    "The policy file": _first,
    "A LIMS only": _lims_only,
    "Instruments by subnet": _subnets,
    "Everything through a corporate proxy": _proxy,
    "Credentials that senders never see": _credentials,
    "Targets and proxies that ask for Digest or NTLM": _challenges,
    "A client certificate": _certificate,
}


def test_every_example_of_the_page_has_its_expected_verdicts() -> None:
    assert set(examples()) == set(DECIDED)


@pytest.mark.parametrize("heading", DECIDED)
def test_an_example_of_the_page_is_valid_and_decides_as_expected(policy: Directory, heading: str) -> None:
    for name, like in {
        "eln-authorization": "token",
        "lab-ca.pem": "ca.pem",
        "agent.key.password": "password",
        "balance-password": "password",
        "windows-password": "password",
    }.items():
        (policy.path / name).write_bytes((policy.path / like).read_bytes())
    (policy.path / "agent.key").write_bytes((policy.path / "sealed.key").read_bytes())
    DECIDED[heading](policy.load(examples()[heading]))


def shell_lines() -> list[str]:
    """The openssl commands of the page."""
    return re.findall(r"```sh\n(openssl .*)\n```", (DOCS / "policy.md").read_text(encoding="utf-8"))


def test_the_page_s_commands_make_a_key_a_request_and_a_pin_that_the_file_takes(policy: Directory) -> None:
    make_key, make_pin = shell_lines()
    (policy.path / "agent.key").unlink()
    (policy.path / "agent.key.password").write_text(f"{CANARY}\n")
    subprocess.run(make_key, shell=True, cwd=policy.path, check=True, capture_output=True, timeout=60)
    # As a CA would, but signed by the key itself.
    sign = "openssl x509 -req -in agent.csr -key agent.key -passin file:agent.key.password -out agent.pem"
    subprocess.run(sign, shell=True, cwd=policy.path, check=True, capture_output=True, timeout=60)
    (policy.path / "target.pem").write_bytes((policy.path / "agent.pem").read_bytes())
    pin = subprocess.run(make_pin, shell=True, cwd=policy.path, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    keys = 'client_cert = "agent.pem"\nclient_key = "agent.key"\nclient_key_password_file = "agent.key.password"\n'
    tls = policy.target(f'{keys}pin_sha256 = ["{pin}"]').tls
    der = ssl.PEM_cert_to_DER_cert((policy.path / "agent.pem").read_text())
    assert tls is not None and tls.client is not None
    assert tls.pins == {public_key_digest(der)}


@pytest.mark.parametrize("table", ["rule", "target"])
def test_the_page_has_a_row_for_each_key(policy: Directory, table: str) -> None:
    text = (DOCS / "policy.md").read_text(encoding="utf-8")
    rows = text.partition(f"| field of `[[{table}]]` |")[2].partition("\n\n")[0]
    told = {name for line in rows.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    said = policy.mistake(f'[[{table}]]\naction = "allow"\nqqqq = 1\n' if table == "rule" else TARGET + "qqqq = 1")
    assert told == set(said.partition("known are ")[2].split(", "))


@pytest.mark.parametrize("line", ['headers = { A = { file = "a\\u0000" } }', 'client_cert = "a\\u0000"', 'ca_file = "a\\u0000"'])
def test_a_file_name_that_cannot_be_one_is_a_mistake(policy: Directory, line: str) -> None:
    assert policy.mistake(TARGET + line).endswith(": the name of a file cannot contain a NUL character")
