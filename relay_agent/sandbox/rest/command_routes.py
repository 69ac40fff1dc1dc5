"""The REST calls of a sender: create, read, search and purge commands (PROTOCOL §1), also under the two prefixes of the vendor's SDK.

This module owns the validation of a new command. It must not know how it is delivered.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from flask import Blueprint, Response, jsonify, request

from relay_agent.core.models import ACTION_SECURE, ACTIONS_PLAIN
from relay_agent.sandbox.commands import STATUSES, Command, Commands, Search
from relay_agent.sandbox.forms import ApiError, Json, parse_time
from relay_agent.sandbox.rest.agent_routes import Tokens, json_body

MAX_REQUEST_BYTES = 10 * 1024 * 1024
ACTIONS = (*sorted(ACTIONS_PLAIN), ACTION_SECURE)
DELIVERIES = ("embedded", "referenced")
_TIMES = {"createdAt": "created_at", "expiresAt": "expires_at", "updatedAt": "updated_at"}
_MAX_PAGE = 1000
_GRACE_SECONDS = 1.0


class Platform(Protocol):
    """What these routes need of the sandbox."""

    def dispatch(self, command: Command) -> None:
        """Add a command and put it on its agent's queue. Raises ApiError: 404, no such agent."""

    def purge(self, agent_id: str) -> list[str]:
        """Empty an agent's queue, and return the ids of the purged commands. Raises ApiError: 404, 400."""


class CommandRoutes:
    """The routes of one sandbox as Flask blueprints: `public` requires a token, those in `internal` only an organisation."""

    def __init__(self, commands: Commands, platform: Platform, tokens: Tokens, min_ttl_seconds: float, now: Callable[[], datetime]) -> None:
        self._commands = commands
        self._platform = platform
        self._tokens = tokens
        self._min_ttl_seconds = min_ttl_seconds
        self._now = now
        self.public = Blueprint("commands", __name__, url_prefix="/v1/commands")
        self.public.before_request(self._authorise)
        self._add_routes(self.public)
        self.internal = [self._internal("internal", "/internal"), self._internal("pipelines", "/api/v1/commands")]

    def _add_routes(self, routes: Blueprint) -> None:
        routes.post("")(self.create)
        routes.get("")(self.search)
        routes.delete("")(self.purge)
        routes.get("/actions")(self.actions)
        routes.get("/<command_id>")(self.get)
        routes.get("/<command_id>/history")(self.history)

    def _internal(self, name: str, prefix: str) -> Blueprint:
        routes = Blueprint(name, __name__, url_prefix=prefix)
        routes.before_request(self._check_org)
        self._add_routes(routes)
        return routes

    def _authorise(self) -> None:
        self._tokens.check(request.headers.get("ts-auth-token"), request.headers.get("x-org-slug"))

    def _check_org(self) -> None:
        # Another site's page can send a custom header only after a preflight (CORS), which the sandbox never allows.
        if request.headers.get("x-org-slug") != self._tokens.org_slug:
            raise ApiError(403, "Unknown organization")

    def create(self) -> Json:
        """`POST /v1/commands`."""
        if len(request.get_data()) > MAX_REQUEST_BYTES:
            raise ApiError(400, "Command request payload is larger than maximum size of 10 MB.")
        command = self.parse(json_body())
        self._platform.dispatch(command)
        return command.to_json()

    def parse(self, body: Json) -> Command:
        """Return a command with a request's fields.

        `expiresAt` may be 1 s less ahead than required, since the request takes time too.

        Raises:
            ApiError: 400; it names the wrong field.
        """
        problems = [f"{name} must be a non-empty string" for name in ("targetId", "action") if not _text(body.get(name))]
        problems += [] if isinstance(body.get("payload"), dict) else ["payload must be an object"]
        problems += [] if body.get("payloadDelivery") in (None, *DELIVERIES) else ["payloadDelivery must be one of embedded, referenced"]
        expires_at = parse_time(body.get("expiresAt"))
        if expires_at is None or problems:
            problems += ["expiresAt must be an ISO date"] if expires_at is None else []
            raise ApiError(400, "Error validating payload", problems)
        now = self._now()
        if expires_at < now + timedelta(seconds=self._min_ttl_seconds - _GRACE_SECONDS):
            raise ApiError(400, f"Param expiresAt must be at least {self._min_ttl_seconds:g} seconds from current date timestamp")
        return Command(
            id=str(uuid.uuid4()),
            org_slug=self._tokens.org_slug,
            target_id=body["targetId"],
            action=body["action"],
            created_at=now,
            updated_at=now,
            expires_at=expires_at,
            payload=body["payload"],
            metadata=_metadata(body.get("metadata")),
            delivery=body.get("payloadDelivery"),
        )

    def get(self, command_id: str) -> Json:
        """`GET /v1/commands/{id}`."""
        command = self._commands.get(command_id)
        if command is None:
            raise ApiError(404, f"Command with ID {command_id} not found")
        return command.to_json()

    def history(self, command_id: str) -> Json:
        """`GET /v1/commands/{id}/history`."""
        command = self._commands.get(command_id)
        if command is None:
            raise ApiError(404, f"Command with given ID {command_id} does not exist")
        return command.history_json()

    def actions(self) -> Response:
        """`GET /v1/commands/actions`: the actions that the agent knows, and every other one that was sent."""
        return jsonify(sorted({*ACTIONS, *(command.action for command in self._commands.all())}))

    def search(self) -> Json:
        """`GET /v1/commands`."""
        search, start, size = read_search(), _number("from", 0), min(_number("size", 100), _MAX_PAGE)
        found = search.run(self._commands.all())
        return {
            "hits": [command.to_json() for command in found[start : start + size]],
            "hasNext": len(found) > start + size,
            "from": start,
            "size": size,
            "sort": "desc" if search.descending else "asc",
        }

    def purge(self) -> Json:
        """`DELETE /v1/commands?targetId=`; a second call right after it is answered 200 too, with an empty list."""
        target = request.args.get("targetId")
        if not target:
            raise ApiError(400, "Error validating query", ["targetId is required"])
        return {"purged": [{"commandId": command_id} for command_id in self._platform.purge(target)]}


