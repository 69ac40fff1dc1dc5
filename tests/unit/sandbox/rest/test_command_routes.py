"""The rules of a new command and of a search, as the platform's API has them; over HTTP in tests/integration/test_sandbox_commands.py."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from relay_agent.core.clock import iso
from relay_agent.core.models import ACTION_HTTP
from relay_agent.sandbox.changes import Changes
from relay_agent.sandbox.commands import Command, Commands
from relay_agent.sandbox.forms import ApiError
from relay_agent.sandbox.rest.agent_routes import Tokens
from relay_agent.sandbox.rest.app import build_app
from relay_agent.sandbox.rest.command_routes import ACTIONS, MAX_REQUEST_BYTES, CommandRoutes
from tests.unit.sandbox.scenes import NOW, Time


class World:
    """The routes with a platform that keeps what it is given, and a time that the test moves."""

    def __init__(self) -> None:
        self.time = Time()
        self.commands = Commands(self.time, Changes())
        self.tokens = Tokens(b"k" * 32, "lab", self.time)
        self.purged: list[str] = []
        self.routes = CommandRoutes(self.commands, self, self.tokens, 60.0, self.time)
        self.app: Flask = build_app([self.routes.public, *self.routes.internal])
        self.client: FlaskClient = self.app.test_client()

    def dispatch(self, command: Command) -> None:
        if command.target_id == "nobody":
            raise ApiError(404, "Agent with id nobody not found")
        self.commands.add(command)

    def purge(self, agent_id: str) -> list[str]:
        self.purged.append(agent_id)
        return ["c-1"]

    def body(self, **more: Any) -> dict[str, Any]:
        expires = iso(self.time.passes(0.0).replace(hour=13))
        given = {"targetId": "agent-1", "action": ACTION_HTTP, "expiresAt": expires, "payload": {"url": "http://h/"}, **more}
        return {name: value for name, value in given.items() if value is not ...}

    def call(self, method: str, path: str = "/v1/commands", *, token: str | None = "", org: str | None = "lab", **more: Any) -> Any:
        headers = {"ts-auth-token": self.tokens.issue(60.0) if token == "" else token, "x-org-slug": org}
        return self.client.open(path, method=method, headers={name: text for name, text in headers.items() if text is not None}, **more)

    def create(self, **more: Any) -> Any:
        return self.call("POST", json=self.body(**more))

    def found(self, query: str) -> list[str]:
        return [hit["targetId"] for hit in self.call("GET", f"/v1/commands?{query}").json["hits"]]


@pytest.fixture
def world() -> World:
    return World()


def test_a_command_is_created_with_its_fields(world: World) -> None:
    answer = world.create(metadata={"a": "b", "missing": None}, payloadDelivery="referenced")
    assert answer.status_code == 200
    command = world.commands.get(answer.json["id"])
    assert command is not None
    assert (command.org_slug, command.target_id, command.action, command.delivery) == ("lab", "agent-1", ACTION_HTTP, "referenced")
    assert (command.payload, command.metadata) == ({"url": "http://h/"}, {"a": "b", "missing": None})
    assert (command.created_at, command.expires_at) == (NOW, NOW.replace(hour=13))


@pytest.mark.parametrize(
    "field, value, named",
    [
        ("targetId", ..., "targetId"),
        ("targetId", "", "targetId"),
        ("targetId", 7, "targetId"),
        ("action", ..., "action"),
        ("payload", ..., "payload"),
        ("payload", "text", "payload"),
        ("payload", [], "payload"),
        ("payloadDelivery", "by post", "payloadDelivery"),
        ("expiresAt", ..., "expiresAt"),
        ("expiresAt", "tomorrow", "expiresAt"),
        ("expiresAt", 5, "expiresAt"),
    ],
)
def test_a_wrong_field_is_400_and_named(world: World, field: str, value: object, named: str) -> None:
    answer = world.create(**{field: value})
    assert answer.status_code == 400
    assert named in answer.get_data(as_text=True)
    assert list(world.commands.all()) == []


def test_every_wrong_field_is_named_at_once(world: World) -> None:
    text = world.create(targetId=..., action=..., payload=..., expiresAt=...).get_data(as_text=True)
    assert all(name in text for name in ("targetId", "action", "payload", "expiresAt"))


@pytest.mark.parametrize("ahead, code", [(60.0, 200), (59.0, 200), (58.9, 400), (0.0, 400), (-60.0, 400)])
def test_a_command_expires_a_minute_ahead_at_least_but_for_a_second_of_grace(world: World, ahead: float, code: int) -> None:
    expires = iso(Time().passes(ahead))
    assert world.create(expiresAt=expires).status_code == code


@pytest.mark.parametrize("metadata", [{"a": 5}, {"a": "ü"}, {"ü": "a"}, {"a": ["b"]}, ["a"], "a"])
def test_metadata_holds_ascii_texts_only(world: World, metadata: object) -> None:
    assert world.create(metadata=metadata).status_code == 400


def test_a_request_above_10_mb_is_refused(world: World) -> None:
    assert MAX_REQUEST_BYTES == 10 * 1024 * 1024
    answer = world.call("POST", data=b"x" * (MAX_REQUEST_BYTES + 1))
    assert answer.status_code == 400
    assert "10 MB" in answer.get_data(as_text=True)


def test_a_command_for_nobody_is_404(world: World) -> None:
    assert world.create(targetId="nobody").status_code == 404


@pytest.mark.parametrize(
    "path, token, org, code",
    [
        ("/v1/commands", "", "lab", 200),
        ("/v1/commands", None, "lab", 401),
        ("/v1/commands", "no token", "lab", 401),
        ("/v1/commands", "", "other", 403),
        ("/internal", None, "lab", 200),
        ("/api/v1/commands", None, "lab", 200),
        ("/internal", None, None, 403),
        ("/api/v1/commands", "", "other", 403),
    ],
)
def test_the_public_routes_require_a_token_and_the_sdk_s_own_only_an_organisation(
    world: World, path: str, token: str | None, org: str | None, code: int
) -> None:
    assert world.call("GET", path, token=token, org=org).status_code == code


@pytest.mark.parametrize("path", ["/v1/commands/c-1", "/v1/commands/c-1/history"])
def test_an_unknown_command_is_404(world: World, path: str) -> None:
    assert world.call("GET", path).status_code == 404


def test_a_command_and_its_history_can_be_read(world: World) -> None:
    command_id = world.create().json["id"]
    assert world.call("GET", f"/v1/commands/{command_id}").json["id"] == command_id
    assert world.call("GET", f"/v1/commands/{command_id}/history").status_code == 200


def test_the_actions_are_the_known_ones_and_every_other_that_was_sent(world: World) -> None:
    world.create(action="another")
    assert world.call("GET", "/v1/commands/actions").json == sorted({*ACTIONS, "another"})


def test_a_search_is_paged_and_says_whether_there_is_more(world: World) -> None:
    for number in range(3):
        world.create(targetId=f"agent-{number}")
        world.time.passes(1.0)
    page = world.call("GET", "/v1/commands?from=1&size=1").json
    assert ([hit["targetId"] for hit in page["hits"]], page["hasNext"], page["sort"]) == (["agent-1"], True, "desc")
    assert world.call("GET", "/v1/commands?from=2&size=9999").json | {"hits": []} == {
        "hits": [],
        "hasNext": False,
        "from": 2,
        "size": 1000,
        "sort": "desc",
    }


def test_a_search_filters_and_sorts_as_it_is_asked(world: World) -> None:
    for number, moment in enumerate((NOW.replace(hour=14), NOW.replace(hour=13), NOW.replace(hour=15))):
        world.create(targetId=f"agent-{number}", expiresAt=iso(moment), metadata={"lab": str(number)})
    assert world.found("targetId=agent-1&targetId=agent-2&sort=asc") == ["agent-1", "agent-2"]
    assert world.found("metadata.lab=2") == ["agent-2"]
    assert world.found("sortBy=expiresAt&sort=asc") == ["agent-1", "agent-0", "agent-2"]
    assert world.found("expiresAtAfter=2026-03-01T13:30:00+00:00&expiresAtBefore=2026-03-01T14:30:00%2B00:00") == ["agent-0"]
    assert world.found("fromDate=2026-03-02T00:00:00Z") == []
    assert world.found("status=SUCCESS") == []


@pytest.mark.parametrize(
    "query, named",
    [
        ("status=DONE", "status"),
        ("sortBy=id", "sortBy"),
        ("sort=up", "sort"),
        ("from=-1", "from"),
        ("size=ten", "size"),
        ("size=%C2%B2", "size"),
        ("createdAtAfter=yesterday", "createdAtAfter"),
        ("fromDate=x", "fromDate"),
    ],
)
def test_a_wrong_filter_is_400_and_named(world: World, query: str, named: str) -> None:
    answer = world.call("GET", f"/v1/commands?{query}")
    assert (answer.status_code, named in answer.get_data(as_text=True)) == (400, True)


def test_a_purge_names_its_agent(world: World) -> None:
    assert world.call("DELETE", "/v1/commands?targetId=agent-1").json == {"purged": [{"commandId": "c-1"}]}
    assert world.call("DELETE").status_code == 400
    assert world.purged == ["agent-1"]
