"""TLS record by record: the peer is a session in memory, so no test waits.

If the underlying socket is itself a TLS session, only its end differs: without close_notify it raises SSLEOFError.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, cast

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.transport import tls_socket
from relay_agent.transport.deadline_sockets import DeadlineSocket, DeadlineWait
from relay_agent.transport.errors import ClientCertificateRefused, ClientCertificateWanted
from relay_agent.transport.tls import TlsContexts
from relay_agent.transport.tls_socket import TlsSocket
from tests.target_certificates import ca_pem, server_context


class Tunnel(DeadlineWait):
    """The socket under the TlsSocket, and the target at its other end. All bytes that have arrived are received at once."""

    def __init__(self, context: ssl.SSLContext) -> None:
        context.sni_callback = None  # type: ignore[assignment]
        self._to_target, self._from_target = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.target = context.wrap_bio(self._to_target, self._from_target, server_side=True)
        self.ended = False
        self.error: OSError | None = None
        self.sent = bytearray()

    def readable(self) -> bool:
        return bool(self._from_target.pending)

    def sendall(self, data: bytes) -> None:
        self.sent += data
        self.bytes_sent += len(data)
        self._to_target.write(data)

    def recv(self, size: int) -> bytes:
        if not self._from_target.pending and not self.ended:
            self._shake()
        if self._from_target.pending:
            return self._from_target.read(size)
        if self.error is not None:
            raise self.error
        if self.ended:
            return b""
        raise TimeoutError("nothing comes")

    def _shake(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.target.do_handshake()

    def goodbye(self) -> None:
        """Send close_notify, and end the connection."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.target.unwrap()
        self.ended = True


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> TlsContexts:
    path = tmp_path_factory.mktemp("trust") / "ca.pem"
    path.write_bytes(ca_pem())
    return TlsContexts(ca_file=path)


def opened(trust: TlsContexts, *, verify: bool = True, tickets: int = 2, **versions: Any) -> tuple[TlsSocket, Tunnel]:
    """A session whose handshake is done, and the tunnel to its target."""
    context = server_context(**versions)
    if not versions:
        context.num_tickets = tickets
    tunnel = Tunnel(context)
    tls = TlsSocket(cast("DeadlineSocket", tunnel), trust.context(verify), "localhost", ragged_ends=not verify)
    tls.do_handshake()
    tunnel._shake()
    return tls, tunnel


VERSIONS = [{"newest": ssl.TLSVersion.TLSv1_2}, {"oldest": ssl.TLSVersion.TLSv1_3}]


@pytest.mark.parametrize("versions", VERSIONS, ids=["TLS 1.2", "TLS 1.3"])
def test_both_sides_receive_everything_that_was_sent(trust: TlsContexts, versions: dict[str, Any]) -> None:
    tls, tunnel = opened(trust, **versions)
    data = bytes(range(256)) * 1000
    tls.sendall(memoryview(data))
    got = bytearray()
    while len(got) < len(data):
        got += tunnel.target.read(len(data))
    assert got == data
    tunnel.target.write(data)
    with tls.makefile("rb") as stream:
        assert stream.read(len(data)) == data
    assert tls.pending() == 0
    assert tls.bytes_sent == len(tunnel.sent) > len(data)
    assert (tls.version(), len(tls.getpeercert(True) or b"") > 100) == (versions.popitem()[1].name.replace("_", "."), True)


@pytest.mark.parametrize("error", [None, ssl.SSLEOFError(8, "EOF")], ids=["proxy sent close_notify", "proxy sent none"])
def test_an_end_without_the_targets_close_notify_is_an_error(trust: TlsContexts, error: OSError | None) -> None:
    """Whatever the proxy reports: anybody on the path could cut the connection. Without verification it is accepted."""
    for verify in (True, False):
        tls, tunnel = opened(trust, verify=verify)
        tunnel.target.write(b"cut")
        tunnel.ended, tunnel.error = True, error
        assert tls.recv(100) == b"cut"
        if verify:
            with pytest.raises(ssl.SSLEOFError):
                tls.recv(100)
        else:
            assert tls.recv(100) == b""


