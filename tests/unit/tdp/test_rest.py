"""The REST calls: what each sends, what each status and body means (PROTOCOL §1)."""

from __future__ import annotations

import email.utils
from datetime import timedelta
from email import message_from_bytes, policy
from typing import ClassVar

import pytest

from relay_agent import AGENT_VERSION
from relay_agent.core.clock import Clock
from relay_agent.core.errors import (
    NotThePlatform,
    PlatformError,
    PlatformRefused,
    RateLimited,
    UnknownAgent,
)
from relay_agent.core.models import Body, Headers
from relay_agent.diagnostics import platform_causes
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.tdp.credentials import PlatformCredentials
from relay_agent.tdp.platform_http import MAX_ANSWER, Answer, PlatformHttp
from relay_agent.tdp.rest import AgentConfig, AgentIdentity, AgentState, Rest
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.unit.tdp.scenes import NOW, TOKEN, Server


def test_every_call_to_the_rest_api_has_15_s_in_all(server: Server) -> None:
    class Noting(PlatformHttp):
        limits: ClassVar[list[float]] = []

        def send(self, method: str, url: str, headers: Headers, body: Body | None, seconds: float, max_bytes: int = MAX_ANSWER) -> Answer:
            self.limits.append(seconds)
            return super().send(method, url, headers, body, seconds, max_bytes)

    http = Noting(lambda: Transport(Dialer(TlsContexts(), Resolver())), ProxyRouter({}), Policy())
    rest = Rest(http, AgentIdentity(server.url, "org", "agent-1", lambda: TOKEN), Clock(now=lambda: NOW))
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


def test_half_of_a_surrogate_pair_in_the_configuration_is_replaced(server: Server, rest: Rest) -> None:
    server.answer({"agentName": "A\ud800", "region": "r", "logGroupName": "\udc00", "rpcSourceQueueUrl": "https://in/\ud83d"})
    found = rest.config()
    assert (found.agent_name, found.log_group, found.source_queue) == ("A?", "?", "https://in/?")


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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_the_platform_is_not_followed(server: Server, rest: Rest, status: int) -> None:
    """The token would go along."""
    server.answer({}, status, Location=f"{server.url}/elsewhere")
    for call in (rest.heartbeat, rest.agent):
        with pytest.raises(NotThePlatform):
            call()
    assert [seen.path for seen in server.seen] == ["/v1/data-acquisition/agent/status", "/v1/agents/agent-1"]


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
