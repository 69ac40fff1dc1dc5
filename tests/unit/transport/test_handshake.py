"""What a handshake shows in plain: our own records, and the first bytes of the other side, which may be anybody's."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.failures import Code, TlsTrouble
from relay_agent.transport.fault_mapping import tls_fault
from relay_agent.transport.handshake import MAX_FIRST, Heard, OwnRecords, heard
from tests import tls_peers as peers

HELLO, CHANGE, SEALED = 22, 20, 23
FULL, ASKED, RESUMED = [HELLO, HELLO], [HELLO, HELLO, HELLO], [HELLO]


def records(*kinds: int, length: int = 40) -> bytes:
    return b"".join(bytes([kind, 3, 3]) + length.to_bytes(2) + b"." * length for kind in kinds)


def renegotiated(*handshakes: list[int]) -> OwnRecords:
    own = OwnRecords()
    for messages in handshakes:
        own.note(records(*messages[:1]))
        own.note(records(*messages[1:], CHANGE, HELLO) + records(SEALED, SEALED))
    own.stands("TLSv1.2", ("ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2", 256))
    return own


@pytest.mark.parametrize("handshakes", [[FULL], [RESUMED], [FULL, FULL, FULL], [FULL, RESUMED]])
def test_a_client_that_was_not_asked_sends_no_certificate(handshakes: list[list[int]]) -> None:
    assert not renegotiated(*handshakes).asked


@pytest.mark.parametrize("handshakes", [[ASKED], [FULL, ASKED], [RESUMED, ASKED], [FULL, FULL, ASKED]])
def test_a_client_that_was_asked_is_recognised_in_any_handshake_of_a_session(handshakes: list[list[int]]) -> None:
    """In TLS 1.2 a server may ask only once it knows which path is wanted (IIS, Apache), in a second handshake."""
    assert renegotiated(*handshakes).asked


@pytest.mark.parametrize(("cipher", "finished"), [("TLS_AES_256_GCM_SHA384", 69), ("TLS_AES_128_GCM_SHA256", 53)])
@pytest.mark.parametrize("certificate", [0, 8, 25])
def test_in_tls_1_3_a_client_that_was_not_asked_encrypts_only_finished(cipher: str, finished: int, certificate: int) -> None:
    """However the empty Certificate (8 bytes, sealed 25) and Finished are put into records."""
    own = OwnRecords()
    own.note(records(HELLO, CHANGE, HELLO))  # Asked for another key share, the client says hello twice.
    own.note(records(SEALED, length=finished + certificate))
    own.stands("TLSv1.3", (cipher, "TLSv1.3", 256))
    assert own.asked == (certificate > 0)


def test_version_and_cipher_are_read_from_a_server_hello() -> None:
    assert heard(peers.server_hello(0x0005, 0x0301)) == Heard(None, "TLS 1.0", "RC4")
    assert heard(peers.server_hello(0x1301)) == Heard(None, None, "number 0x1301")
    assert heard(peers.server_hello(0x0005)[:40]) == Heard()


@pytest.mark.parametrize(
    ("first", "protocol"),
    [
        (b"HTTP/1.0 400 Bad Request", "plain HTTP"),
        (b"<!DOCTYPE html>", "plain HTTP"),
        (b"SSH-2.0-x", "SSH"),
        (b"220 mail.lab.example ESMTP", "SMTP or FTP"),
        (b"RFB 003.008\n", "VNC"),
        (b"\x16\x05\x00", "something else"),
        (b"\x00", "something else"),
    ],
)
def test_another_protocol_than_tls_is_named(first: bytes, protocol: str) -> None:
    assert heard(first) == Heard(protocol)


def test_a_fatal_alert_is_read_by_its_number_and_a_warning_is_ignored() -> None:
    """Python has no name for each."""
    assert heard(peers.alert(120)).alert == "no_application_protocol"
    assert heard(peers.alert(255)).alert == "number 255"
    assert heard(b"\x15\x03\x03\x00\x02\x01\x70").alert is None


@given(st.binary(max_size=MAX_FIRST) | st.binary(max_size=MAX_FIRST - 6).map(lambda rest: b"\x16\x03\x03\x01\x00\x02" + rest))
def test_any_first_bytes_can_be_read(first: bytes) -> None:
    assert isinstance(heard(first), Heard)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (None, "protocol error"),
        ("SOMETHING_NEW", "something new"),
        ("TLSV1_ALERT_USER_CANCELLED", "the target broke TLS off (alert user_cancelled)"),
        ("X{0}", "x{0}"),
    ],
)
def test_an_unknown_reason_of_openssl_is_repeated(reason: str | None, told: str) -> None:
    error = ssl.SSLError(1, "text")
    error.reason = reason  # type: ignore[assignment]
    fault = tls_fault(error, "TLS h:443")
    assert (fault.code, fault.facts.trouble) == (Code.EPROTO, None)
    assert fault.message == f"TLS h:443: {told}"


@pytest.mark.parametrize(
    ("code", "trouble"), [(9, TlsTrouble.NOT_YET_VALID), (66, TlsTrouble.WEAK_CERTIFICATE), (26, TlsTrouble.BAD_CERTIFICATE)]
)
def test_what_is_wrong_with_a_certificate_is_a_field_of_the_fault(code: int, trouble: TlsTrouble) -> None:
    error = ssl.SSLCertVerificationError(1, "text")
    error.verify_code, error.verify_message = code, "words {} of OpenSSL"
    fault = tls_fault(error, "TLS h:443")
    assert (fault.facts.trouble, fault.at_certificate) == (trouble, True)
    assert fault.at("p").facts.trouble == trouble
