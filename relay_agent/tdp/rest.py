"""The platform's REST calls (PROTOCOL §1).

This module owns paths, bodies and what each status means. It must not decide what to do about an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from urllib3.filepost import encode_multipart_formdata

from relay_agent import AGENT_VERSION
from relay_agent.config.secrets import token_expiry
from relay_agent.core.clock import MAX_DATE, Clock, clamped, clock_offset, http_date, iso
from relay_agent.core.errors import Call, NotThePlatform, PlatformError, PlatformRefused, RateLimited, UnknownAgent
from relay_agent.protocol.json_bounds import check_text
from relay_agent.tdp.call_outcomes import Count, count_nothing, count_outcome
from relay_agent.tdp.platform_http import CALL_SECONDS, Answer, PlatformHttp, unreachable
from relay_agent.transport.errors import TransportFault

AGENT_KIND = "TetraScience.Agent.user-defined"
MOST_RETRY_SECONDS = 60.0
"""Longest Retry-After that is followed: the agent is back within a minute after an outage."""
MOST_OF_A_NAME = 200
"""Characters of the agent's name that are kept, for pages and log."""
_REGION = re.compile(r"[a-z0-9-]{1,63}")
_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,8192}")
"""What can be used in a header field. AWS's keys have a few hundred characters, a session token about a thousand."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The answer of `agent/config` (PROTOCOL §1); `source_queue` is None while the queue is disabled."""

    agent_name: str
    region: str
    log_group: str | None
    source_queue: str | None
    platform_queue: str | None


@dataclass(frozen=True, slots=True)
class AgentState:
    """The answer of `GET /v1/agents/{id}`, None for what it lacks; `kind` is the agent's type, such as `user-defined`."""

    enabled: bool | None
    queue_enabled: bool | None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class TemporaryCredentials:
    """AWS credentials and when they expire (UTC)."""

    access_key: str
    secret_key: str
    token: str
    expiration: datetime

    def __repr__(self) -> str:
        return f"TemporaryCredentials(expiration={iso(self.expiration, 'seconds')})"


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """Which agent calls, for which organisation, at which API, and with which token."""

    api_target: str
    org_slug: str
    agent_id: str
    token: Callable[[], str]
    """Returns the JWT that is valid now."""


