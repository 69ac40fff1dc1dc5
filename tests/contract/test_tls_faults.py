"""TLS towards targets: each certificate fault has its code (PROTOCOL §4), versions, names, and what `ignore_tls_certificate` permits."""

from __future__ import annotations

import ssl
import struct
from typing import get_args

import pytest

from relay_agent.core.clock import Deadline
from tests.contract.relaying import Relay, code
from tests.target_certificates import Fault, ca_pem, server_context
from tests.target_server import Connection
from tests.targets import ByteTarget, closed_port, in_turn, raw, redirect, reply

CODES = {
    "expired": "CERT_HAS_EXPIRED",
    "self_signed": "DEPTH_ZERO_SELF_SIGNED_CERT",
    "incomplete_chain": "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "unknown_authority": "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "unknown_root_sent": "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "wrong_host": "ERR_TLS_CERT_ALTNAME_INVALID",
}
FAULTS = [fault for fault in get_args(Fault) if fault != "none"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_good_certificate_is_accepted(relay: Relay, host: str) -> None:
    """A name or address that the certificate holds is served; SNI carries names only."""
    with ByteTarget(server_context()) as target:
        target.on("/", reply(200, body="ok"))
        assert relay({"url": target.url(host=host)}).get("body") == "ok"
        assert target.last.server_name == ("localhost" if host == "localhost" else None)


@pytest.mark.parametrize(("fault", "wanted"), CODES.items())
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_each_certificate_fault_has_its_code(relay: Relay, fault: Fault, wanted: str, host: str) -> None:
    """The fault is reported by its code, without a statusCode, and no request was sent."""
    with ByteTarget(server_context(fault)) as target:
        target.on("/", reply(200))
        answer = relay({"url": target.url(host=host)})
        assert code(answer) == wanted
        assert set(answer) == {"status", "code", "message", "url", "elapsedMs"}
        assert target.requests == []


def test_certificate_from_the_future_is_a_fault_of_tls(relay: Relay) -> None:
    """Not yet valid has no code of its own: it is one of TLS's and its message says so."""
    with ByteTarget(server_context("not_yet_valid")) as target:
        answer = relay({"url": target.url()})
        assert code(answer) in {"CERT_HAS_EXPIRED", "EPROTO"}
        assert "not yet valid" in answer["message"]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_can_be_ignored(relay: Relay, fault: Fault) -> None:
    """ignore_tls_certificate lets the command through whatever the certificate."""
    with ByteTarget(server_context(fault)) as target:
        target.on("/", reply(200, body="ok"))
        assert relay({"url": target.url(host="localhost"), "ignore_tls_certificate": True}).get("body") == "ok"
        assert target.last.server_name == "localhost"


@pytest.mark.parametrize("fault", FAULTS)
def test_ignoring_ends_with_the_command(relay: Relay, fault: Fault) -> None:
    """A connection opened without a check is not used for a command that checks."""
    with ByteTarget(server_context(fault)) as target:
        target.on("/", reply(200, body="ok"))
        assert relay({"url": target.url(), "ignore_tls_certificate": True})["statusCode"] == 200
        assert "statusCode" not in relay({"url": target.url()})
        assert len(target.requests) == 1


def test_ignoring_covers_every_hop_of_the_command(relay: Relay) -> None:
    """A redirect within the command is under the same setting."""
    with ByteTarget(server_context("self_signed")) as target, ByteTarget(server_context("expired")) as other:
        target.on("/", redirect(302, other.url("/end")))
        other.on("/end", reply(200, body="end"))
        assert relay({"url": target.url(), "ignore_tls_certificate": True}).get("body") == "end"


def test_authority_outside_the_trust_is_not_known(relay: Relay) -> None:
    """Without the test's authority in the trust its certificates are not accepted."""
    with ByteTarget(server_context()) as target:
        assert code(relay({"url": target.url()}, trust=False)) == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_versions_are_supported(relay: Relay, version: ssl.TLSVersion) -> None:
    """TLS 1.2 alone and TLS 1.3 alone both work."""
    with ByteTarget(server_context(oldest=version, newest=version)) as target:
        target.on("/", reply(200))
        assert relay({"url": target.url()})["statusCode"] == 200
        assert target.last.tls_version == version.name.replace("_", ".")


@pytest.mark.parametrize("ignore", [False, True])
def test_versions_of_old_are_a_fault(relay: Relay, ignore: bool) -> None:
    """TLS 1.1 is EPROTO."""
    with ByteTarget(server_context(oldest=ssl.TLSVersion.TLSv1_1, newest=ssl.TLSVersion.TLSv1_1)) as target:
        assert code(relay({"url": target.url(), "ignore_tls_certificate": ignore})) == "EPROTO"


def test_https_to_a_plain_port_is_a_fault(relay: Relay) -> None:
    """A port that speaks plain HTTP is EPROTO for https."""

    def answer(conn: Connection) -> bool:
        conn.sock.recv(5)
        conn.respond(400, body=b"plain HTTP here")
        conn.half_close()
        conn.hang(1.0)
        return False

    with ByteTarget() as target:
        target.on_accept = answer
        assert code(relay({"url": target.url(scheme="https")})) == "EPROTO"


def test_http_to_a_tls_port_is_no_answer(relay: Relay) -> None:
    """A TLS port asked in plain HTTP gives no HTTP response."""
    with ByteTarget(server_context()) as target:
        assert code(relay({"url": target.url(scheme="http")})) in {"EBADRESPONSE", "ECONNRESET"}


@pytest.mark.parametrize("garbage", [b"\x00" * 200, b"SSH-2.0-x\r\n", b"\x16\x03\x03\xff\xff" + b"\x00" * 100])
def test_garbage_in_place_of_tls_is_a_fault(relay: Relay, garbage: bytes) -> None:
    """What is no TLS record, or a broken one, is EPROTO."""

    def answer(conn: Connection) -> bool:
        conn.sock.recv(65536)
        conn.send(garbage)
        conn.half_close()
        conn.hang(1.0)
        return False

    with ByteTarget() as target:
        target.on_accept = answer
        assert code(relay({"url": target.url(scheme="https")})) in {"EPROTO", "ECONNRESET"}


@pytest.mark.parametrize("through", ["none", "http", "https"])
def test_records_without_content_do_not_outlive_the_deadline(relay: Relay, through: str) -> None:
    """HelloRequest, which a client that is shaking hands passes over, as fast as the network carries it."""
    enough = Deadline(10)

    def flood(conn: Connection) -> bool:
        records = b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 100_000
        if through == "http":
            conn.read_head()
            conn.send(b"HTTP/1.1 200 OK\r\n\r\n")
        conn.sock.recv(65536)
        while not enough.passed:
            conn.send(records)
        return False

    with ByteTarget() as flooding:
        flooding.on_accept = flood
        here, elsewhere = f"127.0.0.1:{flooding.port}", f"127.0.0.1:{closed_port()}"
        url, proxy = (f"https://{here}/", "none") if through == "none" else (f"https://{elsewhere}/", f"{through}://{here}")
        assert code(relay({"url": url, "timeout": 1}, proxy=proxy)) == "ETIMEDOUT"


def test_alert_in_the_handshake_is_a_fault(relay: Relay) -> None:
    """A fatal alert (handshake_failure) is EPROTO."""

    def refuse(conn: Connection) -> bool:
        conn.sock.recv(65536)
        conn.send(struct.pack("!BHHBB", 21, 0x0303, 2, 2, 40))
        conn.half_close()
        conn.hang(1.0)
        return False

    with ByteTarget() as target:
        target.on_accept = refuse
        assert code(relay({"url": target.url(scheme="https")})) == "EPROTO"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_hang_up_in_the_handshake_is_a_reset(relay: Relay, how: str) -> None:
    """Closed or reset before TLS stands: ECONNRESET."""

    def hang_up(conn: Connection) -> bool:
        conn.sock.recv(65536)
        getattr(conn, how)()
        return False

    with ByteTarget() as target:
        target.on_accept = hang_up
        assert code(relay({"url": target.url(scheme="https")})) == "ECONNRESET"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_missing_client_certificate_is_reported(relay: Relay, version: ssl.TLSVersion) -> None:
    """A target that requires a client certificate refuses with an alert, in TLS 1.3 once the handshake is done: EPROTO, which says so."""
    with ByteTarget(server_context(newest=version, client_authority=ca_pem())) as target:
        answer = relay({"url": target.url()})
        assert (code(answer), "the target requires a client certificate" in answer["message"]) == ("EPROTO", True)
        assert target.requests == []


def test_body_over_tls_cut_short_is_no_answer(relay: Relay) -> None:
    """Closed within the body without TLS's goodbye: EBADRESPONSE, as over plain HTTP."""
    with ByteTarget(server_context()) as target:
        target.on("/", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
        assert code(relay({"url": target.url()})) in {"EBADRESPONSE", "ECONNRESET"}


def test_body_until_close_with_goodbye_is_whole(relay: Relay) -> None:
    """A body that ends with the connection, closed properly in TLS, is relayed."""
    with ByteTarget(server_context()) as target:
        target.on("/", raw(b"HTTP/1.1 200 OK\r\n\r\n", b"whole", then="finish_tls"))
        assert relay({"url": target.url()}).get("body") == "whole"


def test_body_until_close_without_goodbye_is_not_taken_for_whole(relay: Relay) -> None:
    """Cut off without TLS's goodbye, a body without a length may be truncated by anyone (RFC 9112 §9.8)."""
    with ByteTarget(server_context()) as target:
        target.on("/", raw(b"HTTP/1.1 200 OK\r\n\r\n", b"cut"))
        answer = relay({"url": target.url()})
        assert code(answer) in {"EBADRESPONSE", "ECONNRESET"}


def test_large_answer_over_tls(relay: Relay) -> None:
    """Several megabytes arrive whole through TLS records."""
    with ByteTarget(server_context()) as target:
        target.on("/", reply(200, body=b"0123456789abcdef" * 250_000))
        assert relay({"url": target.url()}).get("body") == "0123456789abcdef" * 250_000


def test_kept_tls_connection_is_used_again(relay: Relay) -> None:
    """A second command to the same origin needs no second handshake."""
    with ByteTarget(server_context()) as target:
        target.on("/", in_turn(reply(200, body="1"), reply(200, body="2")))
        assert [relay({"url": target.url()})["body"] for _ in range(2)] == ["1", "2"]
        assert target.connections == 1
