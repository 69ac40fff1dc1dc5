"""The platform's client: shared credentials, the meaning of each REST status, bodies by presigned URL, and the errors of SQS."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay_agent import AGENT_VERSION
from relay_agent.core.clock import Clock
from relay_agent.core.errors import (
    Call,
    CredentialsExpired,
    NotThePlatform,
    PayloadFault,
    PayloadRefused,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    RateLimited,
    UnknownAgent,
)
from relay_agent.core.models import Body, Headers
from relay_agent.diagnostics import local_causes, platform_causes
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.tdp.aws_clients import Aws, platform_error
from relay_agent.tdp.client import PlatformClient
from relay_agent.tdp.credentials import PlatformCredentials
from relay_agent.tdp.platform_http import MAX_ANSWER, Answer, PlatformHttp, Stream
from relay_agent.tdp.rest import AgentConfig, AgentState, Rest, TemporaryCredentials
from relay_agent.tdp.s3_payloads import Payloads
from relay_agent.tdp.sqs import Queue, Received, SendResult
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.examples import examples
from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import HttpProxy
from tests.targets import ByteTarget, closed_port

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = "canary-jwt-5e1b"


# --- a tiny platform over HTTP ---


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """Answers every request with `status`, `headers` and `body`, and records the requests."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    seen: list[Seen] = field(default_factory=list)

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        self.status, self.body = status, body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.seen.append(Seen(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(server.body)))
            self.end_headers()
            self.wfile.write(server.body)

        do_GET = do_POST = do_PUT = serve

        def log_message(self, *_args: object) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(found)) as listening:
        listening.daemon_threads = True
        listening.block_on_close = False
        found.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield found
        listening.shutdown()
        thread.join(5)


@pytest.fixture
def http() -> Iterator[PlatformHttp]:
    dialer = Dialer(TlsContexts(), Resolver())
    made = PlatformHttp(lambda: Transport(dialer), ProxyRouter({}), Policy())
    yield made
    made.close()


@pytest.fixture
def rest(server: Server, http: PlatformHttp) -> Rest:
    return Rest(http, server.url, "org", "agent-1", lambda: TOKEN, Clock(now=lambda: NOW))


# --- PROTOCOL §1 ---


def test_every_call_to_the_rest_api_has_15_s_in_all(server: Server) -> None:
    class Noting(PlatformHttp):
        limits: ClassVar[list[float]] = []

        def send(self, method: str, url: str, headers: Headers, body: Body | None, seconds: float, max_bytes: int = MAX_ANSWER) -> Answer:
            self.limits.append(seconds)
            return super().send(method, url, headers, body, seconds, max_bytes)

    http = Noting(lambda: Transport(Dialer(TlsContexts(), Resolver())), ProxyRouter({}), Policy())
    rest = Rest(http, server.url, "org", "agent-1", lambda: TOKEN, Clock(now=lambda: NOW))
    rest.heartbeat()
    rest.agent()
    assert http.limits == [15.0, 15.0]
    http.close()


def test_every_call_carries_the_token_and_the_organisation(server: Server, rest: Rest) -> None:
    for call in (rest.heartbeat, rest.agent, lambda: rest.report("STARTED"), lambda: rest.log(b"x"), lambda: rest.system_metrics(b"x")):
        call()
    assert {(seen.headers["ts-auth-token"], seen.headers["x-org-slug"]) for seen in server.seen} == {(TOKEN, "org")}


def test_the_calls_have_the_protocols_methods_paths_and_bodies(server: Server, rest: Rest) -> None:
    who = {"agentId": "agent-1", "agentVersion": AGENT_VERSION}
    rest.heartbeat()
    rest.report("STOPPED")
    rest.agent()
    heartbeat, report, agent = server.seen
    kind = "TetraScience.Agent.user-defined"
    assert (heartbeat.method, heartbeat.path, heartbeat.json()) == ("POST", "/v1/data-acquisition/agent/status", {**who, "agent": kind})
    assert (report.method, report.path, report.json()) == ("PUT", heartbeat.path, {**who, "agent": kind, "statusSetting": "STOPPED"})
    assert (agent.method, agent.path, agent.body) == ("GET", "/v1/agents/agent-1", b"")
    assert AGENT_VERSION.startswith("v")


