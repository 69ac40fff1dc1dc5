"""Faults are diagnosed by their fields: with every message reworded, each diagnosis stays the same.

Real faults, met by `explain`, by a worker's Executor and by calls to the platform.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from relay_agent.cli.checks.route_trace import Walker
from relay_agent.core.clock import Clock, Deadline
from relay_agent.core.errors import Call
from relay_agent.core.failures import Cause, Code, Phase
from relay_agent.core.models import Failure, HttpRequest, HttpResponse
from relay_agent.core.urls import parse_url
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.diagnostics.target_failures import TargetFailures
from relay_agent.pipelines.encoding import Answer
from relay_agent.pipelines.failures import Kind, Trouble, trouble_of_answer
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.tdp.platform_http import PlatformHttp, unreachable
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.transport import conversation
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.digest import Digest
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.host_patterns import parse_hosts
from relay_agent.transport.policy import Policy
from relay_agent.transport.progress import Progress
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.target_settings import CallRules, TargetSettings
from relay_agent.transport.tls import TlsContexts
from tests.contract.relaying import Relay
from tests.rewording import NONSENSE, reword
from tests.target_certificates import Fault, ca_pem, server_context
from tests.target_proxies import HttpProxy, Refusal, Socks5Proxy
from tests.targets import ByteTarget, closed_port, in_turn, play, raw, redirect, reply

SECONDS = 1.0
BEHIND = "lims.lab.example"
Ways = tuple[str, str | None]
"""A URL, and the proxy to it."""
Scene = Callable[[ExitStack], Ways]


def target(*pieces: bytes, then: str = "close", tls: Fault | None = None) -> Scene:
    """A target that says this, and does that."""

    def scene(stack: ExitStack) -> Ways:
        server = stack.enter_context(ByteTarget(server_context(tls) if tls else None))
        server.on("/", raw(*pieces, then=then))
        return server.url("/"), None

    return scene


def proxied(make: Callable[[], AbstractContextManager[HttpProxy | Socks5Proxy]], scheme: str = "https") -> Scene:
    """A URL behind a proxy."""
    return lambda stack: (f"{scheme}://{BEHIND}/", stack.enter_context(make()).url())


def plain_for_tls(stack: ExitStack) -> Ways:
    server = stack.enter_context(ByteTarget())
    return server.url("/").replace("http:", "https:"), None


def redirected_where_nobody_is_called(stack: ExitStack) -> Ways:
    server = stack.enter_context(ByteTarget())
    server.on("/", redirect(302, "http://169.254.169.254/"))
    return server.url("/"), None


def silent(stack: ExitStack, scheme: str = "https") -> Ways:
    """A connection that is taken, and then nothing."""
    server = stack.enter_context(ByteTarget())
    server.on_accept = play(lambda conn: conn.hang())
    return server.url("/").replace("http:", f"{scheme}:"), None


def silent_proxy(stack: ExitStack) -> Ways:
    url, _ = silent(stack, "http")
    return f"https://{BEHIND}/", url.rstrip("/")


SCENES: dict[str, Scene] = {
    "a closed port": lambda _: (f"http://127.0.0.1:{closed_port()}/", None),
    "no such name": lambda _: ("http://lims.lab.invalid/", None),
    "forbidden": lambda _: ("http://169.254.169.254/", None),
    "forbidden after a redirect": redirected_where_nobody_is_called,
    "no TLS": plain_for_tls,
    **{fault: target(tls=fault) for fault in ("expired", "self_signed", "unknown_authority", "wrong_host", "not_yet_valid")},
    "silent in TLS": silent,
    "silent for a request": target(then="hang"),
    "closed without an answer": target(),
    "another protocol": target(b"SSH-2.0-OpenSSH\r\n"),
    "half a body": target(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
    "late with the body": target(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", then="hang"),
    "bad chunks": target(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "a proxy that refuses": proxied(lambda: HttpProxy(refuse=Refusal(403))),
    "a proxy that wants a password": proxied(lambda: HttpProxy(refuse=Refusal(407))),
    "a proxy that wants a password for a plain request": proxied(lambda: HttpProxy(auth=("lab", "x")), "http"),
    "a proxy that is away": lambda _: (f"https://{BEHIND}/", f"http://127.0.0.1:{closed_port()}"),
    "a proxy without a name": lambda _: (f"https://{BEHIND}/", "http://proxy.lab.invalid:3128"),
    "a proxy that is silent": silent_proxy,
    "a proxy for another name": proxied(lambda: HttpProxy(tls=server_context("wrong_host"))),
    "a SOCKS proxy that cannot get there": proxied(lambda: Socks5Proxy(refuse=5), "http"),
    "a SOCKS proxy that refuses": proxied(lambda: Socks5Proxy(refuse=2), "http"),
    "a SOCKS proxy that wants a password": proxied(lambda: Socks5Proxy(auth=("lab", "x")), "http"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "ca.pem"
    path.write_bytes(ca_pem())
    return path


@pytest.fixture
def logs() -> Logs:
    return Logs("error", Redactor(), stream=io.StringIO())


def diagnosed(url: str, proxy: str | None, bundle: Path, logs: Logs) -> list[Cause | str | None]:
    """What `explain --send` shows for each stage, the page for the target, and the causes of the same faults on calls to the platform."""
    dialer = Dialer(TlsContexts(bundle), Resolver())
    proxies = ProxyRouter({} if proxy is None else {"all_proxy": proxy})
    rules, request = CallRules(Policy()), HttpRequest(parse_url(url))
    walker = Walker(dialer, proxies, roots="ca.pem", rules=rules, connect_seconds=SECONDS)
    watcher = TargetFailures(logs.logger, Clock())
    executor = Executor(Transport(dialer), lambda: rules, proxies, Limits(connect_seconds=SECONDS), watcher=watcher)
    found = walker.walk(request, Deadline(SECONDS))
    if found.fault is None:
        walker.send(found, request, executor, Deadline(SECONDS))
    outcome = executor.execute(request, Deadline(SECONDS))
    verdicts: list[Cause | str | None] = [found.code, getattr(outcome, "code", None)]
    for stage in found.stages:
        verdicts += [stage.stage, stage.status, stage.cause]
    verdicts += [problem.cause for problem in watcher.problems()]
    verdicts += _of_the_platform(dialer, proxies, url)
    executor.close()
    return verdicts


def _of_the_platform(dialer: Dialer, proxies: ProxyRouter, url: str) -> list[Cause]:
    http = PlatformHttp(lambda: Transport(dialer), proxies, Policy())
    try:
        http.send("GET", url, (), None, SECONDS)
    except TransportFault as fault:
        return [cause_of(unreachable(call, fault, url)) for call in (Call.CONFIG, Call.SQS_RECEIVE, Call.LOGS_PUT, Call.DOWNLOAD)]
    finally:
        http.close()
    return []


@pytest.mark.parametrize("name", SCENES)
def test_a_fault_is_diagnosed_by_what_it_carries_and_not_by_its_words(
    name: str, bundle: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        url, proxy = SCENES[name](stack)
        reported = diagnosed(url, proxy, bundle, logs)
        with monkeypatch.context() as patch:
            reword(patch)
            assert diagnosed(url, proxy, bundle, logs) == reported
    assert any(isinstance(verdict, Cause) for verdict in reported)
    assert not any(isinstance(verdict, Cause) and NONSENSE in verdict.cause for verdict in reported)


def judged_by_its_words(outcome: Failure) -> Trouble:
    """What the sender's side makes of a failure: the wire carries only its code and its message (PROTOCOL §4)."""
    return trouble_of_answer(Answer("c", "FAILURE", {"code": outcome.code, "message": outcome.message}, sealed=False), secure=False)