@pytest.mark.parametrize("error", [None, ssl.SSLEOFError(8, "EOF")], ids=["proxy sent close_notify", "proxy sent none"])
def test_an_end_with_the_targets_close_notify_is_not_an_error(trust: TlsContexts, error: OSError | None) -> None:
    tls, tunnel = opened(trust)
    tunnel.target.write(b"whole")
    tunnel.goodbye()
    tunnel.error = error
    assert [tls.recv(100), tls.recv(100), tls.recv(100)] == [b"whole", b"", b""]


def test_a_reset_is_raised_as_a_reset(trust: TlsContexts) -> None:
    tls, tunnel = opened(trust, verify=False)
    tunnel.error = ConnectionResetError(104, "reset")
    with pytest.raises(ConnectionResetError):
        tls.recv(100)
        tls.recv(100)


def test_unread_bytes_are_counted_in_every_layer(trust: TlsContexts) -> None:
    """Both decrypted bytes and bytes that are not decrypted yet are counted."""
    tls, tunnel = opened(trust)
    tunnel.target.write(b"the answer")
    tunnel.target.write(b"another, not requested")
    assert tls.recv(100) == b"the answer"
    assert tls.pending() > 0
    assert tls.readable()
    tls, tunnel = opened(trust)
    tunnel.target.write(b"the answer and more")
    assert tls.recv(10) == b"the answer"
    assert tls.pending() == len(b" and more")
    assert tls.readable()


def test_session_tickets_before_an_answer_leave_no_pending_bytes(trust: TlsContexts) -> None:
    """TLS 1.3 sends session tickets after the handshake; once they are read, the connection can be reused."""
    tls, tunnel = opened(trust, tickets=5)
    tunnel.target.write(b"the answer")
    assert tls.recv(100) == b"the answer"
    assert tls.pending() == 0
    assert not tls.readable()
    tunnel.target.write(b"another, not requested")
    assert (tls.pending(), tls.readable()) == (0, True)


def test_a_flood_of_records_without_content_ends_at_the_deadline(trust: TlsContexts) -> None:
    """The test's clock advances by a second at each reading."""
    tls, tunnel = opened(trust, tickets=5000)
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 1.0
        return now

    tls.deadline = Deadline(20.0, monotonic)
    with pytest.raises(TimeoutError, match="deadline passed"):
        tls.recv(100)
    assert tunnel._from_target.pending > 0


def test_a_handshake_without_progress_ends_at_the_deadline(trust: TlsContexts) -> None:
    class Asking(Tunnel):
        def recv(self, size: int) -> bytes:
            return b"\x16\x03\x03\x00\x04\x00\x00\x00\x00"  # HelloRequest, which a client that is shaking hands passes over

    tunnel = Asking(server_context())
    tls = TlsSocket(cast("DeadlineSocket", tunnel), trust.context(True), "localhost", ragged_ends=False)
    ticks = iter(range(10_000_000))
    tls.deadline = Deadline(50.0, lambda: float(next(ticks)))
    with pytest.raises(TimeoutError):
        tls.do_handshake()


def test_nothing_is_sent_or_read_after_the_deadline(trust: TlsContexts) -> None:
    tls, tunnel = opened(trust)
    before = tls.bytes_sent
    tunnel.target.write(b"the answer")
    tls.deadline = Deadline(0)
    for call in (lambda: tls.send(b"x"), lambda: tls.sendall(b"x"), lambda: tls.recv(1), tls.do_handshake):
        with pytest.raises(TimeoutError):
            call()
    assert tls.bytes_sent == before


@pytest.mark.parametrize(("name", "code"), [("elsewhere.example", 62), ("10.0.0.1", 64)])
def test_a_certificate_for_another_host_is_refused_with_an_alert(trust: TlsContexts, name: str, code: int) -> None:
    tunnel = Tunnel(server_context())
    tls = TlsSocket(cast("DeadlineSocket", tunnel), trust.context(True), name, ragged_ends=False)
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        tls.do_handshake()
    assert caught.value.verify_code == code
    with pytest.raises(ssl.SSLError, match="ALERT"):
        tunnel.target.do_handshake()


def test_another_protocol_than_tls_is_an_ssl_error(trust: TlsContexts) -> None:
    tls, tunnel = opened(trust)
    tunnel._from_target.read()
    tunnel._from_target.write(b"HTTP/1.1 200 OK\r\n\r\n" * 10)
    with pytest.raises(ssl.SSLError):
        tls.recv(100)


