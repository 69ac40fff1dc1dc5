"""Why the platform was not reached, from what requests really raises."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from urllib3.exceptions import ProtocolError

from relay_agent.pipelines.failures import Kind, Unreached, trouble_of_error
from relay_agent.pipelines.network_faults import unreached
from tests.sender_side import Platform, serving
from tests.target_certificates import Fault, ca_pem, server_context
from tests.targets import closed_port


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def found(url: str, **options: object) -> Unreached:
    with requests.Session() as session, pytest.raises(requests.RequestException) as caught:
        session.trust_env = False
        session.get(url, **options)  # type: ignore[arg-type]
    return unreached("GET /", caught.value, "platform.example")


def test_what_was_certainly_not_sent_is_distinguished_from_what_may_have_been(silent: int) -> None:
    refused = found(f"http://127.0.0.1:{closed_port()}/", timeout=5)
    assert (refused.kind, refused.code, refused.certain) == (Kind.CONNECT, "ECONNREFUSED", True)
    late = found(f"http://127.0.0.1:{silent}/", timeout=0.1)
    assert (late.kind, late.code, late.certain) == (Kind.READ_TIMEOUT, "ETIMEDOUT", False)
    unknown = found("http://no-such-name.invalid/", timeout=20)
    assert unknown.kind is Kind.CONNECT and unknown.code in ("ENOTFOUND", "EAI_AGAIN") and unknown.certain
    for scheme in ("http", "https"):
        via = f"http://user:canary@127.0.0.1:{closed_port()}"
        proxy = found(f"{scheme}://h.example/", timeout=5, proxies={scheme: via})
        assert (proxy.kind, proxy.code, proxy.certain) == (Kind.PROXY, "ECONNREFUSED", True) and "canary" not in str(proxy)
    assert found("htp://h/").kind is Kind.URL


@pytest.mark.parametrize("ending", ["reset", "close"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_took_the_request_and_lost_the_answer_proves_nothing(scheme: str, ending: str) -> None:
    """urllib3 calls it a fault of the proxy, as if nothing had been sent."""

    def serve() -> None:
        conn, _ = server.accept()
        with conn:
            conn.recv(10_000)
            if scheme == "https":
                conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                with tls().wrap_socket(conn, server_side=True) as wrapped:
                    wrapped.recv(10_000)
                    end(wrapped)
            else:
                end(conn)

    def end(sock: socket.socket) -> None:
        if ending == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        via = f"http://127.0.0.1:{server.getsockname()[1]}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            late = found(f"{scheme}://localhost/", timeout=5, proxies={scheme: via}, verify=False)
        thread.join(5)
    assert (late.kind, late.certain) == (Kind.LOST, False)
    assert not trouble_of_error(late, secure=False).nothing_sent


def test_a_proxy_that_refuses_the_tunnel_proves_that_nothing_was_sent() -> None:
    def serve() -> None:
        conn, _ = server.accept()
        with conn:
            conn.recv(10_000)
            conn.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        refused = found("https://localhost/", timeout=5, proxies={"https": f"http://127.0.0.1:{server.getsockname()[1]}"})
        thread.join(5)
    assert (refused.kind, refused.certain) == (Kind.PROXY, True)


def tls(fault: Fault = "none") -> ssl.SSLContext:
    context = server_context(fault)
    context.sni_callback = None
    return context


@pytest.mark.parametrize("fault", ["unknown_authority", "expired"])
def test_a_certificate_that_is_refused_is_refused_before_anything_is_sent(fault: Fault) -> None:
    with serving(Platform(), tls(fault)) as port:
        refused = found(f"https://127.0.0.1:{port}/", timeout=5)
    assert (refused.kind, refused.certain) == (Kind.TLS, True)


def test_tls_that_fails_after_the_request_was_read_proves_nothing(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(ca_pem())

    def serve() -> None:
        conn, _ = server.accept()
        with tls().wrap_socket(conn, server_side=True) as wrapped:
            wrapped.recv(10_000)
            with socket.socket(fileno=os.dup(wrapped.fileno())) as plain:
                plain.sendall(b"what a broken proxy says in between")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        late = found(f"https://127.0.0.1:{server.getsockname()[1]}/", timeout=5, verify=str(roots))
        thread.join(5)
    assert (late.kind, late.certain) == (Kind.TLS, False)
    assert not trouble_of_error(late, secure=False).nothing_sent


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE])
def test_an_errno_alone_does_not_prove_that_nothing_was_sent(number: int) -> None:
    """The first three also come of an ICMP message while the answer is awaited; urllib3 tells a new connection's by its class."""
    late = unreached("POST /", requests.ConnectionError(ProtocolError("Connection aborted.", OSError(number, "words"))), "h.example")
    assert (late.kind, late.code, late.certain) == (Kind.LOST, errno.errorcode[number], False)


@pytest.mark.parametrize(
    "raw, kind, code, words",
    [
        (b"", Kind.LOST, "ECONNRESET", "closed the connection"),
        (b"nonsense\r\n\r\n", Kind.LOST, "EBADRESPONSE", "not a whole HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Kind.LOST, "EBADRESPONSE", "not a whole HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Kind.LOST, "EBADRESPONSE", "not a whole HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", Kind.DECODING, "EBADRESPONSE", "not a whole HTTP"),
        (None, Kind.READ_TIMEOUT, "ETIMEDOUT", "did not answer in time"),
    ],
)
def test_an_answer_that_breaks_off_is_not_called_out_of_reach(raw: bytes | None, kind: Kind, code: str, words: str) -> None:
    def serve() -> None:
        conn, _ = server.accept()
        with conn:
            conn.recv(10_000)
            conn.sendall(raw if raw is not None else b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            if raw is None:
                done.wait(10)

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        late = found(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=0.3)
        done.set()
        thread.join(5)
    assert (late.kind, late.code) == (kind, code)
    assert words in str(late) and "cannot reach" not in str(late)


def test_the_words_name_the_settings_that_the_caller_has() -> None:
    refused = unreached("context.run_cmd", requests.ConnectionError("x"), "h.example", address="COMMAND_ENDPOINT", proxies="https_proxy")
    assert "check COMMAND_ENDPOINT" in str(refused) and "API_TARGET" not in str(refused)
