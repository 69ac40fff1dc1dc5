"""Which proxy and which roots serve a call, on both legs (SECURITY §1)."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.config.network import proxy_router
from relay_agent.config.settings import Settings
from relay_agent.core.urls import BadUrl, parse_url
from relay_agent.transport.no_proxy import parse_no_proxy
from relay_agent.transport.proxy import Proxy, parse_proxy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter, Route
from relay_agent.transport.tls import TlsContexts

_SHARED = "http://shared.lab.example:3128"


def _route(url: str, no_proxy: str = "", leg: Leg = Leg.TARGET, replaced: dict[Leg, str] | None = None, **shared: str) -> Route:
    return ProxyRouter(shared, no_proxy, replaced).route(leg, parse_url(url))


def _bypassed(url: str, no_proxy: str) -> bool:
    return _route(url, no_proxy, all_proxy=_SHARED).proxy is None


# --- Proxy URLs ---


@pytest.mark.parametrize(
    "text, proxy",
    [
        ("http://p.lab.example:3128", Proxy("http", "p.lab.example", 3128)),
        ("http://p.lab.example:3128/", Proxy("http", "p.lab.example", 3128)),
        ("p.lab.example:3128", Proxy("http", "p.lab.example", 3128)),
        ("u:p@p.lab.example:3128", Proxy("http", "p.lab.example", 3128, "u", "p")),
        ("HTTPS://P.lab.example", Proxy("https", "p.lab.example", 443)),
        ("http://p", Proxy("http", "p", 80)),
        ("socks5h://p", Proxy("socks5h", "p", 1080)),
        ("http://[::1]:3128", Proxy("http", "::1", 3128)),
        ("http://us%40er:p%3A%2F%40ss@p:1", Proxy("http", "p", 1, "us@er", "p:/@ss")),
        ("http://user@p:1", Proxy("http", "p", 1, "user", None)),
        ("http://user:@p:1", Proxy("http", "p", 1, "user", "")),
        ("http://münchen.example:1", Proxy("http", "xn--mnchen-3ya.example", 1)),
    ],
)
def test_every_form_of_a_proxy_url_is_parsed(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "ftp://u:canary@p:1",
        "socks5://u:canary@p:1",
        "socks4://u:canary@p:1",
        "http://u:canary@",
        "http://",
        "",
        "http://u:canary@p:99999",
        "http://u:canary@p:x",
        "http://u:can#ary@p:1",
        "http://u:12/canary@p:1",
        "http://u:12?canary@p:1",
        "http://u:canary@p:1/path",
        "http://u:can ary@p:1",
        "http://u:canary@p p:1",
        "http://u:canary%FF@p:1",
        "http://u:canary@[::1",
    ],
)
def test_the_error_text_of_a_wrong_proxy_url_does_not_repeat_its_password(text: str) -> None:
    with pytest.raises(BadUrl) as caught:
        parse_proxy(text)
    assert "can" not in str(caught.value).replace("cannot", "")


def test_neither_the_masked_url_nor_the_repr_of_a_proxy_has_its_password() -> None:
    proxy = parse_proxy("http://us%40er:canary@p.lab.example:3128")
    assert proxy.masked == "http://us%40er:***@p.lab.example:3128"
    assert "canary" not in repr(proxy)
    assert parse_proxy("https://[::1]").masked == "https://[::1]:443"
    assert parse_proxy("http://user@p:1").masked == "http://user@p:1"


def test_credentials_are_percent_decoded_for_basic_authorization() -> None:
    assert parse_proxy("http://Aladdin:open%20sesame@p").authorization == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert parse_proxy("http://u:%C3%BC%25@p").authorization == "Basic dTrDvCU="
    assert parse_proxy("http://u@p").authorization == "Basic dTo="
    assert parse_proxy("http://p").authorization is None


# --- Which proxy ---


def test_without_settings_a_call_is_direct() -> None:
    assert _route("http://h/") == Route(None, "no proxy is set for http")


def test_each_scheme_has_its_proxy_and_all_proxy_is_for_the_rest() -> None:
    shared = {"http_proxy": "http://a:1", "all_proxy": "socks5h://b:2"}
    assert _route("http://h/", **shared) == Route(Proxy("http", "a", 1), "http_proxy")
    assert _route("https://h/", **shared) == Route(Proxy("socks5h", "b", 2), "all_proxy")
    assert _route("https://h/", http_proxy="http://a:1") == Route(None, "no proxy is set for https")


@pytest.mark.parametrize("leg", list(Leg))
def test_shared_variables_apply_to_both_legs(leg: Leg) -> None:
    assert _route("https://h/", leg=leg, https_proxy=_SHARED).proxy == parse_proxy(_SHARED)


@pytest.mark.parametrize("leg, other", [(Leg.TARGET, Leg.PLATFORM), (Leg.PLATFORM, Leg.TARGET)])
def test_a_legs_own_proxy_replaces_the_shared_one_for_that_leg_only(leg: Leg, other: Leg) -> None:
    proxies = ProxyRouter({"https_proxy": _SHARED}, "", {leg: "socks5h://own:1"})
    url = parse_url("https://h/")
    assert proxies.route(leg, url) == Route(Proxy("socks5h", "own", 1), f"RELAY_{leg.name}_PROXY")
    assert proxies.route(other, url).reason == "https_proxy"


def test_none_makes_a_leg_direct() -> None:
    route = _route("https://h/", replaced={Leg.TARGET: "None"}, https_proxy=_SHARED)
    assert route == Route(None, "RELAY_TARGET_PROXY is none")


def test_no_proxy_applies_to_a_legs_own_proxy_too() -> None:
    route = _route("https://x.lab.example/", ".lab.example", replaced={Leg.TARGET: "http://own:1"})
    assert route == Route(None, "no_proxy names .lab.example")


# --- no_proxy ---


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
    assert _route("http://10.9.9.9/", "a, 10.0.0.0/8", http_proxy=_SHARED).reason == "no_proxy names 10.0.0.0/8"


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


# --- From settings ---


def test_settings_give_the_proxies_of_both_legs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    required = {"API_TARGET": "https://api.lab.example", "ORG_SLUG": "acme", "AGENT_ID": "a", "JWT": "x.y.z"}
    given_ = {"HTTPS_PROXY": "p:1", "NO_PROXY": "n.example", "RELAY_PLATFORM_PROXY": "none", "RELAY_TARGET_PROXY": ""}
    for name, value in {**required, **given_}.items():
        monkeypatch.setenv(name, value)
    proxies = proxy_router(Settings(_env_file=None))
    assert proxies.route(Leg.TARGET, parse_url("https://h/")) == Route(Proxy("http", "p", 1), "https_proxy")
    assert proxies.route(Leg.TARGET, parse_url("https://n.example/")).reason == "no_proxy names n.example"
    assert proxies.route(Leg.PLATFORM, parse_url("https://h/")).reason == "RELAY_PLATFORM_PROXY is none"


# --- Trust ---


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(tmp_path: Path, ca: trustme.CA) -> Iterator[Path]:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def _count(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509"]


def test_certifis_roots_are_trusted_by_default_and_ca_file_adds_to_them(ca_file: Path) -> None:
    plain = _count(TlsContexts().context(verify=True))
    assert plain > 50
    assert _count(TlsContexts(ca_file=ca_file).context(verify=True)) == plain + 1
    assert TlsContexts(ca_file=ca_file).roots == (Path(certifi.where()), ca_file)


def test_a_bundle_replaces_certifis_roots_and_ca_file_adds_to_it(ca_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    assert _count(TlsContexts(ca_bundle=ca_file).context(verify=True)) == 1
    assert _count(TlsContexts(ca_bundle=ca_file, ca_file=other).context(verify=True)) == 2


def test_the_verifying_context_checks_certificate_and_name() -> None:
    context = TlsContexts().context(verify=True)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_the_other_context_checks_neither_and_keeps_tls_1_2() -> None:
    context = TlsContexts().context(verify=False)
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_each_context_is_made_once_for_all_threads() -> None:
    trust, found = TlsContexts(), []
    threads = [threading.Thread(target=lambda: found.append(trust.context(verify=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4 and len(set(map(id, found))) == 1
    assert trust.context(verify=False) is trust.context(verify=False) is not found[0]


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Shake hands in memory: no socket, no thread."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=name), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0]


@pytest.fixture
def server(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    ca.issue_cert("lims.lab.example").configure_cert(context)
    return context


def test_a_private_ca_given_as_ca_file_is_trusted_for_its_names_only(ca_file: Path, server: ssl.SSLContext) -> None:
    context = TlsContexts(ca_file=ca_file).context(verify=True)
    assert _handshake(context, server, "lims.lab.example").selected_alpn_protocol() == "http/1.1"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(context, server, "other.lab.example")


def test_an_unknown_ca_is_refused_unless_verification_is_off(server: ssl.SSLContext) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(TlsContexts().context(verify=True), server, "lims.lab.example")
    assert _handshake(TlsContexts().context(verify=False), server, "other.lab.example").selected_alpn_protocol() == "http/1.1"


def test_an_issuing_ca_without_its_root_is_enough(ca: trustme.CA, tmp_path: Path) -> None:
    issuing = ca.create_child_ca()
    issuing.cert_pem.write_to_path(str(tmp_path / "issuing.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuing.issue_cert("lims.lab.example").configure_cert(server)
    assert _handshake(TlsContexts(ca_file=tmp_path / "issuing.pem").context(verify=True), server, "lims.lab.example").version() == "TLSv1.3"