@pytest.mark.parametrize(("call", "name"), [("system_metrics", "systemmetric"), ("log", "log")])
def test_metrics_and_logs_are_uploaded_as_a_file_in_a_form(server: Server, rest: Rest, call: str, name: str) -> None:
    getattr(rest, call)(b'{"a":1}\n')
    (seen,) = server.seen
    parsed = message_from_bytes(f"Content-Type: {seen.headers['content-type']}\r\n\r\n".encode() + seen.body, policy=policy.HTTP)
    parts = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parsed.iter_parts()}
    assert parts == {"agentId": b"agent-1", "agentVersion": AGENT_VERSION.encode(), name: b'{"a":1}\n'}
    assert seen.path == f"/v1/data-acquisition/agent/{name}"


def test_the_configuration_is_read(server: Server, rest: Rest) -> None:
    server.answer(
        {"agentName": "A", "region": "r", "logGroupName": "g", "rpcSourceQueueUrl": "https://in", "rpcPlatformQueueUrl": "https://out"}
    )
    assert rest.config() == AgentConfig("A", "r", "g", "https://in", "https://out")
    server.answer({"region": "r", "rpcSourceQueueUrl": None, "logGroupName": ""})
    assert rest.config() == AgentConfig("agent-1", "r", None, None, None)
    server.answer({"agentName": "A"})
    with pytest.raises(PlatformError, match="region"):
        rest.config()


@pytest.mark.parametrize("region", ["x.evil.example/", "us east", "R", "a" * 64, "us-east-1\n"])
def test_an_invalid_region_is_rejected(server: Server, rest: Rest, region: str) -> None:
    server.answer({"agentName": "A", "region": region})
    with pytest.raises(NotThePlatform):
        rest.config()


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+14:00"])
def test_credentials_that_expire_at_a_limit_of_the_calendar_are_accepted(server: Server, rest: Rest, end: str) -> None:
    server.answer({"AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c", "Expiration": end})
    credentials = PlatformCredentials(rest.credentials, Clock(now=lambda: NOW), lambda *_: None)
    credentials.renew(None)
    assert credentials.due_seconds() > 0


@pytest.mark.parametrize("date", ["x" * 100_000, "Sun, 31 Dec 9999 23:59:59 -2300", "Mon, 01 Jan 0001 00:00:00 +2300", "1", ",,,,", "\xb2"])
def test_an_invalid_date_field_does_not_fail_the_call(server: Server, rest: Rest, date: str) -> None:
    server.answer({}, Date=date)
    rest.heartbeat()


def test_whether_agent_and_queue_are_enabled_is_read_or_unknown(server: Server, rest: Rest) -> None:
    server.answer({"isEnabled": False, "queue": {"enabled": True}})
    assert rest.agent() == AgentState(False, True)
    server.answer({"isEnabled": "no", "queue": None})
    assert rest.agent() == AgentState(None, None)


def test_a_token_that_may_not_ask_whether_the_agent_is_enabled_gets_its_configuration() -> None:
    class Refusing(PlatformHttp):
        def send(self, method: str, url: str, headers: Headers, body: Body | None, seconds: float, max_bytes: int = MAX_ANSWER) -> Answer:
            answer = {"agentName": "a", "region": "eu-west-1", "rpcSourceQueueUrl": "https://in", "rpcPlatformQueueUrl": "https://out"}
            return Answer(403, (), b"") if method == "GET" else Answer(200, (), json.dumps(answer).encode())

    client = PlatformClient(
        Refusing(lambda: Transport(Dialer(TlsContexts(), Resolver())), ProxyRouter({}), Policy()),
        api_target="http://platform.example",
        org_slug="org",
        agent_id="agent-1",
        token=lambda: TOKEN,
        endpoint_url=None,
        max_body_bytes=1000,
        clock=Clock(now=lambda: NOW),
        seen_secrets=lambda _key, _secret: None,
    )
    assert client.refresh_config()
    assert client.inbound().url == "https://in"