# What a sender cannot know from a code and its text: whether the alert of TLS 1.3 came before or after the request.
MAY_HAVE_BEEN_SENT = {"EPROTO", "ECONNRESET"}


@pytest.mark.parametrize("name", SCENES)
def test_the_first_words_of_a_message_agree_with_its_fields(name: str, bundle: Path, logs: Logs) -> None:
    with ExitStack() as stack:
        url, proxy = SCENES[name](stack)
        proxies = ProxyRouter({} if proxy is None else {"all_proxy": proxy})
        rules = CallRules(Policy())
        executor = Executor(Transport(Dialer(TlsContexts(bundle), Resolver())), lambda: rules, proxies, Limits(connect_seconds=SECONDS))
        outcome = executor.execute(HttpRequest(parse_url(url)), Deadline(SECONDS))
        executor.close()
    if not isinstance(outcome, Failure):
        assert name.startswith("a proxy that")  # It answered in the target's place.
        return
    judged, facts = judged_by_its_words(outcome), outcome.facts
    assert facts is not None
    if judged.nothing_sent:
        assert facts.phase is None or not facts.phase.sent
    elif facts.phase is not None and not facts.phase.sent:
        assert outcome.code in MAY_HAVE_BEEN_SENT | {"EPOLICY"}
    if facts.proxy is not None:
        assert judged.kind in (Kind.PROXY, Kind.CONNECT_TIMEOUT)


class SecondTime(Dialer):
    """A dialer that connects once, and from then on fails in a phase before anything is sent."""

    def __init__(self, bundle: Path, fault: Callable[[Exchange], TransportFault]) -> None:
        super().__init__(TlsContexts(bundle), Resolver())
        self._fault = fault
        self._dialed = 0

    def dial(self, exchange: Exchange, progress: Progress | None = None) -> Any:
        self._dialed += 1
        if self._dialed > 1:
            raise self._fault(exchange).during(Phase.CONNECT)
        return super().dial(exchange, progress)


