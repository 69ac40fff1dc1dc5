"""The checks of the platform: whether it can be reached and accepts the agent, and the agent's state, queues and logs.

Owns which calls are made, and what the answers mean for an agent. It must not report a status, receive or delete a message, or write a
log line. Causes and cures are in `platform_causes`.

Threads: each check runs on its own thread, after those that it waits for; `PlatformFacts` passes on what they found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from relay_agent.cli.checks.result import Check, error, ok, warning, warnings
from relay_agent.config.network import proxy_router, tls_contexts
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Clock, clock_offset
from relay_agent.core.errors import (
    Call,
    NotThePlatform,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    UnknownAgent,
)
from relay_agent.core.failures import CERTIFICATE_CODES, Code
from relay_agent.core.loop import call_in_thread
from relay_agent.core.models import CertificateRole, Headers
from relay_agent.core.urls import parse_url
from relay_agent.diagnostics import local_causes, platform_causes
from relay_agent.diagnostics.certificates import ending
from relay_agent.diagnostics.peer_certificates import PeerCertificates
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.tdp.aws_clients import Aws
from relay_agent.tdp.cloudwatch_logs import LogsClient
from relay_agent.tdp.credentials import PlatformCredentials
from relay_agent.tdp.platform_http import Answer, PlatformHttp
from relay_agent.tdp.rest import AgentConfig, AgentIdentity, AgentState, Rest
from relay_agent.tdp.sqs import Queue
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport

SLOW_SECONDS = 2.0
CLOCK_WARNING_SECONDS = local_causes.CLOCK_SECONDS
CLOCK_ERROR_SECONDS = 300.0
USER_DEFINED = "user-defined"
_STAGES = {
    Code.ENOTFOUND: "name",
    Code.EAI_AGAIN: "name",
    **dict.fromkeys(CERTIFICATE_CODES, "TLS"),
    Code.EPROTO: "TLS",
    Code.EBADRESPONSE: "HTTP",
}


@dataclass
class PlatformFacts:
    """What one check found and another needs; written before the checks that wait for it begin."""

    state: AgentState | None = None
    refusal: PlatformError | None = None
    clock_off: float | None = None
    config: AgentConfig | None = None
    credentials: PlatformCredentials | None = None


class _BoundHttp(PlatformHttp):
    """The platform's HTTP client, with a time limit for each call; it measures the clock's offset from the last answer."""

    def __init__(self, make_transport: Callable[[], Transport], proxies: ProxyRouter, policy: Policy, seconds: float, clock: Clock) -> None:
        super().__init__(make_transport, proxies, policy)
        self._seconds = seconds
        self._clock = clock
        self.clock_off: float | None = None
        """Seconds by which this machine's clock is ahead of the answer's `Date`; None if the answer had none."""

    def send(self, method: str, url: str, headers: Headers, body: Any, seconds: float, max_bytes: int = 1024 * 1024) -> Answer:
        """Send, within the limit."""
        asked = self._clock.now()
        answer = super().send(method, url, headers, body, min(seconds, self._seconds), max_bytes)
        off = clock_offset(answer.header("date"), asked, self._clock.now())
        if off is not None:
            self.clock_off = off
        return answer


class PlatformChecks:
    """The checks of one platform. Each call may take `seconds`; each of the two calls for credentials, half of that."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        seconds: float = 8.0,
        seen_secrets: Callable[[str, str], None] = lambda _key, _token: None,
    ) -> None:
        """`seen_secrets` is called with the temporary credentials before they are used."""
        self._settings = settings
        self._clock = clock or Clock()
        self._seconds = seconds
        self._seen_secrets = seen_secrets
        self._proxies = proxy_router(settings)
        self._peers = PeerCertificates(time.monotonic)
        self._dialer = Dialer(tls_contexts(settings), Resolver(), self._peers.leg(CertificateRole.PLATFORM))
        self._facts = PlatformFacts()

    def platform(self) -> Check:
        """Get the agent's record, the one call that even a disabled agent may make; other checks judge what it says."""
        began = time.monotonic()
        with closing(self._http()) as http:
            try:
                self._facts.state = _known(self._rest(http).agent())
            except PlatformUnreachable as problem:
                return self._unreachable(problem)
            except PlatformError as problem:
                if not _is_judgement(problem):
                    return self._unwell(problem)
                self._facts.refusal = problem
            finally:
                self._facts.clock_off = http.clock_off
        seconds = time.monotonic() - began
        found = [(problem.cause, problem.reason) for problem in ending(self._peers.in_use(), self._clock.now())]
        if seconds > SLOW_SECONDS:
            found.insert(0, (platform_causes.SLOW.about(seconds=f"{seconds:.1f}"), f"it answered after {seconds:.1f} s"))
        return warnings("platform", found, f"{self._where()}: ") if found else ok("platform", f"{self._where()} answers")

    def clock(self) -> Check:
        """Compare this machine's clock with the platform's."""
        off = self._facts.clock_off
        if off is None:
            return ok("clock", "not compared, since the platform's answer has no Date")
        summary = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the platform's"
        cause = local_causes.clock_off(off)
        if abs(off) > CLOCK_ERROR_SECONDS:
            return error(cause, summary)
        if abs(off) > CLOCK_WARNING_SECONDS:
            return warning(cause, summary)
        return ok("clock", "agrees with the platform's")

    def access(self) -> Check:
        """Check whether the platform accepts token and organisation."""
        refusal = self._facts.refusal
        if not isinstance(refusal, PlatformRefused):
            return ok("access", f"the platform accepts JWT and ORG_SLUG {self._settings.org_slug}")
        return error(cause_of(refusal), f"the platform {refusal.reason}", "access")

    def agent(self) -> Check:
        """Check whether the agent is known and user-defined."""
        agent_id, state = self._settings.agent_id, self._facts.state
        if self._facts.refusal is not None or state is None:
            refusal = self._facts.refusal or UnknownAgent(Call.AGENTS, "answered without a description of the agent")
            return error(cause_of(refusal), f"AGENT_ID {agent_id}: the platform {refusal.reason}", "agent")
        if state.kind is not None and state.kind != USER_DEFINED:
            return error(platform_causes.NOT_USER_DEFINED.about(kind=state.kind[:40]), f"AGENT_ID {agent_id} is of type {state.kind[:40]}")
        return ok("agent", f"AGENT_ID {agent_id} is known")

    def enabled(self) -> Check:
        """Check whether the agent's connection is enabled."""
        state = self._facts.state
        if state is not None and state.enabled is False:
            return error(platform_causes.AGENT_DISABLED, "the agent is disabled")
        return ok("enabled", "the agent is enabled" if state is not None and state.enabled else "the platform does not report it")

    def queue(self) -> Check:
        """Check whether the agent's queue is enabled."""
        state = self._facts.state
        if state is not None and state.queue_enabled is False:
            return error(platform_causes.QUEUE_DISABLED, "the queue is disabled")
        summary = "the queue is enabled" if state is not None and state.queue_enabled else "the platform does not report it"
        leased = f"a received command is this agent's alone for {self._settings.lease_seconds} s (RELAY_LEASE_SECONDS)"
        return ok("queue", f"{summary}; shared queue (RELAY_SHARED_QUEUE), {leased}" if self._settings.shared_queue else summary)

    def credentials(self) -> Check:
        """Get the configuration and temporary credentials."""
        with closing(self._http(self._seconds / 2)) as http:
            rest = self._rest(http)
            try:
                self._facts.config = rest.config()
                given = PlatformCredentials(rest.credentials, self._clock, self._seen_secrets)
                expiration = given.renew(None).expiration
            except PlatformError as problem:
                return error(cause_of(problem), str(problem), "credentials")
        self._facts.credentials = given
        return ok("credentials", f"valid until {expiration:%Y-%m-%d %H:%M} UTC, for {self._facts.config.region}")

    def sqs(self) -> Check:
        """Check that both queues exist and accept the agent, without receiving or sending a message."""
        config, _ = self._given()
        if config.source_queue is None:
            return error(platform_causes.QUEUE_DISABLED, "the platform names no queue", "sqs")
        if config.platform_queue is None:
            return error(platform_causes.NO_QUEUE, "the platform names no queue for answers", "sqs")
        answering = call_in_thread(
            partial(self._look, config.platform_queue, inbound=False), "check-answers"
        )  # On its own thread, so that it ends in time even if the other one hangs.
        commands, answers = self._look(config.source_queue, inbound=True), answering.result()
        if isinstance(answers, QueueUnavailable) and answers.denied and commands is None:
            # The role needs no more than the right to send there, which cannot be tried without sending.
            return ok("sqs", f"the queue for commands accepts the agent; the queue for answers cannot be checked{self._endpoint()}")
        failed = [(name, problem) for name, problem in (("commands", commands), ("answers", answers)) if problem is not None]
        if failed:
            summary = "; ".join(f"the queue for {name}: {problem}" for name, problem in failed)
            return error(cause_of(failed[0][1]), summary + self._endpoint(), "sqs")
        return ok("sqs", f"the queues for commands and answers accept the agent{self._endpoint()}")

    def _look(self, url: str, *, inbound: bool) -> PlatformError | None:
        config, credentials = self._given()
        with closing(self._http()) as http:
            try:
                self._queue(http, url, config.region, credentials).look(inbound=inbound)
            except PlatformError as problem:
                return problem
        return None

    def cloudwatch(self) -> Check:
        """Check that the log group exists and can be read, without writing to it."""
        config, credentials = self._given()
        if config.log_group is None:
            return warning(platform_causes.NO_LOG_GROUP_NAMED, "the platform names no log group")
        with closing(self._http()) as http:
            try:
                self._logs(http, config.region, credentials).look(config.log_group)
            except PlatformError as problem:
                return warning(cause_of(problem), f"log group {config.log_group}: {self._with_endpoint(problem)}", "cloudwatch")
        return ok("cloudwatch", f"log group {config.log_group} can be read{self._endpoint()}")

    # --- what they share ---

    def _http(self, seconds: float | None = None) -> _BoundHttp:
        policy = Policy(admin=self._settings.admin_endpoint)
        return _BoundHttp(lambda: Transport(self._dialer), self._proxies, policy, seconds or self._seconds, self._clock)

    def _rest(self, http: PlatformHttp) -> Rest:
        settings = self._settings
        identity = AgentIdentity(settings.api_target, settings.org_slug, settings.agent_id, settings.token.get)
        return Rest(http, identity, self._clock)

    def _aws(self, http: PlatformHttp, credentials: PlatformCredentials) -> Aws:
        return Aws(http, credentials, self._settings.aws_endpoint_url)

    def _queue(self, http: PlatformHttp, url: str, region: str, credentials: PlatformCredentials) -> Queue:
        return Queue(self._aws(http, credentials).client("sqs", region), url, credentials, endpoint=self._settings.aws_endpoint_url)

    def _logs(self, http: PlatformHttp, region: str, credentials: PlatformCredentials) -> LogsClient:
        return LogsClient(self._aws(http, credentials).client("logs", region), credentials, endpoint=self._settings.aws_endpoint_url)

    def _given(self) -> tuple[AgentConfig, PlatformCredentials]:
        assert self._facts.config is not None, "it waits for the credentials"
        assert self._facts.credentials is not None, "it waits for the credentials"
        return self._facts.config, self._facts.credentials

    def _endpoint(self) -> str:
        url = self._settings.aws_endpoint_url
        return f", at AWS_ENDPOINT_URL {url}" if url else ""

    def _where(self) -> str:
        route = self._proxies.route(Leg.PLATFORM, parse_url(self._settings.api_target))
        return self._settings.api_target + (f" through the proxy {route.proxy.masked} ({route.reason})" if route.proxy else "")

    def _with_endpoint(self, problem: PlatformError) -> str:
        return f"{problem}{self._endpoint()}"

    def _unreachable(self, problem: PlatformUnreachable) -> Check:
        facts = problem.facts
        stage = "proxy" if facts.proxy else _STAGES.get(facts.code or Code.ETIMEDOUT, "connect")
        return error(cause_of(problem), f"{self._where()}: {stage}: {problem.reason}")

    def _unwell(self, problem: PlatformError) -> Check:
        return error(cause_of(problem), f"{self._where()} {problem.reason}", "platform")


def _known(state: AgentState) -> AgentState:
    """Return the record if it describes an agent; any other JSON is not from the platform.

    Raises:
        NotThePlatform: it describes none.
    """
    if state == AgentState(None, None, None):
        raise NotThePlatform(Call.AGENTS, "the answer does not describe an agent")
    return state


def _is_judgement(problem: PlatformError) -> bool:
    """Whether the platform itself refused the call."""
    return isinstance(problem, PlatformRefused | UnknownAgent) or problem.status == HTTPStatus.BAD_REQUEST