# --- a client certificate that is wanted ---


def asked(
    trust: TlsContexts, version: ssl.TLSVersion, verify: ssl.VerifyMode, *, shows_certificate: bool = False
) -> tuple[TlsSocket, Tunnel]:
    """A session in which the target asked for a client certificate and got none, unless the session is told otherwise."""
    context = server_context(oldest=version, newest=version, client_authority=ca_pem())
    context.verify_mode = verify
    tunnel = Tunnel(context)
    below = cast("DeadlineSocket", tunnel)
    tls = TlsSocket(below, trust.context(True), "localhost", ragged_ends=False, shows_certificate=shows_certificate)
    tls.do_handshake()
    return tls, tunnel


def test_an_alert_received_while_sending_is_taken_for_a_missing_client_certificate(trust: TlsContexts) -> None:
    """In TLS 1.3 the alert arrives after the handshake."""
    tls, tunnel = asked(trust, ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN"):
        tunnel.target.do_handshake()
    with pytest.raises(ClientCertificateWanted) as found:
        tls.decrypt(tunnel._from_target.read())
    assert found.value.required


def test_an_alert_about_the_certificate_that_was_shown_is_kept(trust: TlsContexts) -> None:
    tls, tunnel = asked(trust, ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED, shows_certificate=True)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN"):
        tunnel.target.do_handshake()
    with pytest.raises(ClientCertificateRefused) as found:
        tls.recv(100)
    assert found.value.alert == "certificate_required"


@pytest.mark.parametrize("how", [ssl.SSLEOFError, ConnectionResetError])
def test_an_end_without_a_word_is_not_about_the_certificate_that_was_shown(trust: TlsContexts, how: type[OSError]) -> None:
    tls, tunnel = asked(trust, ssl.TLSVersion.TLSv1_3, ssl.CERT_OPTIONAL, shows_certificate=True)
    tunnel._shake()
    tunnel.ended, tunnel.error = True, how(1, "ended")
    with pytest.raises(how):
        tls.recv(100)


def test_an_end_soon_after_the_request_may_be_about_the_missing_certificate_and_a_late_one_is_not(
    trust: TlsContexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, kind in ((60.0, ClientCertificateWanted), (0.0, ssl.SSLEOFError)):
        monkeypatch.setattr(tls_socket, "VERDICT_SECONDS", seconds)
        tls, tunnel = asked(trust, ssl.TLSVersion.TLSv1_3, ssl.CERT_OPTIONAL)
        tunnel._shake()
        tls.sendall(b"a request")
        tunnel.ended = True
        with pytest.raises(kind) as found:
            tls.recv(100)
        assert not getattr(found.value, "required", False)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("watching", [False, True])
def test_an_end_is_taken_for_a_missing_client_certificate_only_before_any_data(
    trust: TlsContexts, version: ssl.TLSVersion, watching: bool
) -> None:
    for answer, kind in ((b"", ClientCertificateWanted), (b"an answer", ssl.SSLEOFError)):
        tls, tunnel = asked(trust, version, ssl.CERT_OPTIONAL)
        tunnel._shake()
        if answer:
            tunnel.target.write(answer)
            assert (tls.decrypt(tunnel._from_target.read()) if watching else tls.recv(100)) == answer
        tunnel.ended = True
        with pytest.raises(kind):
            tls.recv(100)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), BrokenPipeError(32, "pipe")])
def test_a_reset_is_taken_for_a_missing_client_certificate_too(trust: TlsContexts, error: OSError) -> None:
    tls, tunnel = asked(trust, ssl.TLSVersion.TLSv1_3, ssl.CERT_OPTIONAL)
    tunnel.error = error
    tunnel._shake()
    tunnel._from_target.read()
    with pytest.raises(ClientCertificateWanted):
        tls.recv(100)


def test_a_passed_deadline_is_not_taken_for_a_missing_client_certificate(trust: TlsContexts) -> None:
    tls, _ = asked(trust, ssl.TLSVersion.TLSv1_3, ssl.CERT_OPTIONAL)
    tls.deadline = Deadline(0)
    with pytest.raises(TimeoutError):
        tls.recv(100)