def test_credentials_are_read_and_never_shown(server: Server, rest: Rest) -> None:
    given = {"AccessKeyId": "AKIA-canary", "SecretAccessKey": "canary", "SessionToken": "canary", "Expiration": "2026-03-01T13:00:00"}
    server.answer(given)
    found = rest.credentials()
    assert (found.access_key, found.secret_key, found.token) == ("AKIA-canary", "canary", "canary")
    assert found.expiration == NOW + timedelta(hours=1)
    assert "canary" not in repr(found)
    texts = ["a\nb", "a\r\nX-Evil: 1", "\ud800", "\u00e9", "a b", "x" * 10_000, 5]
    wrong = [{name: text} for name in ("AccessKeyId", "SecretAccessKey", "SessionToken") for text in texts]
    for broken in ({"Expiration": "soon"}, {"Expiration": None}, {"SecretAccessKey": None}, *wrong):
        server.answer(given | broken)
        with pytest.raises(PlatformError) as caught:
            rest.credentials()
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, PlatformRefused),
        (403, PlatformRefused),
        (404, UnknownAgent),
        (429, RateLimited),
        (500, PlatformError),
        (302, NotThePlatform),
        (400, PlatformError),
    ],
)
def test_each_status_has_its_own_error_without_secrets(server: Server, rest: Rest, status: int, kind: type[PlatformError]) -> None:
    server.answer({"statusCode": status, "message": f"token {TOKEN}"}, status)
    with pytest.raises(PlatformError) as caught:
        rest.heartbeat()
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.call) == (status, "agent/status")
    assert TOKEN not in str(caught.value) + repr(caught.value)


def test_a_proxy_that_requires_a_login_is_named_without_its_password_for_plain_http_too() -> None:
    dialer = Dialer(TlsContexts(), Resolver())
    with HttpProxy(auth=("lab", "right")) as proxy:
        http = PlatformHttp(lambda: Transport(dialer), ProxyRouter({"http_proxy": proxy.url(("lab", "canary-wrong"))}), Policy())
        rest = Rest(http, "http://api.lab.example", "org", "agent-1", lambda: TOKEN, Clock(now=lambda: NOW))
        with pytest.raises(PlatformUnreachable) as caught:
            rest.heartbeat()
        http.close()
    told = cause_of(caught.value).cause
    assert told.startswith(f"the proxy http://lab:***@127.0.0.1:{proxy.port}, not the platform, answered 407")
    assert "canary" not in f"{caught.value}{told}"


@pytest.mark.parametrize(
    ("fault", "says", "cure"),
    [
        ("unknown_authority", "was issued by OU=Testing CA", "RELAY_CA_FILE"),
        ("self_signed", "is self-signed (CN=a device that signed itself)", "RELAY_CA_FILE"),
        ("wrong_host", "is valid for other names only: elsewhere.lab.example", "API_TARGET"),
        ("expired", "has expired on 20", local_causes.CLOCK_OFF.cure),
        ("not_yet_valid", "is not valid yet (it is valid from 20", local_causes.CLOCK_OFF.cure),
    ],
)
def test_a_rejected_certificate_is_described_in_the_error_and_fetched_once(tmp_path: Path, fault: Any, says: str, cure: str) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(ca_pem())
    dialer = Dialer(TlsContexts(None if fault == "unknown_authority" else bundle, description="these"), Resolver())
    with ByteTarget(server_context(fault)) as target:
        http = PlatformHttp(lambda: Transport(dialer), ProxyRouter({}), Policy())
        rest = Rest(http, target.url(""), "org", "agent-1", lambda: TOKEN, Clock(now=lambda: NOW))
        for _ in range(3):
            with pytest.raises(PlatformUnreachable) as caught:
                rest.heartbeat()
            told = cause_of(caught.value)
            assert says in told.cause
            assert cure in told.cure
        http.close()
        assert target.requests == []
        assert target.connections == 4


@pytest.mark.parametrize("status", [401, 403])
def test_a_block_page_is_not_a_refusal_by_the_platform(server: Server, rest: Rest, status: int) -> None:
    for page in (b"<!DOCTYPE html><title>Blocked by the firewall</title>", b"\n<HTML><body>Access denied</body></HTML>"):
        server.answer(page, status)
        with pytest.raises(NotThePlatform, match="web page") as caught:
            rest.heartbeat()
        assert cause_of(caught.value) is platform_causes.NOT_THE_PLATFORM
        assert "block page" in platform_causes.NOT_THE_PLATFORM.cure
    for refusal in (b"", b'{"message": "no"}', b"Unauthorized"):
        server.answer(refusal, status)
        with pytest.raises(PlatformRefused):
            rest.heartbeat()


@pytest.mark.parametrize(
    "body", [b"<html>proxy login</html>", b"[]", b"\xff", b"[" * 100_000, b'{"region":[' + b"[]," * 1_000_000 + b"0]}"]
)
def test_an_answer_that_is_not_a_json_object_is_not_the_platforms(server: Server, rest: Rest, body: bytes) -> None:
    server.answer(body)
    with pytest.raises(PlatformError, match="not a JSON object"):
        rest.config()