AGAIN = {
    "challenge": raw(b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="r", nonce="n"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'),
    "redirect": raw(b"HTTP/1.1 307 No\r\nLocation: /there\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
}
FAULTS: dict[str, Callable[[Exchange], TransportFault]] = {
    "refused": lambda exchange: TransportFault(Code.ECONNREFUSED, f"connect ECONNREFUSED {exchange.peer}"),
    "late": lambda exchange: TransportFault(Code.ETIMEDOUT, f"{Phase.CONNECT} to {exchange.peer} took longer than 1 s"),
    "no name": lambda exchange: TransportFault(Code.ENOTFOUND, f"getaddrinfo ENOTFOUND {exchange.url.host}"),
    "no route": lambda exchange: TransportFault(Code.EHOSTUNREACH, f"connect EHOSTUNREACH {exchange.peer}"),
    "TLS": lambda exchange: TransportFault(Code.CERT_HAS_EXPIRED, f"TLS {exchange.peer}: certificate has expired"),
    "proxy": lambda _: TransportFault(Code.ECONNREFUSED, "connect ECONNREFUSED").at("http://proxy.lab.example:3128"),
}


def posted(dialer: Dialer, url: str, seconds: float = 5.0) -> Failure | HttpResponse:
    """What comes of a POST whose target may ask for Digest."""
    settings = TargetSettings("table", parse_hosts(["*"]), auth=Digest("agent", SecretStr("x")))
    rules = CallRules(Policy(), (settings,))
    executor = Executor(Transport(dialer), lambda: rules, ProxyRouter({}), Limits(connect_seconds=SECONDS))
    try:
        return executor.execute(HttpRequest(parse_url(url), "POST", body=b"b"), Deadline(seconds))
    finally:
        executor.close()


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("fault", FAULTS)
def test_once_a_target_has_answered_a_request_nobody_is_told_that_nothing_was_sent(bundle: Path, again: str, fault: str) -> None:
    with ByteTarget() as server:
        server.on("/", AGAIN[again])
        outcome = posted(SecondTime(bundle, FAULTS[fault]), server.url("/"))
        assert [request.body for request in server.requests] == [b"b"]
    assert isinstance(outcome, Failure)
    assert outcome.message.startswith(f"after a {again}: ")
    judged = judged_by_its_words(outcome)
    assert not judged.nothing_sent
    assert judged.kind is not Kind.CONNECT_TIMEOUT


CHALLENGED = b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="r", nonce="n"\r\nContent-Length: 1000\r\n\r\nslow'


def test_a_challenge_whose_body_takes_all_the_time_is_a_late_response(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "REPLACEABLE_SECONDS", 3600.0)
    with ByteTarget() as server:
        server.on("/", raw(CHALLENGED, then="hang"))
        outcome = posted(Dialer(TlsContexts(bundle), Resolver()), server.url("/"), SECONDS)
    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.facts and outcome.facts.phase) == (Code.ETIMEDOUT, Phase.BODY)
    judged = judged_by_its_words(outcome)
    assert (judged.kind, judged.nothing_sent) == (Kind.READ_TIMEOUT, False)


def test_a_challenge_whose_body_does_not_come_is_answered_on_a_new_connection(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "CHALLENGE_SECONDS", 3600.0)
    with ByteTarget() as server:
        server.on("/", in_turn(raw(CHALLENGED, then="hang"), reply(200)))
        outcome = posted(Dialer(TlsContexts(bundle), Resolver()), server.url("/"), 20.0)
        assert server.connections == 2
    assert isinstance(outcome, HttpResponse) and outcome.status_code == 200
    outcome.content.close()


@pytest.mark.parametrize("phase", Phase)
def test_the_text_names_the_phase_that_took_too_long(phase: Phase) -> None:
    at = "proxy http://proxy.lab.example:3128: " if phase.of_proxy else ""
    judged = judged_by_its_words(Failure(Code.ETIMEDOUT, f"{at}{phase} took longer than 1 s"))
    assert judged.nothing_sent is not phase.sent


# --- what a sender takes from other words of a message: docs/protocol.md names them ---

HEAD = b"HTTP/1.1 200 OK\r\n"
GZIP = HEAD + b"Content-Encoding: gzip\r\nContent-Length: "
PACKED = gzip.compress(b"packed", mtime=0)
BROKEN = {
    "no status line": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Kind.LOST),
    "a head that is cut": (HEAD + b"Content-Type: text/pl", Kind.BODY),
    "a length that is no number": (HEAD + b"Content-Length: x\r\n\r\n", Kind.HEADER),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", Kind.HEADER),
    "a body that is cut": (HEAD + b"Content-Length: 9\r\n\r\nx", Kind.BODY),
    "chunks that are none": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n", Kind.BODY),
    "a body that is not in its coding": (GZIP + b"2\r\n\r\nno", Kind.DECODING),
    "a coding that is cut": (GZIP + str(len(PACKED) - 4).encode() + b"\r\n\r\n" + PACKED[:-4], Kind.DECODING),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_sender_knows_by_the_message_what_a_direct_call_would_have_failed_with(relay: Relay, name: str) -> None:
    answer, kind = BROKEN[name]
    with ByteTarget() as broken:
        broken.on("/", raw(answer))
        body = relay({"url": broken.url()})
    assert body["code"] == "EBADRESPONSE"
    assert trouble_of_answer(Answer("c", "FAILURE", body), secure=False).kind is kind, body["message"]
