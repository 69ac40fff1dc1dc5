"""Bodies by presigned URL: fetched, uploaded, refused (PROTOCOL §2)."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.core.errors import (
    PayloadFault,
    PayloadRefused,
    PlatformError,
)
from relay_agent.diagnostics import platform_causes
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.tdp.platform_http import PlatformHttp, Stream
from relay_agent.tdp.s3_payloads import Payloads
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.unit.tdp.scenes import Server


@pytest.fixture
def payloads(http: PlatformHttp) -> Payloads:
    return Payloads(http, 1000)


def test_a_download_carries_no_authorization_of_the_agent(server: Server, payloads: Payloads) -> None:
    server.answer(b'{"url":"http://a/"}')
    assert payloads.download(f"{server.url}/b/k?X-Amz-Signature=s%2Fs", 5, b"".join) == b'{"url":"http://a/"}'
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("GET", "/b/k?X-Amz-Signature=s%2Fs")
    assert set(seen.headers) <= {"host", "user-agent", "accept-encoding", "connection"}


@pytest.mark.parametrize("headers", [{}, {"Content_Encoding": "gzip"}])
def test_a_gzip_body_is_unpacked_with_or_without_content_encoding(server: Server, payloads: Payloads, headers: dict[str, str]) -> None:
    server.answer(gzip.compress(b'{"a":1}'), **headers)
    assert payloads.download(server.url, 5, b"".join) == b'{"a":1}'


def test_a_gzip_body_of_several_members_is_whole(server: Server, payloads: Payloads) -> None:
    server.answer(gzip.compress(b'{"a":') + gzip.compress(b"1}"))
    assert payloads.download(server.url, 5, b"".join) == b'{"a":1}'


@pytest.mark.parametrize(
    "body",
    [b"x" * 1001, gzip.compress(b"x" * 1001), gzip.compress(b"x" * 3_000_000)[:900], gzip.compress(b"abc")[:-4], b"\x1f\x8bxxxx"],
    ids=range(5),
)
def test_a_body_too_large_or_damaged_is_refused_permanently(server: Server, payloads: Payloads, body: bytes) -> None:
    server.answer(body)
    with pytest.raises(PayloadRefused):
        payloads.download(server.url, 5, b"".join)


def test_unpacking_a_body_ends_at_the_deadline_of_its_download(monkeypatch: pytest.MonkeyPatch, http: PlatformHttp) -> None:
    """Empty gzip members unpack to nothing, and all pieces are there at once, so no socket checks the deadline."""
    members = [gzip.compress(b"", mtime=0) * 1000] * 800

    @contextlib.contextmanager
    def stream(*_args: object) -> Iterator[Stream]:
        yield Stream(200, (), iter(members))

    monkeypatch.setattr(http, "stream", stream)
    with pytest.raises(PlatformError, match="ETIMEDOUT") as caught:
        Payloads(http, 16_000_000).download("http://s3.example/b", 0.01, b"".join)
    assert not isinstance(caught.value, PayloadRefused)


def test_a_spooled_answer_is_uploaded_as_gzipped_json(server: Server, payloads: Payloads, tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"{}"))
    payloads.upload(f"{server.url}/b/k?X-Amz-Signature=s", path, 5)
    (seen,) = server.seen
    assert (seen.method, seen.body) == ("PUT", path.read_bytes())
    assert (seen.headers["content-type"], seen.headers["content-encoding"]) == ("application/json", "gzip")
    assert set(seen.headers) <= {
        "host",
        "user-agent",
        "accept-encoding",
        "connection",
        "content-type",
        "content-encoding",
        "content-length",
    }


@pytest.mark.parametrize(("status", "headers"), [(200, {"Content_Type": "text/html; charset=utf-8"}), (200, {}), (403, {})])
def test_a_web_page_in_place_of_s3_is_neither_a_body_nor_a_refusal(
    server: Server, payloads: Payloads, tmp_path: Path, status: int, headers: dict[str, str]
) -> None:
    server.answer(b"\n<!DOCTYPE html><html>log in</html>", status, **headers)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"{}"))
    for call in (lambda: payloads.upload(f"{server.url}/b/k", path, 5), lambda: payloads.download(f"{server.url}/b/k", 5, b"".join)):
        with pytest.raises(PlatformError, match="web page") as caught:
            call()
        assert not isinstance(caught.value, PayloadRefused)
        assert cause_of(caught.value) is platform_causes.NOT_S3


@pytest.mark.parametrize(
    ("status", "for_good"), [(403, True), (404, True), (400, True), (408, False), (429, False), (500, False), (503, False), (307, False)]
)
def test_permanent_refusals_of_s3_are_distinguished_from_temporary_ones(
    server: Server, payloads: Payloads, status: int, for_good: bool
) -> None:
    server.answer(b"", status)
    with pytest.raises(PlatformError) as caught:
        payloads.download(f"{server.url}/canary?canary", 5, b"".join)
    assert isinstance(caught.value, PayloadRefused) is for_good
    assert "canary" not in str(caught.value)


def test_an_invalid_presigned_url_is_refused_and_not_repeated(payloads: Payloads) -> None:
    with pytest.raises(PayloadRefused) as caught:
        payloads.download("canary", 5, b"".join)
    assert "canary" not in str(caught.value)


def test_a_presigned_url_to_a_forbidden_host_is_refused_by_name_or_address_before_any_request(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    dialer = Dialer(TlsContexts(), Resolver())
    http = PlatformHttp(lambda: Transport(dialer), ProxyRouter({}), Policy(admin=("127.0.0.1", port)))
    payloads = Payloads(http, 1000)
    spooled = Path(__file__)
    for url in (f"http://127.0.0.1:{port}/", f"http://2130706433:{port}/", "http://169.254.169.254/latest", "http://[::ffff:a9fe:a9fe]/"):
        for call in (lambda url=url: payloads.download(url, 5, b"".join), lambda url=url: payloads.upload(url, spooled, 5)):
            with pytest.raises(PayloadRefused, match="refused by the agent's policy") as caught:
                call()
            assert caught.value.why is PayloadFault.FORBIDDEN
    resolved = f"http://localhost.:{port}/"
    with pytest.raises(PayloadRefused) as caught:
        payloads.download(resolved, 5, b"".join)
    assert caught.value.why is PayloadFault.FORBIDDEN
    assert server.seen == []
    http.close()
