"""What is read from the unencrypted parts of a TLS handshake, and the faults that follow from it."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.failures import Code, TlsTrouble
from relay_agent.transport.fault_mapping import tls_fault
from relay_agent.transport.handshake import MAX_FIRST, FirstReceived, SentRecords, read_first
from tests import tls_peers as peers

HELLO, CHANGE, DATA = 22, 20, 23
FULL, ASKED, RESUMED = [HELLO, HELLO], [HELLO, HELLO, HELLO], [HELLO]


def records(*kinds: int, length: int = 40) -> bytes:
    return b"".join(bytes([kind, 3, 3]) + length.to_bytes(2) + b"." * length for kind in kinds)


def renegotiated(*handshakes: list[int]) -> SentRecords:
    sent = SentRecords()
    for messages in handshakes:
        sent.sent(records(*messages[:1]))
        sent.sent(records(*messages[1:], CHANGE, HELLO) + records(DATA, DATA))
    sent.handshake_done("TLSv1.2", ("ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2", 256))
    return sent


@pytest.mark.parametrize("handshakes", [[FULL], [RESUMED], [FULL, FULL, FULL], [FULL, RESUMED]])
def test_a_client_that_was_not_asked_sends_no_certificate(handshakes: list[list[int]]) -> None:
    assert not renegotiated(*handshakes).asked


@pytest.mark.parametrize("handshakes", [[ASKED], [FULL, ASKED], [RESUMED, ASKED], [FULL, FULL, ASKED]])
def test_a_client_that_was_asked_is_recognised_in_any_handshake_of_a_session(handshakes: list[list[int]]) -> None:
    """In TLS 1.2 a server (IIS, Apache) may request a certificate in a second handshake, after it has read the path."""
    assert renegotiated(*handshakes).asked


@pytest.mark.parametrize(("cipher", "finished"), [("TLS_AES_256_GCM_SHA384", 69), ("TLS_AES_128_GCM_SHA256", 53)])
@pytest.mark.parametrize("certificate", [0, 8, 25])
def test_in_tls_1_3_a_client_that_was_not_asked_encrypts_only_finished(cipher: str, finished: int, certificate: int) -> None:
    """This holds whether or not the empty Certificate (8 bytes, encrypted 25) shares a record with Finished."""
    sent = SentRecords()
    sent.sent(records(HELLO, CHANGE, HELLO))  # Two ClientHellos: the server asked for another key share.
    sent.sent(records(DATA, length=finished + certificate))
    sent.handshake_done("TLSv1.3", (cipher, "TLSv1.3", 256))
    assert sent.asked == (certificate > 0)


def test_version_and_cipher_are_read_from_a_server_hello() -> None:
    assert read_first(peers.server_hello(0x0005, 0x0301)) == FirstReceived(None, "TLS 1.0", "RC4")
    assert read_first(peers.server_hello(0x1301)) == FirstReceived(None, None, "number 0x1301")
    assert read_first(peers.server_hello(0x0005)[:40]) == FirstReceived()


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
    assert read_first(first) == FirstReceived(protocol)


def test_a_fatal_alert_is_read_by_its_number_and_a_warning_is_ignored() -> None:
    """Python does not have a name for every alert."""
    assert read_first(peers.alert(120)).alert == "no_application_protocol"
    assert read_first(peers.alert(255)).alert == "number 255"
    assert read_first(b"\x15\x03\x03\x00\x02\x01\x70").alert is None


@given(st.binary(max_size=MAX_FIRST) | st.binary(max_size=MAX_FIRST - 6).map(lambda rest: b"\x16\x03\x03\x01\x00\x02" + rest))
def test_any_first_bytes_can_be_read(first: bytes) -> None:
    assert isinstance(read_first(first), FirstReceived)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (None, "protocol error"),
        ("SOMETHING_NEW", "something new"),
        ("TLSV1_ALERT_USER_CANCELLED", "the target ended the TLS session (alert user_cancelled)"),
        ("X{0}", "x{0}"),
    ],
)
def test_an_unknown_reason_of_openssl_is_repeated(reason: str | None, text: str) -> None:
    error = ssl.SSLError(1, "text")
    error.reason = reason  # type: ignore[assignment]
    fault = tls_fault(error, "TLS h:443")
    assert (fault.code, fault.facts.trouble) == (Code.EPROTO, None)
    assert fault.message == f"TLS h:443: {text}"


@pytest.mark.parametrize(
    ("code", "trouble"), [(9, TlsTrouble.NOT_YET_VALID), (66, TlsTrouble.WEAK_CERTIFICATE), (26, TlsTrouble.BAD_CERTIFICATE)]
)
def test_what_is_wrong_with_a_certificate_is_a_field_of_the_fault(code: int, trouble: TlsTrouble) -> None:
    error = ssl.SSLCertVerificationError(1, "text")
    error.verify_code, error.verify_message = code, "words {} of OpenSSL"
    fault = tls_fault(error, "TLS h:443")
    assert (fault.facts.trouble, fault.at_certificate) == (trouble, True)
    assert fault.at("p").facts.trouble == trouble
