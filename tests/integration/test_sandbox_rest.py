"""The sandbox's REST calls for agents compared with the platform's reference, rule by rule (PROTOCOL §1), without an agent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from uuid import uuid4

import pytest

from relay_agent.sandbox.agents import Agents
from relay_agent.sandbox.changes import Changes
from relay_agent.sandbox.server import Sandbox
from tests.integration.sandbox_calls import agent_call, config, rest

CONFIG_FIELDS = {
    "orgSlug",
    "integrationId",
    "agentId",
    "agentName",
    "region",
    "bucket",
    "streamBucket",
    "backupBucket",
    "kmsKey",
    "integrationType",
    "metadata",
    "tags",
    "logGroupName",
    "rpcSourceQueueUrl",
    "rpcPlatformQueueUrl",
}


def test_config_gives_every_field_of_the_reference(sandbox: Sandbox, agent_id: str) -> None:
    answer = config(sandbox, agent_id)
    assert set(answer) == CONFIG_FIELDS
    assert answer["agentId"] == agent_id
    assert answer["rpcSourceQueueUrl"].endswith(".fifo")
    assert answer["logGroupName"] == f"/agents/{sandbox.org_slug}/{agent_id}"


def test_credentials_live_as_long_as_the_sandbox_says(sandbox: Sandbox, agent_id: str) -> None:
    answer = agent_call(sandbox, "POST", "credentials", agent_id).json()
    assert set(answer) == {"AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"}
    left = datetime.fromisoformat(answer["Expiration"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(minutes=60)


def test_a_heartbeat_makes_the_agent_online(sandbox: Sandbox, agent_id: str) -> None:
    assert rest(sandbox, "GET", f"/v1/agents/{agent_id}").json()["status"] == "Offline"
    answer = agent_call(sandbox, "POST", "status", agent_id, agent="TetraScience.Agent.user-defined")
    assert answer.json() == {"agentName": sandbox.agents.get(agent_id).name}  # type: ignore[union-attr]
    assert rest(sandbox, "GET", f"/v1/agents/{agent_id}").json()["status"] == "Online"
    assert len(sandbox.heartbeats(agent_id)) == 1


def test_an_agent_that_says_it_stops_is_offline_at_once(sandbox: Sandbox, agent_id: str) -> None:
    agent_call(sandbox, "PUT", "status", agent_id, statusSetting="STARTED")
    agent_call(sandbox, "POST", "status", agent_id)
    agent_call(sandbox, "PUT", "status", agent_id, statusSetting="STOPPED")
    assert sandbox.settings(agent_id) == ["STARTED", "STOPPED"]
    assert rest(sandbox, "GET", f"/v1/agents/{agent_id}").json()["status"] == "Offline"


def test_online_ends_90_seconds_after_the_last_heartbeat_and_counts_from_the_first_of_the_run() -> None:
    moments = [datetime(2026, 1, 1, tzinfo=UTC)]
    agents = Agents(lambda: moments[-1], Changes())
    agent = agents.add("quiet")
    for seconds in (0, 60, 120):
        moments.append(moments[0] + timedelta(seconds=seconds))
        agents.heartbeat(agent, "v1", None)
    assert agent.online(moments[0] + timedelta(seconds=210))
    assert agent.since(moments[0] + timedelta(seconds=210)) == moments[0]
    assert not agent.online(moments[0] + timedelta(seconds=211))
    assert agent.since(moments[0] + timedelta(seconds=500)) == moments[0] + timedelta(seconds=210)


@pytest.mark.parametrize("name", ["config", "credentials", "status"])
def test_an_unknown_agent_is_a_404_that_names_the_id(sandbox: Sandbox, name: str) -> None:
    unknown = str(uuid4())
    answer = agent_call(sandbox, "POST", name, unknown)
    assert answer.status_code == 404
    assert answer.json() == {"statusCode": 404, "error": "Not Found", "message": f"Source with source ID {unknown} does not exist"}


def test_the_agents_page_names_an_unknown_id_in_its_own_words(sandbox: Sandbox) -> None:
    unknown = str(uuid4())
    assert rest(sandbox, "GET", f"/v1/agents/{unknown}").json()["message"] == f"Agent with id {unknown} not found"
    assert rest(sandbox, "GET", "/v1/agents/nonsense").json()["validation"] == [{"message": "agentId must be a valid GUID"}]


def test_a_missing_field_is_a_400_that_names_it(sandbox: Sandbox) -> None:
    answer = rest(sandbox, "POST", "/v1/data-acquisition/agent/config", json={"agentId": "x"})
    assert answer.status_code == 400
    assert answer.json()["validation"] == [{"message": "agentVersion is required"}]


@pytest.mark.parametrize("body", [b"", b"[]", b"no json"])
def test_a_body_that_is_no_object_is_a_400(sandbox: Sandbox, body: bytes) -> None:
    headers = {"ts-auth-token": sandbox.jwt, "x-org-slug": sandbox.org_slug, "content-type": "application/json"}
    assert rest(sandbox, "POST", "/v1/data-acquisition/agent/status", data=body, headers=headers).status_code == 400


@pytest.mark.parametrize("token", [None, "nonsense", "expired", "other key"])
def test_a_token_that_is_missing_wrong_or_over_is_a_401(sandbox: Sandbox, agent_id: str, token: str | None) -> None:
    other = Sandbox().jwt if token == "other key" else token
    given = sandbox.issue_jwt(-10) if token == "expired" else other
    headers = {"x-org-slug": sandbox.org_slug} | ({"ts-auth-token": given} if given else {})
    answer = rest(sandbox, "GET", f"/v1/agents/{agent_id}", headers=headers)
    assert answer.status_code == 401
    assert set(answer.json()) == {"statusCode", "error", "message"}


@pytest.mark.parametrize("slug", [None, "other"])
def test_a_token_and_an_organisation_that_do_not_belong_together_are_a_403(sandbox: Sandbox, agent_id: str, slug: str | None) -> None:
    headers = {"ts-auth-token": sandbox.jwt} | ({"x-org-slug": slug} if slug else {})
    assert rest(sandbox, "GET", f"/v1/agents/{agent_id}", headers=headers).status_code == 403
    foreign = {"ts-auth-token": sandbox.issue_jwt(org_slug="other"), "x-org-slug": sandbox.org_slug}
    assert rest(sandbox, "GET", f"/v1/agents/{agent_id}", headers=foreign).status_code == 403


def test_a_disabled_agent_is_refused_its_configuration_but_may_heartbeat(sandbox: Sandbox, agent_id: str) -> None:
    assert rest(sandbox, "PUT", f"/v1/agents/{agent_id}/enabled", json={"enabled": False}).json() == {}
    assert agent_call(sandbox, "POST", "config", agent_id).status_code == 403
    assert agent_call(sandbox, "POST", "credentials", agent_id).status_code == 403
    assert agent_call(sandbox, "POST", "status", agent_id).status_code == 200
    assert rest(sandbox, "GET", f"/v1/agents/{agent_id}").json()["isEnabled"] is False
    rest(sandbox, "PUT", f"/v1/agents/{agent_id}/enabled", json={"enabled": True})
    assert agent_call(sandbox, "POST", "config", agent_id).status_code == 200


def test_a_disabled_queue_has_no_url_anywhere(sandbox: Sandbox, agent_id: str) -> None:
    url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    enabled = {"enabled": True, "name": url, "visibilityTimeout": 600}
    assert rest(sandbox, "GET", f"/v1/agents/{agent_id}/command-queue").json() == enabled
    assert rest(sandbox, "PUT", f"/v1/agents/{agent_id}/command-queue", json={"enabled": False}).json() == {"enabled": False}
    assert config(sandbox, agent_id)["rpcSourceQueueUrl"] is None
    assert rest(sandbox, "GET", f"/v1/agents/{agent_id}").json()["queue"] == {"enabled": False}
    assert rest(sandbox, "PUT", f"/v1/agents/{agent_id}/command-queue", json={"enabled": True}).json() == enabled


def test_enabled_must_be_a_boolean(sandbox: Sandbox, agent_id: str) -> None:
    assert rest(sandbox, "PUT", f"/v1/agents/{agent_id}/enabled", json={"enabled": "yes"}).status_code == 400


def test_a_moved_queue_is_used_from_the_next_configuration_on(sandbox: Sandbox, agent_id: str) -> None:
    before = config(sandbox, agent_id)["rpcSourceQueueUrl"]
    moved = sandbox.move_queue(agent_id, delete=True)
    assert config(sandbox, agent_id)["rpcSourceQueueUrl"] == moved != before


@pytest.mark.parametrize("method, change", [("POST", {"agent": "Other.Agent"}), ("PUT", {"statusSetting": "PAUSED"})])
def test_a_status_outside_the_references_values_is_a_400(sandbox: Sandbox, agent_id: str, method: str, change: dict[str, str]) -> None:
    assert agent_call(sandbox, method, "status", agent_id, **change).status_code == 400


def test_system_metrics_and_logs_come_as_files(sandbox: Sandbox, agent_id: str) -> None:
    fields = {"agentId": agent_id, "agentVersion": "v1"}
    metric = ("m.json", b'{"cpu": 1}\n{"cpu": 2}\n')
    answer = rest(sandbox, "POST", "/v1/data-acquisition/agent/systemmetric", data=fields, files={"systemmetric": metric})
    assert answer.json() == {"message": "OK"}
    assert sandbox.system_metrics[-1] == (agent_id, [{"cpu": 1}, {"cpu": 2}])
    rest(sandbox, "POST", "/v1/data-acquisition/agent/log", data=fields, files={"log": ("l.txt", "grüße".encode())})
    assert sandbox.uploaded_logs[-1] == (agent_id, "grüße")
    assert sandbox.requests[-1].fields == fields
    assert rest(sandbox, "POST", "/v1/data-acquisition/agent/log", data=fields).status_code == 400


def test_every_answer_has_a_date_that_follows_the_platforms_clock(sandbox: Sandbox, agent_id: str) -> None:
    sandbox.clock_offset = timedelta(hours=1)
    try:
        date = parsedate_to_datetime(rest(sandbox, "GET", f"/v1/agents/{agent_id}").headers["date"])
    finally:
        sandbox.clock_offset = timedelta()
    assert timedelta(minutes=59) < date - datetime.now(UTC) < timedelta(minutes=61)


def test_calls_are_noted_in_order_without_the_token(sandbox: Sandbox, agent_id: str) -> None:
    config(sandbox, agent_id)
    agent_call(sandbox, "PUT", "status", agent_id, statusSetting="STARTED")
    calls = sandbox.requests[-2:]
    assert [(call.method, call.path.rpartition("/")[2], call.status) for call in calls] == [("POST", "config", 200), ("PUT", "status", 200)]
    assert calls[1].json["statusSetting"] == "STARTED"
    assert sandbox.jwt not in json.dumps([call.headers for call in calls])


def test_an_unknown_route_answers_in_the_platforms_form(sandbox: Sandbox) -> None:
    assert rest(sandbox, "GET", "/v1/nowhere").json() == {"statusCode": 404, "error": "Not Found", "message": "Not Found"}
    assert rest(sandbox, "DELETE", "/v1/agents").json()["statusCode"] == 405
