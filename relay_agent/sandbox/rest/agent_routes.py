"""The REST calls of an agent: configuration, credentials, status, metrics, logs, and its record (PROTOCOL §1).

This module owns these routes and the authorisation of all routes. It must not know how commands are delivered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jwt
from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import HTTPException, NotFound

from relay_agent.core.clock import iso
from relay_agent.sandbox.agents import Agent, Agents
from relay_agent.sandbox.aws.credentials import Keys
from relay_agent.sandbox.forms import ApiError, Json, is_uuid
from relay_agent.sandbox.rest.front import CALL_KEY

AGENT_TYPE = "TetraScience.Agent.user-defined"
_AGENT_TYPES = tuple(f"TetraScience.Agent.{kind}" for kind in ("file-log", "empower", "unicorn", "labx", "chromeleon", "user-defined"))


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of the service user: JWTs signed by the sandbox (HS256)."""

    secret: bytes = field(repr=False)
    org_slug: str
    now: Callable[[], datetime]

    def issue(self, lifetime_seconds: float, org_slug: str | None = None) -> str:
        """Return a token that expires after `lifetime_seconds`; a negative number gives one that has expired."""
        issued = int(self.now().timestamp())
        claims = {"sub": "sandbox-service-user", "orgSlug": org_slug or self.org_slug, "iat": issued, "exp": issued + int(lifetime_seconds)}
        return jwt.encode(claims, self.secret, algorithm="HS256")

    def check(self, token: str | None, org_slug: str | None) -> None:
        """Check a call's token and organisation.

        Raises:
            ApiError: 401 for a token that is missing, invalid or expired; 403 for another organisation.
        """
        try:
            claims = jwt.decode(token or "", self.secret, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
        except jwt.InvalidTokenError:
            raise ApiError(401, "Invalid or missing ts-auth-token") from None
        if claims["exp"] <= self.now().timestamp():
            raise ApiError(401, "The ts-auth-token is expired")
        if org_slug != self.org_slug or claims["orgSlug"] != self.org_slug:
            raise ApiError(403, "The token does not give access to this organization")


@dataclass(frozen=True, slots=True)
class Place:
    """The values of the configuration that are the same for all agents."""

    org_slug: str
    region: str
    bucket: str
    platform_queue_url: str
    visibility_timeout: int


@dataclass(slots=True)
class Uploads:
    """The agents' uploads: (agent id, lines of JSON) for metrics, (agent id, text) for logs."""

    metrics: list[tuple[str, list[Any]]] = field(default_factory=list)
    logs: list[tuple[str, str]] = field(default_factory=list)


def fail(error: Exception) -> tuple[Response, int]:
    """Return the answer for an error, in the platform's form."""
    if isinstance(error, HTTPException):
        error = ApiError(error.code or 500, "Not Found" if isinstance(error, NotFound) else str(error.description))
    assert isinstance(error, ApiError)
    return jsonify(error.to_json()), error.status


def json_body() -> Json:
    """Return the request's JSON object.

    Raises:
        ApiError: 400, the body is not one.
    """
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise ApiError(400, "Error validating payload", ["value must be an object"])
    return body


class AgentRoutes:
    """The routes of one sandbox, as a Flask blueprint."""

    def __init__(self, agents: Agents, keys: Keys, tokens: Tokens, place: Callable[[], Place], lifetime: Callable[[], float]) -> None:
        self._agents = agents
        self._keys = keys
        self._tokens = tokens
        self._place = place
        self._lifetime = lifetime
        self.uploads = Uploads()
        self.blueprint = self._routes()

    def _routes(self) -> Blueprint:
        routes = Blueprint("agents", __name__, url_prefix="/v1")
        routes.before_request(self.authorise)
        routes.post("/data-acquisition/agent/config")(self.config)
        routes.post("/data-acquisition/agent/credentials")(self.credentials)
        routes.post("/data-acquisition/agent/status")(self.heartbeat)
        routes.put("/data-acquisition/agent/status")(self.setting)
        routes.post("/data-acquisition/agent/systemmetric")(self.system_metric)
        routes.post("/data-acquisition/agent/log")(self.log)
        routes.get("/agents")(self.agent_list)
        routes.get("/agents/<agent_id>")(self.agent)
        routes.put("/agents/<agent_id>/enabled")(self.put_enabled)
        routes.get("/agents/<agent_id>/command-queue")(self.queue)
        routes.put("/agents/<agent_id>/command-queue")(self.put_queue)
        return routes

    def authorise(self) -> None:
        """Check the call's token and organisation."""
        self._tokens.check(request.headers.get("ts-auth-token"), request.headers.get("x-org-slug"))

    def config(self) -> Json:
        """`POST agent/config`; a disabled queue has no URL."""
        agent, place = self._source(json_body(), enabled=True), self._place()
        return {
            "orgSlug": place.org_slug,
            "integrationId": agent.integration_id,
            "agentId": agent.id,
            "agentName": agent.name,
            "region": place.region,
            "bucket": place.bucket,
            "streamBucket": f"{place.bucket}-stream",
            "backupBucket": f"{place.bucket}-backup",
            "kmsKey": f"alias/customer-key-{place.org_slug}",
            "integrationType": "user_defined",
            "metadata": {},
            "tags": [],
            "logGroupName": log_group(place.org_slug, agent.id),
            "rpcSourceQueueUrl": agent.queue_url if agent.queue_enabled else None,
            "rpcPlatformQueueUrl": place.platform_queue_url,
        }

    def credentials(self) -> Json:
        """`POST agent/credentials`."""
        self._source(json_body(), enabled=True)
        issued = self._keys.issue(self._lifetime())
        assert issued.expires_at is not None
        return {
            "AccessKeyId": issued.access_key_id,
            "SecretAccessKey": issued.secret_access_key,
            "SessionToken": issued.session_token,
            "Expiration": iso(issued.expires_at),
        }

    def heartbeat(self) -> Json:
        """`POST agent/status`, which makes an agent Online, even a disabled one."""
        body = json_body()
        agent = self._source(body)
        self._check_type(body)
        self._agents.heartbeat(agent, body["agentVersion"], request.remote_addr)
        return {"agentName": agent.name}

    def setting(self) -> Json:
        """`PUT agent/status`: the agent reports STARTED or STOPPED."""
        body = json_body()
        agent = self._source(body)
        self._check_type(body)
        setting = body.get("statusSetting", "STARTED")
        if setting not in ("STARTED", "STOPPED"):
            raise ApiError(400, "Error validating payload", ["statusSetting must be one of STARTED, STOPPED"])
        self._agents.setting(agent, setting, body["agentVersion"])
        return {"agentName": agent.name}

    def system_metric(self) -> Json:
        """`POST agent/systemmetric`: a file of newline-delimited JSON."""
        agent_id, text = self._upload("systemmetric")
        try:
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise ApiError(400, "Error validating payload", ["systemmetric must be newline-delimited JSON"]) from None
        self.uploads.metrics.append((agent_id, lines))
        return {"message": "OK"}

    def log(self) -> Json:
        """`POST agent/log`."""
        self.uploads.logs.append(self._upload("log"))
        return {"message": "OK"}

    def agent_list(self) -> Response:
        """`GET /v1/agents`."""
        return jsonify([self._record(agent) for agent in self._agents.all()])

    def agent(self, agent_id: str) -> Json:
        """`GET /v1/agents/{id}`, also for a disabled agent."""
        return self._record(self._known(agent_id))

    def put_enabled(self, agent_id: str) -> Json:
        """`PUT /v1/agents/{id}/enabled`."""
        agent = self._known(agent_id)
        self._agents.enable(agent, _enabled(json_body()))
        return {}

    def queue(self, agent_id: str) -> Json:
        """`GET /v1/agents/{id}/command-queue`."""
        return self._known(agent_id).queue_json(self._place().visibility_timeout)

    def put_queue(self, agent_id: str) -> Json:
        """`PUT /v1/agents/{id}/command-queue`."""
        # The platform refuses to enable a queue within 60 s after it was disabled (400 "Can not enable command queue within 60s ...").
        # The sandbox does not, so that a test need not wait.
        agent = self._known(agent_id)
        self._agents.enable_queue(agent, _enabled(json_body()))
        return agent.queue_json(self._place().visibility_timeout)

    def _record(self, agent: Agent) -> Json:
        place = self._place()
        return self._agents.to_json(agent, place.org_slug, place.visibility_timeout)

    def _known(self, agent_id: str) -> Agent:
        if not is_uuid(agent_id):
            raise ApiError(400, "Error validating payload", ["agentId must be a valid GUID"])
        agent = self._agents.get(agent_id)
        if agent is None:
            raise ApiError(404, f"Agent with id {agent_id} not found")
        return agent

    def _source(self, fields: Json, enabled: bool = False) -> Agent:
        problems = [f"{name} is required" for name in ("agentId", "agentVersion") if not isinstance(fields.get(name), str)]
        if problems:
            raise ApiError(400, "Error validating payload", problems)
        agent = self._agents.get(fields["agentId"])
        if agent is None:
            raise ApiError(404, f"Source with source ID {fields['agentId']} does not exist")
        if enabled and not agent.enabled:
            raise ApiError(403, f"Agent {agent.id} is disabled")
        return agent

    def _check_type(self, body: Json) -> None:
        if body.get("agent", AGENT_TYPE) not in _AGENT_TYPES:
            raise ApiError(400, "Error validating payload", [f"agent must be one of {', '.join(_AGENT_TYPES)}"])

    def _upload(self, name: str) -> tuple[str, str]:
        fields = request.form.to_dict()
        request.environ[CALL_KEY].fields = fields
        agent = self._source(fields)
        file = request.files.get(name)
        if file is None:
            raise ApiError(400, "Error validating payload", [f"{name} must be a file"])
        return agent.id, file.read().decode("utf-8", "replace")


def log_group(org_slug: str, agent_id: str) -> str:
    """Return the name of an agent's log group."""
    return f"/agents/{org_slug}/{agent_id}"


def _enabled(body: Json) -> bool:
    if not isinstance(body.get("enabled"), bool):
        raise ApiError(400, "Error validating payload", ["enabled must be a boolean"])
    return bool(body["enabled"])