def read_search() -> Search:
    """Return the filters of the request's query.

    Raises:
        ApiError: 400; it names the wrong filter.
    """
    args = request.args
    statuses = frozenset(args.getlist("status"))
    problems = [f"status must be one of {', '.join(STATUSES)}"] if statuses - set(STATUSES) else []
    problems += ["sortBy must be one of createdAt, updatedAt, expiresAt"] if args.get("sortBy", "createdAt") not in _TIMES else []
    problems += ["sort must be one of asc, desc"] if args.get("sort", "desc") not in ("asc", "desc") else []
    if problems:
        raise ApiError(400, "Error validating query", problems)
    return Search(
        targets=frozenset(args.getlist("targetId")),
        actions=frozenset(args.getlist("action")),
        statuses=statuses,
        metadata=tuple((key.removeprefix("metadata."), value) for key, value in args.items() if key.startswith("metadata.")),
        after=_bounds("After", "fromDate"),
        before=_bounds("Before", "toDate"),
        sort_by=_TIMES[args.get("sortBy", "createdAt")],
        descending=args.get("sort", "desc") == "desc",
    )


def _bounds(suffix: str, deprecated: str) -> tuple[tuple[str, datetime], ...]:
    names = {f"{name}{suffix}": attribute for name, attribute in _TIMES.items()} | {deprecated: "created_at"}
    bounds = []
    for name, attribute in names.items():
        if name in request.args:
            # An unencoded "+00:00" arrives as " 00:00".
            moment = parse_time(request.args[name]) or parse_time(request.args[name].replace(" ", "+"))
            if moment is None:
                raise ApiError(400, "Error validating query", [f"{name} must be an ISO date"])
            bounds.append((attribute, moment))
    return tuple(bounds)


def _number(name: str, default: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise ApiError(400, "Error validating query", [f"{name} must be a whole number"])
    return int(text)


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _metadata(value: Any) -> Json:
    """Return the metadata if all values are ASCII strings or null, which the vendor's SDK sends for a pipeline's missing ids."""
    if value is None:
        return {}
    message = "Error validating metadata. Metadata must contain only string with ASCII characters."
    if not isinstance(value, dict):
        raise ApiError(400, message)
    for key, entry in value.items():
        if not key.isascii() or not (entry is None or (isinstance(entry, str) and entry.isascii())):
            raise ApiError(400, message)
    return value