def test_a_platform_that_cannot_be_reached_is_a_platform_error_without_status(http: PlatformHttp) -> None:
    rest = Rest(http, "http://nowhere.invalid", "org", "agent-1", lambda: TOKEN, Clock())
    with pytest.raises(PlatformError, match="ENOTFOUND") as caught:
        rest.heartbeat()
    assert caught.value.status is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0.0),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("100000", 60.0),
        ("9" * 400, 60.0),
        (email.utils.format_datetime(NOW + timedelta(seconds=90), usegmt=True), 60.0),
        (email.utils.format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        (email.utils.format_datetime(NOW + timedelta(days=90), usegmt=True), 60.0),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("1e3", 0.0),
        ("", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_a_minute(server: Server, rest: Rest, value: str | None, seconds: float) -> None:
    server.answer({}, 429, **({} if value is None else {"Retry_After": value}))
    with pytest.raises(RateLimited) as caught:
        rest.heartbeat()
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("value", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Mon, 01 Jan 2026 00:00:00 +99999999999999"])
def test_a_retry_after_beyond_the_calendar_is_ignored(server: Server, rest: Rest, value: str) -> None:
    server.answer({}, 429, Retry_After=value)
    with pytest.raises(RateLimited):
        rest.heartbeat()


# --- credentials ---


class Source:
    """The source of credentials: each fetch gives new ones, which are valid for `life`."""

    def __init__(self, life: timedelta = timedelta(hours=1)) -> None:
        self.now = NOW
        self.life = life
        self.fetches = 0
        self.gate: Callable[[], None] = lambda: None
        self.fault: PlatformError | None = None
        self.seen: list[tuple[str, str]] = []
        self.credentials = PlatformCredentials(self._fetch, Clock(now=lambda: self.now), lambda key, token: self.seen.append((key, token)))

    def _fetch(self) -> TemporaryCredentials:
        self.fetches += 1
        self.gate()
        if self.fault is not None:
            raise self.fault
        return TemporaryCredentials(f"key-{self.fetches}", f"secret-{self.fetches}", f"token-{self.fetches}", self.now + self.life)


def test_credentials_are_due_ten_minutes_before_they_expire() -> None:
    source = Source()
    assert source.credentials.due_seconds() == 0
    source.credentials.renew(None)
    assert source.credentials.due_seconds() == 50 * 60
    assert source.credentials.expiration == NOW + timedelta(hours=1)
    source.now += timedelta(minutes=50)
    assert source.credentials.due_seconds() == 0


def test_short_lived_credentials_are_due_a_fifth_of_their_lifetime_before_they_expire() -> None:
    source = Source(timedelta(seconds=60))
    source.credentials.renew(None)
    assert source.credentials.due_seconds() == 48


def test_signing_uses_the_current_credentials_and_fetches_only_once() -> None:
    source = Source()
    for _ in range(3):
        frozen = source.credentials.get_frozen_credentials()
        assert (frozen.access_key, frozen.secret_key, frozen.token) == ("key-1", "secret-1", "token-1")
    source.credentials.renew("key-1")
    assert source.credentials.get_frozen_credentials().access_key == "key-2"
    assert source.fetches == 2


def test_a_secret_is_passed_to_the_redactor_before_it_is_used() -> None:
    source = Source()
    source.credentials.renew(None)
    assert source.seen == [("secret-1", "token-1")]


def test_credentials_refused_long_ago_are_not_renewed_again() -> None:
    source = Source()
    source.credentials.renew(None)
    source.credentials.renew("key-1")
    assert source.credentials.renew("key-1").access_key == "key-2"
    assert source.fetches == 2


def test_many_threads_whose_credentials_are_refused_fetch_once() -> None:
    source = Source()
    source.credentials.renew(None)
    used, entered, go = source.credentials.access_key_in_use, threading.Event(), threading.Event()

    def gate() -> None:
        entered.set()
        assert go.wait(10)

    source.gate = gate
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(source.credentials.renew(used).access_key)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    assert source.credentials.get_frozen_credentials().access_key == "key-1"
    go.set()
    for thread in threads:
        thread.join(10)
    assert (found, source.fetches) == (["key-2"] * 8, 2)


def test_a_failed_renewal_keeps_the_old_credentials() -> None:
    source = Source()
    source.credentials.renew(None)
    source.fault = PlatformError(Call.CREDENTIALS, "answered 500", 500)
    with pytest.raises(PlatformError):
        source.credentials.renew("key-1")
    assert source.credentials.get_frozen_credentials().access_key == "key-1"
    source.fault = None
    assert source.credentials.renew("key-1").access_key == "key-3"


# --- bodies by presigned URL ---


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
    [b"x" * 1001, gzip.compress(b"x" * 1001), gzip.compress(b"x" * 30_000_000)[:900], gzip.compress(b"abc")[:-4], b"\x1f\x8bxxxx"],
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


# --- queues ---


def aws_error(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "canary"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "X")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ExpiredToken", CredentialsExpired),
        ("InvalidClientTokenId", CredentialsExpired),
        ("AWS.SimpleQueueService.NonExistentQueue", QueueUnavailable),
        ("com.amazonaws.sqs#QueueDoesNotExist", QueueUnavailable),
        ("AccessDenied", QueueUnavailable),
        ("SignatureDoesNotMatch", PlatformRefused),
        ("RequestTimeTooSkewed", PlatformRefused),
        ("ThrottlingException", RateLimited),
        ("RequestThrottled", RateLimited),
        ("InternalError", PlatformError),
    ],
)
def test_an_aws_error_becomes_a_platform_error_without_awss_text(code: str, kind: type[PlatformError]) -> None:
    error = platform_error(Call.SQS_RECEIVE, aws_error(code))
    assert type(error) is kind
    assert "canary" not in str(error)


def test_an_overlong_error_code_is_truncated() -> None:
    assert len(str(platform_error(Call.SQS_RECEIVE, aws_error("A" * 1_000_000)))) < 200


@pytest.mark.parametrize(
    ("off", "told"),
    [(600, "(599|600) s behind"), (-600, "(600|601) s ahead of"), (5, "refuses the signature"), (None, "refuses the signature")],
)
def test_a_rejected_signature_gives_the_clock_offset_in_the_words_of_check(off: float | None, told: str) -> None:
    error = aws_error("RequestTimeTooSkewed", 403)
    if off is not None:
        date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=off), usegmt=True)
        error.response["ResponseMetadata"]["HTTPHeaders"] = {"date": date}
    cause = cause_of(platform_error(Call.SQS_RECEIVE, error))
    assert cause.id == "clock"
    assert re.search(told, cause.cause)
    assert cause.cure.startswith(local_causes.CLOCK_OFF.cure)


