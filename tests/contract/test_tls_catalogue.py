"""The result of each kind of TLS peer, with and without the certificate check: the table of docs/http-truth.md, row by row.

How a peer is built is in `tls_peers`.
"""

from __future__ import annotations

import shutil
import ssl
from dataclasses import dataclass
from pathlib import Path
from ssl import TLSVersion

import pytest
import trustme

from relay_agent.transport import tls_socket
from tests import target_certificates
from tests import tls_peers as peers
from tests.contract.relaying import Relay, code
from tests.contract.test_policy_calls import ALLOW_ALL, write_client
from tests.pages import ROOT, rows, section
from tests.target_certificates import Fault, server_context
from tests.target_proxies import HttpProxy
from tests.target_server import Connection
from tests.targets import ByteTarget, reply
from tests.tls_peers import HOST, Peer

TRUTH = (Path(ROOT) / "docs" / "http-truth.md").read_text(encoding="utf-8")
OK = "200"
ALTNAME, UNKNOWN = "ERR_TLS_CERT_ALTNAME_INVALID", "UNABLE_TO_VERIFY_LEAF_SIGNATURE"


@dataclass(frozen=True)
class Row:
    """What a peer causes: `OK` or a code; the failure's text contains `says`."""

    kind: str
    peer: Peer
    checked: str = OK
    ignored: str = OK
    says: str = ""
    host: str = HOST
    """By what name it is called; another than localhost through a proxy, which finds it."""

    @property
    def cells(self) -> list[str]:
        """The row as the document has it."""
        return [self.kind, self.checked, self.ignored, self.says or "–"]


def faulty(fault: Fault) -> Peer:
    """A peer with one of the faults that PROTOCOL §4 distinguishes."""
    return lambda: peers.serving(server_context(fault))


def nowhere(kind: str, peer: Peer, says: str) -> Row:
    """A peer that the agent does not get on with, whatever the command says."""
    return Row(kind, peer, "EPROTO", "EPROTO", says)


