"""Faults are diagnosed by their fields: with every message reworded, each diagnosis stays the same.

Real faults, met by `explain`, by a worker's Executor and by calls to the platform.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from relay_agent.cli.checks.route_trace import Walker
from relay_agent.core.clock import Clock, Deadline
from relay_agent.core.errors import Call
from relay_agent.core.failures import Cause
from relay_agent.core.models import HttpRequest
from relay_agent.core.urls import parse_url
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.diagnostics.target_failures import TargetFailures
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.tdp.platform_http import PlatformHttp, unreachable
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.rewording import NONSENSE, reword
from tests.target_certificates import Fault, ca_pem, server_context
from tests.target_proxies import HttpProxy, Refusal, Socks5Proxy
from tests.targets import ByteTarget, closed_port, play, raw, redirect

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
    """What `explain --send` says of each stage, what the page says of the target, and what the platform's legs would be told."""
    dialer = Dialer(TlsContexts(bundle), Resolver())
    proxies = ProxyRouter({} if proxy is None else {"all_proxy": proxy})
    policy, request = Policy(), HttpRequest(parse_url(url))
    walker = Walker(dialer, proxies, roots="ca.pem", policy=policy, connect_seconds=SECONDS)
    watcher = TargetFailures(logs.logger, Clock())
    executor = Executor(Transport(dialer), policy, proxies, Limits(connect_seconds=SECONDS), watcher=watcher)
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
        told = diagnosed(url, proxy, bundle, logs)
        with monkeypatch.context() as patch:
            reword(patch)
            assert diagnosed(url, proxy, bundle, logs) == told
    assert any(isinstance(verdict, Cause) for verdict in told)
    assert not any(isinstance(verdict, Cause) and NONSENSE in verdict.cause for verdict in told)