class Sqs:
    """Replaces botocore's client: returns or raises its answers in order."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def _answer(self, **request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    receive_message = delete_message_batch = send_message_batch = _answer


def test_calls_to_sqs_go_through_the_platforms_proxy_signed_for_the_agents_region(server: Server) -> None:
    credentials = Source().credentials
    with HttpProxy() as proxy:
        http = PlatformHttp(
            lambda: Transport(Dialer(TlsContexts(), Resolver())), ProxyRouter({}, "", {Leg.PLATFORM: proxy.url()}), Policy()
        )
        sqs = Aws(http, credentials, server.url).client("sqs", "eu-west-1")
        assert Queue(sqs, "https://sqs.eu-west-1.amazonaws.com/1/q", credentials, endpoint=server.url).receive(1) == []
        (seen,) = proxy.seen
        assert "/eu-west-1/sqs/aws4_request" in (seen.get("Authorization") or "")
        http.close()


def test_a_connection_error_to_the_queue_names_the_host_that_was_called_in_the_words_of_check(http: PlatformHttp) -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    credentials = Source().credentials
    sqs = Aws(http, credentials, endpoint).client("sqs", "eu-west-1")
    with pytest.raises(PlatformUnreachable) as caught:
        Queue(sqs, "https://sqs.eu-west-1.amazonaws.com/1/q", credentials, endpoint=endpoint).receive(1)
    told = cause_of(caught.value)
    assert told.cause.startswith(f"127.0.0.1 refuses connections on port {endpoint.rpartition(':')[2]}")
    assert f"AWS_ENDPOINT_URL is set, so calls to AWS go to {endpoint}" in told.cause
    assert "remove AWS_ENDPOINT_URL" in told.cure


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("1"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["MessageId", "Body", "ReceiptHandle", "Id", "Code", "SenderFault", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    named=st.dictionaries(st.sampled_from(["Messages", "Successful", "Failed", "__type", "message"]), ANY_JSON),
    status=st.sampled_from([200, 400]),
)
def test_any_answer_in_place_of_sqs_gives_messages_or_a_platform_error(
    server: Server, http: PlatformHttp, named: dict[str, Any], status: int
) -> None:
    credentials = Source().credentials
    queue = Queue(_client(http, server.url), "https://sqs.eu-west-1.amazonaws.com/1/q", credentials, endpoint=server.url)
    server.answer(named, status)
    with contextlib.suppress(PlatformError):
        assert all(isinstance(one.body, str) and isinstance(one.receipt, str) for one in queue.receive(10))
    with contextlib.suppress(PlatformError):
        assert set(queue.delete(["r0", "r1"])) <= {0, 1}
    with contextlib.suppress(PlatformError):
        result = queue.send(["a", "b"])
        assert sorted([*result.sent, *(place for place, _, _ in result.failed)]) == [0, 1]


def test_an_answer_of_millions_of_values_in_place_of_sqs_is_not_parsed(server: Server, http: PlatformHttp) -> None:
    queue = Queue(_client(http, server.url), "https://sqs.eu-west-1.amazonaws.com/1/q", Source().credentials, endpoint=server.url)
    server.answer(b'{"Messages":[' + b"[]," * 3_000_000 + b"0]}")
    with pytest.raises(PlatformError, match="more than 100,000"):
        queue.receive(10)


@functools.cache
def _client(http: PlatformHttp, url: str) -> Any:
    return Aws(http, Source().credentials, url).client("sqs", "eu-west-1")


def test_an_invalid_message_does_not_block_others() -> None:
    good = {"MessageId": "m", "Body": "b", "ReceiptHandle": "r"}
    sqs = Sqs({"Messages": [{}, None, {"ReceiptHandle": "no body"}, good | {"Body": 5}, {"Body": "no receipt"}, good]})
    received = Queue(sqs, "https://in", Source().credentials).receive(10)
    assert [(message.receipt, message.body) for message in received] == [("no body", ""), ("r", ""), ("r", "b")]


def test_credentials_are_renewed_within_an_hour_whatever_expiration_they_name() -> None:
    source = Source()
    source.life = timedelta(days=3000)
    source.credentials.renew(None)
    assert source.credentials.due_seconds() == 50 * 60


def test_at_most_ten_messages_are_received(server: Server) -> None:
    sqs = Sqs({"Messages": [{"MessageId": "m", "Body": "b", "ReceiptHandle": "r"}]}, {})
    queue = Queue(sqs, "https://in", Source().credentials)
    assert queue.receive(50) == [Received("m", "b", "r")]
    assert queue.receive(3) == []
    assert [asked["MaxNumberOfMessages"] for asked in sqs.asked] == [10, 3]
    assert sqs.asked[0]["WaitTimeSeconds"] == 20


def test_sent_and_failed_messages_are_reported_by_index() -> None:
    sqs = Sqs(
        {"Successful": [{"Id": "2"}, {"Id": "0"}], "Failed": [{"Id": "1", "Code": "InvalidMessageContents", "SenderFault": True}]},
        {"Successful": [{"Id": "0"}], "Failed": [{"Id": "1"}]},
        {},
        {},
    )
    queue = Queue(sqs, "https://out", Source().credentials)
    assert queue.send(["a", "b", "c"]) == SendResult((0, 2), ((1, "InvalidMessageContents", True),))
    assert queue.delete(["r0", "r1"]) == [1]
    assert [entry["MessageBody"] for entry in sqs.asked[0]["Entries"]] == ["a", "b", "c"]
    # What an answer does not confirm counts as not done.
    assert queue.send(["a"]) == SendResult((), ((0, "Unconfirmed", False),))
    assert queue.delete(["r0"]) == [0]


def test_expired_credentials_are_renewed_at_once_and_the_call_is_repeated_once() -> None:
    source = Source()
    source.credentials.renew(None)
    assert Queue(Sqs(aws_error("ExpiredToken"), {}), "https://in", source.credentials).receive(1) == []
    assert source.fetches == 2
    sqs = Sqs(aws_error("ExpiredToken"), aws_error("ExpiredToken"))
    with pytest.raises(CredentialsExpired):
        Queue(sqs, "https://in", source.credentials).receive(1)
    assert len(sqs.asked) == 2