V12, V13 = TLSVersion.TLSv1_2, TLSVersion.TLSv1_3
WANTED = "requires a client certificate"
ASKED = "asked for a client certificate, which the agent does not have"
NO_VERSION = "no TLS version in common with the agent that its certificate allows"
NONE_IN_COMMON = "no cipher, key exchange or kind of certificate in common"
LAB = ("*.lab.example",)
MAIL = "email:somebody@lab.example"
TABLE = [
    Row("valid certificate", peers.shows()),
    Row("expired", faulty("expired"), "CERT_HAS_EXPIRED", says="certificate has expired (on 20"),
    Row("not yet valid", faulty("not_yet_valid"), "EPROTO", says="certificate is not yet valid (it begins on 20"),
    Row("wrong host", faulty("wrong_host"), ALTNAME, says="which is for elsewhere.lab.example"),
    Row("self-signed", faulty("self_signed"), "DEPTH_ZERO_SELF_SIGNED_CERT", says="certificate (CN=a device that signed itself)"),
    Row("unknown root, root sent", faulty("unknown_root_sent"), UNKNOWN, says="self-signed certificate in certificate chain"),
    Row("unknown root, root not sent", faulty("unknown_authority"), UNKNOWN, says="the agent does not know the authority"),
    Row("incomplete chain", faulty("incomplete_chain"), UNKNOWN, says="or an intermediate certificate is not sent"),
    Row("complete chain", peers.chained()),
    Row("revoked", peers.revoked("http://127.0.0.1:9/")),
    Row("signed with SHA-1", peers.chained("leaf"), "EPROTO", says="signed with SHA-1 or MD5"),
    Row("authority signed with SHA-1", peers.chained("authority"), "EPROTO", says="signed with SHA-1 or MD5"),
    Row("RSA, 1024 bits", peers.shows(key=peers.rsa_key(1024)), "EPROTO", says="its key is too short"),
    Row("RSA, 2048 bits", peers.shows(key=peers.rsa_key())),
    Row("elliptic curve, 384 bits", peers.shows(key=peers.ec_key("secp384r1"))),
    Row("for clients only", peers.for_clients_only, "EPROTO", says="unsuitable certificate purpose"),
    Row("extended validation", peers.extended_validation),
    Row("pinned elsewhere", peers.shows(key=peers.ec_key("another"))),
    Row("no common name", peers.shows(subject=None)),
    Row("common name only", lambda: peers.serving(peers.context_of(*peers.issue(subject=HOST)))),
    Row("common name and an e-mail address", peers.shows(MAIL, subject=HOST)),
    Row("name with a final dot", peers.shows(f"{HOST}."), ALTNAME, says=f"which is for {HOST}."),
    Row("1,000 names", peers.shows(HOST, *(f"host{number}.lab.example" for number in range(1_000)))),
    nowhere("10,000 names", peers.shows(HOST, *(f"host{number}.lab.example" for number in range(10_000))), "longer than a handshake"),
    Row("wildcard", peers.shows(*LAB), host="lims.lab.example"),
    Row("wildcard, upper case", peers.shows("*.LAB.example"), host="lims.lab.example"),
    Row("wildcard, for two labels", peers.shows(*LAB), ALTNAME, says="which is for *.lab.example", host="a.lims.lab.example"),
    Row("wildcard, for no label", peers.shows(*LAB), ALTNAME, says="which is for *.lab.example", host="lab.example"),
    Row("wildcard, within a label", peers.shows("l*.lab.example"), ALTNAME, says="which is for l*.lab.example", host="lims.lab.example"),
    Row("wildcard, above a single label", peers.shows("*.example"), ALTNAME, says="which is for *.example", host="lims.example"),
    Row("wildcard, underscore", peers.shows(*LAB), host="my_lims.lab.example"),
    Row("wildcard, underscore after it", peers.shows("*.my_lab.example"), host="lims.my_lab.example"),
    Row("wildcard, underscore, two labels", peers.shows(*LAB), ALTNAME, says="which is for *.lab.example", host="a.my_lims.lab.example"),
    Row("wildcard, underscore, another domain", peers.shows("*.lab.test"), ALTNAME, says="for *.lab.test", host="my_lims.lab.example"),
    Row("underscore, no wildcard", peers.shows("my_lims.lab.example"), host="my_lims.lab.example"),
    Row("underscore, common name and an e-mail address", peers.shows(MAIL, subject=LAB[0]), host="my_lims.lab.example"),
    Row("underscore, common name and an address", peers.shows("10.1.2.3", subject=LAB[0]), ALTNAME, host="my_lims.lab.example"),
    Row("underscore, name with a final dot", peers.shows("my_lims.lab.example."), host="my_lims.lab.example"),
    Row("international name", peers.shows("*.xn--mnchen-3ya.example"), host="lims.xn--mnchen-3ya.example"),
    Row("address as an address", peers.shows("127.0.0.1"), host="127.0.0.1"),
    Row("address as a name", peers.shows("dns:127.0.0.1"), ALTNAME, says="for 127.0.0.1 (as a name, not as an address)", host="127.0.0.1"),
    Row("TLS 1.3 only", peers.speaks("ALL", version=V13)),
    Row("TLS 1.2 only", peers.speaks("ALL")),
    nowhere("TLS 1.3 only, key on a brainpool curve", peers.speaks("ALL", key=peers.ec_key("brainpoolP256r1"), version=V13), NO_VERSION),
    nowhere("TLS 1.3 only, key on secp256k1", peers.speaks("ALL", key=peers.ec_key("secp256k1"), version=V13), NO_VERSION),
    nowhere("TLS 1.1 only", peers.speaks("ALL", version=TLSVersion.TLSv1_1), NO_VERSION),
    nowhere("TLS 1.0 only", peers.speaks("ALL", version=TLSVersion.TLSv1), NO_VERSION),
    nowhere("TLS 1.1, whatever the client offers", peers.sends(peers.server_hello(0xC014, 0x0302)), "speaks only TLS 1.1;"),
    nowhere("SSL 3, whatever the client offers", peers.sends(peers.server_hello(0x0005, 0x0300)), "speaks only SSL 3.0;"),
    Row("ECDHE-RSA-AES256-SHA only (CBC)", peers.speaks("ECDHE-RSA-AES256-SHA")),
    Row("AES256-GCM-SHA384 only (RSA key exchange)", peers.speaks("AES256-GCM-SHA384")),
    Row("AES128-SHA only (RSA key exchange, CBC)", peers.speaks("AES128-SHA")),
    Row("Diffie-Hellman, 2048 bits", peers.diffie_hellman(2048)),
    Row("Diffie-Hellman, 1024 bits", peers.diffie_hellman(1024), "EPROTO", says="2048 bits are needed"),
    nowhere("Diffie-Hellman, 480 bits", peers.sends(*peers.short_diffie_hellman(480)), "2048 bits are needed"),
    nowhere("no encryption (NULL) only", peers.speaks("NULL-SHA256"), NONE_IN_COMMON),
    nowhere("no certificate (anonymous) only", peers.speaks("ADH-AES128-SHA256"), NONE_IN_COMMON),
    nowhere("RC4 or 3DES only", peers.sends(peers.alert(40)), NONE_IN_COMMON),
    nowhere("RC4, whatever the client offers", peers.sends(peers.server_hello(0x0005)), "chooses the cipher RC4"),
    nowhere("3DES, whatever the client offers", peers.sends(peers.server_hello(0x000A)), "chooses the cipher 3DES"),
    Row("client certificate optional, TLS 1.2", peers.asks(V12, required=False)),
    Row("client certificate optional, TLS 1.3", peers.asks(V13, required=False)),
    Row("client certificate optional, TLS 1.3, asks after the request", peers.asks_after_the_request()),
    nowhere("client certificate required, TLS 1.2", peers.asks(V12), WANTED),
    nowhere("client certificate required, TLS 1.3", peers.asks(V13), WANTED),
    nowhere("client certificate required, TLS 1.2, closes", peers.asks_and_ends(V12, "close"), ASKED),
    nowhere("client certificate required, TLS 1.2, resets", peers.asks_and_ends(V12, "reset"), ASKED),
    nowhere("client certificate required, TLS 1.3, closes", peers.asks_and_ends(V13, "close"), ASKED),
    nowhere("client certificate required, TLS 1.3, resets", peers.asks_and_ends(V13, "reset"), ASKED),
    nowhere("client certificate required, TLS 1.3, sends close_notify", peers.asks_and_ends(V13, "finish_tls"), ASKED),
    nowhere("client certificate required, TLS 1.3, asks after the request", peers.asks_after_the_request(required=True), WANTED),
    nowhere("serves other names only (SNI)", peers.refuses_the_name, "serves nothing under this name"),
    nowhere("speaks only HTTP/2", peers.sends(peers.alert(120)), "does not speak HTTP/1.1 over TLS"),
    nowhere("fails with an internal error", peers.sends(peers.alert(80)), "reports an internal error"),
    nowhere("plain HTTP", peers.sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak TLS there, but plain HTTP"),
    nowhere("SSH", peers.sends(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not speak TLS there, but SSH"),
    nowhere("something else", peers.sends(b"\0" * 100), "does not speak TLS there, but something else"),
    Row("closes at once", peers.sends(), "ECONNRESET", "ECONNRESET", "connection closed by the other side"),
]


@pytest.mark.parametrize("ignore", [False, True], ids=["checked", "ignored"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.kind)
def test_each_peer_gives_what_the_table_says(relay: Relay, row: Row, ignore: bool) -> None:
    wanted = row.ignored if ignore else row.checked
    with row.peer() as target, HttpProxy(resolve={row.host: ("127.0.0.1", target.port)}) as proxy:
        by = {} if row.host in (HOST, "127.0.0.1") else {"proxy": proxy.url()}
        url = target.url(host=row.host, scheme="https")
        answer = relay({"url": url, "ignore_tls_certificate": ignore}, **by)  # type: ignore[arg-type]
    if wanted == OK:
        assert answer.get("statusCode") == 200, answer
    else:
        assert code(answer) == wanted
        assert row.says in answer["message"]


def test_the_document_has_the_table() -> None:
    found = rows(section(TRUTH, "TLS"), "target")
    assert [[cell.replace("`", "") for cell in row] for row in found] == [row.cells for row in TABLE]


def test_nobody_is_asked_whether_a_certificate_was_revoked(relay: Relay) -> None:
    with ByteTarget() as register, peers.revoked(register.url())() as target:
        assert relay({"url": target.url(host=HOST)})["statusCode"] == 200
        assert register.connections == 0


def test_a_peer_without_secure_renegotiation_is_accepted_only_without_the_certificate_check(relay: Relay) -> None:
    """The peer goes no further than its ServerHello, which is where the agent refuses it."""
    with peers.sends(peers.server_hello(0xC02F, renegotiation_info=False))() as target:
        url = target.url(host=HOST, scheme="https")
        answer = relay({"url": url})
        assert (code(answer), "RFC 5746" in answer["message"]) == ("EPROTO", True)
        assert code(relay({"url": url, "ignore_tls_certificate": True})) == "ECONNRESET"


# --- client certificates ---


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_what_may_not_go_out_twice_is_not_sent_to_find_out(relay: Relay, version: TLSVersion, method: str, how: str) -> None:
    with peers.asks_and_ends(version, how)() as target:
        assert ASKED in relay({"url": target.url(host=HOST), "method": method, "body": "x" * 200_000})["message"]
        assert target.connections == 1


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("size", [0, 100_000, 5_000_000])
def test_a_missing_client_certificate_is_reported_however_much_of_the_request_was_sent(
    relay: Relay, version: TLSVersion, how: str, size: int
) -> None:
    """A body meets the end of the session while it is sent."""
    with peers.asks_and_then(version, lambda conn: getattr(conn, how)()) as target:
        answer = relay({"url": target.url(host=HOST), "method": "POST", "body": "x" * size})
        assert (code(answer), ASKED in answer["message"], target.connections) == ("EPROTO", True, 1)


@pytest.mark.parametrize("version", [V12, V13])
def test_a_missing_client_certificate_is_reported_while_the_body_is_sent(relay: Relay, version: TLSVersion) -> None:
    """TLS 1.3 says it once the request may be under way."""
    with peers.asks(version)() as target:
        answer = relay({"url": target.url(host=HOST), "method": "POST", "body": "x" * 5_000_000})
        assert (code(answer), WANTED in answer["message"]) == ("EPROTO", True)


def test_an_early_answer_of_a_target_that_asked_for_a_certificate_is_the_answer(relay: Relay) -> None:
    """It says more than that the connection ended."""

    def refuse(conn: Connection) -> None:
        conn.read_head()
        conn.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        conn.hang(1.0)

    with peers.asks_and_then(V13, refuse) as target:
        assert relay({"url": target.url(host=HOST), "method": "POST", "body": "x" * 5_000_000})["statusCode"] == 403


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_close_without_an_answer_is_a_reset_if_no_certificate_was_requested(relay: Relay, version: TLSVersion, how: str) -> None:
    with ByteTarget(server_context(oldest=version, newest=version)) as target:
        target.on("*", lambda conn, _request: getattr(conn, how)())
        assert code(relay({"url": target.url(host=HOST), "method": "POST"})) == "ECONNRESET"


@pytest.mark.parametrize("version", [V12, V13])
def test_a_close_after_an_answer_is_a_reset_even_if_a_certificate_was_requested(relay: Relay, version: TLSVersion) -> None:
    """A target that answered one request without a certificate has another reason not to answer the next."""
    with peers.asks(version, required=False)() as target:
        target.on("/end", lambda conn, _request: conn.reset())
        assert relay({"url": target.url(host=HOST)})["statusCode"] == 200
        assert code(relay({"url": target.url("/end", host=HOST)})) in {"ECONNRESET", "EPROTO"}
        assert target.connections == 2  # a GET is sent again if its connection brought no answer


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_client_certificate_is_named(relay: Relay, version: TLSVersion, scheme: str) -> None:
    """For a tunnel, and for a request that it is to forward."""
    context = server_context(oldest=version, newest=version, client_authority=target_certificates.ca_pem())
    with HttpProxy(tls=context) as proxy:
        answer = relay({"url": f"{scheme}://lims.lab.example/"}, proxy=proxy.url())
        assert code(answer) == "EPROTO"
        assert answer["message"].startswith(f"proxy {proxy.url()}: ")
        assert "the proxy requires a client certificate" in answer["message"]


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_target_behind_a_proxy_that_wants_a_client_certificate_is_named(relay: Relay, version: TLSVersion, how: str) -> None:
    """In a session within the proxy's, which did not ask for one."""
    with peers.asks_and_ends(version, how)() as target, HttpProxy(tls=server_context()) as proxy:
        answer = relay({"url": target.url(host=HOST)}, proxy=proxy.url())
        assert (code(answer), f"the target {ASKED}" in answer["message"]) == ("EPROTO", True)


def with_certificate(directory: Path) -> str:
    """A policy under which the agent shows its client certificate to the peers."""
    return f'{ALLOW_ALL}[[target]]\nhosts = ["{HOST}"]\n{write_client(directory)}'


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("size", [0, 5_000_000])
def test_a_client_certificate_that_is_refused_is_not_said_to_be_missing(
    relay: Relay, tmp_path: Path, version: TLSVersion, size: int
) -> None:
    others = trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem.bytes()
    with peers.serving(server_context(oldest=version, newest=version, client_authority=others)) as target:
        request = {"url": target.url(host=HOST), "method": "POST", "body": "x" * size}
        answer = relay(request, policy=with_certificate(tmp_path))
        assert code(answer) == "EPROTO"
        assert answer["message"].endswith("the target refuses the agent's client certificate: unknown_ca")


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("ignore", [False, True], ids=["checked", "ignored"])
def test_a_client_certificate_is_shown_to_a_target_that_asks_after_the_request(
    relay: Relay, tmp_path: Path, required: bool, ignore: bool
) -> None:
    with peers.asks_after_the_request(required=required)() as target:
        request = {"url": target.url(host=HOST), "ignore_tls_certificate": ignore}
        assert relay(request, policy=with_certificate(tmp_path))["body"] == "with a certificate"
        assert target.connections == 1


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("how", ["close", "reset", "finish_tls"])
def test_a_target_that_accepts_the_client_certificate_and_then_ends_has_another_reason(
    relay: Relay, tmp_path: Path, version: TLSVersion, how: str
) -> None:
    with peers.asks_and_ends(version, how)() as target:
        answer = relay({"url": target.url(host=HOST), "method": "POST"}, policy=with_certificate(tmp_path))
        assert code(answer) == "ECONNRESET"


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("how", ["close", "reset", "finish_tls"])
def test_a_target_that_asks_for_a_certificate_and_ends_long_after_the_request_has_another_reason(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, version: TLSVersion, how: str
) -> None:
    """It worked on the request without one."""
    monkeypatch.setattr(tls_socket, "VERDICT_SECONDS", 0.0)
    with peers.asks_and_ends(version, how)() as target:
        assert code(relay({"url": target.url(host=HOST), "method": "POST"})) == "ECONNRESET"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize(("certificate", "wanted"), [(True, "EPROTO"), (False, "ECONNRESET")])
def test_a_certificate_wanted_in_a_second_handshake_is_named(relay: Relay, certificate: bool, wanted: str) -> None:
    with peers.asks_in_a_second_handshake(certificate=certificate) as url:
        answer = relay({"url": url})
        assert (code(answer), ASKED in answer["message"]) == (wanted, certificate)


# --- names with an underscore ---


def test_an_underscore_is_matched_in_a_session_within_a_session(relay: Relay) -> None:
    names = {"my_lims.lab.example": OK, "a.my_lims.lab.example": ALTNAME}
    with peers.shows("*.lab.example")() as target, HttpProxy(tls=server_context()) as proxy:
        for host, wanted in names.items():
            proxy.resolve[host] = ("127.0.0.1", target.port)
            answer = relay({"url": target.url(host=host)}, proxy=proxy.url())
            assert str(answer.get("statusCode", answer.get("code"))) == wanted
        assert len(target.requests) == 1


@pytest.mark.parametrize("fault", ["expired", "self_signed", "unknown_authority"])
def test_an_underscore_takes_nothing_from_the_check_of_the_certificate(relay: Relay, fault: Fault) -> None:
    with (
        ByteTarget(server_context(fault, names=("*.lab.example",))) as target,
        HttpProxy(resolve={"my_lims.lab.example": ("127.0.0.1", target.port)}) as proxy,
    ):
        target.on("*", reply(200))
        assert code(relay({"url": target.url(host="my_lims.lab.example")}, proxy=proxy.url())) != ALTNAME
        assert target.requests == []


def test_a_name_in_the_certificate_that_nobody_can_read_matches_nothing(relay: Relay) -> None:
    """A NUL within a name ends no comparison early."""
    nul = peers.issue("dns:my_lims.lab.example\0.evil.example")
    with (
        peers.serving(peers.context_of(*nul)) as target,
        HttpProxy(resolve={"my_lims.lab.example": ("127.0.0.1", target.port)}) as proxy,
    ):
        assert "statusCode" not in relay({"url": target.url(host="my_lims.lab.example")}, proxy=proxy.url())
        assert target.requests == []


def test_python_s_own_list_of_ciphers_would_leave_them_out() -> None:
    """Why the list is set: a context of Python's own offers neither CBC nor RSA key exchange."""
    offered = {cipher["name"] for cipher in ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).get_ciphers()}
    assert not offered & {"ECDHE-RSA-AES256-SHA", "AES256-GCM-SHA384", "AES128-SHA"}