class Rest:
    """The REST calls of an agent. Any thread may call."""

    def __init__(
        self,
        http: PlatformHttp,
        identity: AgentIdentity,
        clock: Clock,
        count: Count = count_nothing,
        judged: Callable[[PlatformRefused | None], None] = lambda _refusal: None,
    ) -> None:
        """`count` is called with each call's outcome; `judged` with each refusal of the token (401), and with None when it was accepted."""
        self._http = http
        self._identity = identity
        self._clock = clock
        self._count = count
        self._judged = judged
        self.clock_off: float | None = None
        """Seconds that this machine's clock was ahead of the platform's at the last answer, None if that had no Date."""

    def config(self) -> AgentConfig:
        """Read the agent's configuration.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        found = self._json(Call.CONFIG, "POST", "/v1/data-acquisition/agent/config", self._who())
        region = _required(found, "region", Call.CONFIG)
        if not _REGION.fullmatch(region):
            raise NotThePlatform(Call.CONFIG, "the answer's region is not one of AWS's")
        return AgentConfig(
            agent_name=(_showable(found, "agentName") or self._identity.agent_id)[:MOST_OF_A_NAME],
            region=region,
            log_group=_showable(found, "logGroupName"),
            source_queue=_showable(found, "rpcSourceQueueUrl"),
            platform_queue=_showable(found, "rpcPlatformQueueUrl"),
        )

    def credentials(self) -> TemporaryCredentials:
        """Fetch temporary AWS credentials.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        call = Call.CREDENTIALS
        found = self._json(call, "POST", "/v1/data-acquisition/agent/credentials", self._who())
        try:
            expiration = datetime.fromisoformat(_required(found, "Expiration", call))
        except ValueError:
            raise NotThePlatform(call, "the answer's Expiration is not an ISO 8601 time") from None
        names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
        access_key, secret_key, token = (_required(found, name, call) for name in names)
        for name, value in zip(names, (access_key, secret_key, token), strict=True):
            if not _CREDENTIAL.fullmatch(value):
                raise NotThePlatform(call, f"the answer's {name} is invalid: it must be visible ASCII, at most 8,192 characters")
        return TemporaryCredentials(
            access_key=access_key,
            secret_key=secret_key,
            token=token,
            expiration=clamped(expiration),
        )

    def agent(self) -> AgentState:
        """Read the agent's record: whether agent and queue are enabled.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        found = self._json(Call.AGENTS, "GET", f"/v1/agents/{self._identity.agent_id}", None)
        enabled = found.get("isEnabled")
        queue = found.get("queue")
        queue_enabled = queue.get("enabled") if isinstance(queue, dict) else None
        return AgentState(
            enabled if isinstance(enabled, bool) else None,
            queue_enabled if isinstance(queue_enabled, bool) else None,
            _showable(found, "type"),
        )

    def heartbeat(self) -> None:
        """Report that the agent is alive: this is what makes it Online.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        self._json(Call.STATUS, "POST", "/v1/data-acquisition/agent/status", {**self._who(), "agent": AGENT_KIND})

    def report(self, setting: str) -> None:
        """Report `STARTED` or `STOPPED`.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        body = {**self._who(), "agent": AGENT_KIND, "statusSetting": setting}
        self._json(Call.STATUS, "PUT", "/v1/data-acquisition/agent/status", body)

    def system_metrics(self, ndjson: bytes) -> None:
        """Upload system metrics: newline-delimited JSON in a multipart form.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        self._upload(Call.METRICS, "systemmetric", "system-metrics.ndjson", ndjson)

    def log(self, lines: bytes) -> None:
        """Upload log lines, for use while CloudWatch cannot be reached.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        self._upload(Call.LOG, "log", "agent.log", lines)

    def _upload(self, call: Call, name: str, filename: str, data: bytes) -> None:
        form = {**self._who(), name: (filename, data, "application/octet-stream")}
        body, content_type = encode_multipart_formdata(form)
        with count_outcome(self._count, call):
            self._send(call, "POST", f"/v1/data-acquisition/{call}", body, content_type)

    def _who(self) -> dict[str, Any]:
        return {"agentId": self._identity.agent_id, "agentVersion": AGENT_VERSION}

    def _json(self, call: Call, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        with count_outcome(self._count, call):
            return self._exchange(call, method, path, body)

    def _exchange(self, call: Call, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        encoded = None if body is None else json.dumps(body).encode("utf-8")
        answer = self._send(call, method, path, encoded, "application/json")
        if not answer.body.strip():
            return {}
        try:
            found = None if check_text(answer.body) else json.loads(answer.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise NotThePlatform(call, f"the answer ({answer.status}) is not a JSON object", answer.status)
        return found

    def _send(self, call: Call, method: str, path: str, body: bytes | None, content_type: str) -> Answer:
        """Return an answer that accepts the call.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        headers = [("ts-auth-token", self._identity.token()), ("x-org-slug", self._identity.org_slug), ("Accept", "application/json")]
        if body is not None:
            headers.append(("Content-Type", content_type))
        asked = self._clock.now()
        try:
            answer = self._http.send(method, self._identity.api_target + path, tuple(headers), body, CALL_SECONDS)
        except TransportFault as fault:
            raise unreachable(call, fault, self._identity.api_target) from None
        self._check(call, answer)
        self.clock_off = clock_offset(answer.header("date"), asked, self._clock.now())
        self._judged(None)
        return answer

    def _check(self, call: Call, answer: Answer) -> None:
        """Raise what a status other than 2xx means (PROTOCOL §1)."""
        if 200 <= answer.status < 300:
            return
        if answer.status in (401, 403) and answer.is_web_page and answer.body.strip():
            raise NotThePlatform(call, f"a web page answered ({answer.status}) in the platform's place", answer.status)
        if answer.status in (401, 403):
            ended = self._token_ended()
            known = ", and the JWT has expired" if ended else ""
            refusal = PlatformRefused(call, f"answered {answer.status}{known}", answer.status, token_ended=ended)
            if answer.status == 401:  # 403 may concern this call only: a disabled agent, or a role without it.
                self._judged(refusal)
            raise refusal
        if answer.status == 404:
            if not answer.body.strip() or self._identity.agent_id.encode() in answer.body or b'"statusCode"' in answer.body:
                raise UnknownAgent(call, "answered 404", 404)
            raise NotThePlatform(call, "answered 404, but not in the platform's format", 404)
        if answer.status == 429:
            raise RateLimited(call, self._retry_after(answer.header("retry-after")))
        kind = NotThePlatform if 300 <= answer.status < 400 else PlatformError
        raise kind(call, f"answered {answer.status}", answer.status)

    def _token_ended(self) -> datetime | None:
        """Return when the token expired, None if it has not; the platform's refusal does not say."""
        try:
            ended = token_expiry(self._identity.token())
        except (OSError, ValueError):
            return None
        return ended if ended is not None and ended <= self._clock.now() else None

    def _retry_after(self, value: str | None) -> float:
        """Return the seconds of a Retry-After field in either form (RFC 9110 §10.2.3), at most MOST_RETRY_SECONDS."""
        if value is None:
            return 0.0
        if value.isascii() and value.isdigit():
            # Cut, since any number so long exceeds a minute; one with leading zeros is asked again too early, which does no harm.
            return min(float(value[:MAX_DATE]), MOST_RETRY_SECONDS)
        there = http_date(value)
        return 0.0 if there is None else min(max(0.0, (there - self._clock.now()).total_seconds()), MOST_RETRY_SECONDS)


def _required(found: dict[str, Any], name: str, call: Call) -> str:
    value = _optional(found, name)
    if value is None:
        raise NotThePlatform(call, f"the answer has no {name}")
    return value


def _optional(found: dict[str, Any], name: str) -> str | None:
    value = found.get(name)
    return value if isinstance(value, str) and value else None


def _showable(found: dict[str, Any], name: str) -> str | None:
    """Return a text without half of a surrogate pair, which JSON can contain, but no page and no terminal."""
    value = _optional(found, name)
    return None if value is None else value.encode("utf-8", "replace").decode("utf-8")
