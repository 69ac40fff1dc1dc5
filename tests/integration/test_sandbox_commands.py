"""The sandbox's commands: what may be created, their states, how they are found (PROTOCOL §1, §2).

Through REST and real queues, without an agent.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from relay_agent.sandbox.changes import Changes
from relay_agent.sandbox.commands import Commands
from relay_agent.sandbox.server import Sandbox
from tests.integration.sandbox_calls import REQUEST, aws, config, new_command, receive, report, rest

COMMAND_FIELDS = {
    "id",
    "orgSlug",
    "targetId",
    "action",
    "expiresAt",
    "metadata",
    "status",
    "requestBody",
    "responseBody",
    "requestPayloadDelivery",
    "createdByEntity",
    "createdBy",
    "createdAt",
    "updatedAt",
}
MEBIBYTE = 1024 * 1024


def test_a_created_command_is_pending_and_on_its_agents_queue(sandbox: Sandbox, agent_id: str) -> None:
    answer = rest(sandbox, "POST", "/v1/commands", json=new_command(agent_id, metadata={"vendor": "tetra"}))
    created = answer.json()
    assert answer.status_code == 200
    assert set(created) == COMMAND_FIELDS
    assert (created["status"], created["requestPayloadDelivery"]) == ("PENDING", "embedded")
    [message] = receive(sandbox, agent_id)
    assert message.pop("responseBodyUploadUrl").startswith(sandbox.aws_endpoint)
    assert message == created["requestBody"] | {"bodyDelivery": "embedded"}
    assert message["body"] == REQUEST


def test_a_command_goes_from_created_to_success_with_its_history(sandbox: Sandbox, agent_id: str) -> None:
    command_id = rest(sandbox, "POST", "/v1/commands", json=new_command(agent_id)).json()["id"]
    report(sandbox, agent_id, command_id, "PROCESSING")
    sandbox.wait(lambda: sandbox.command(command_id).status == "PROCESSING")
    report(sandbox, agent_id, command_id, "SUCCESS", body={"statusCode": 200})
    assert sandbox.wait_final(command_id).status == "SUCCESS"
    assert rest(sandbox, "GET", f"/v1/commands/{command_id}").json()["responseBody"] == {"statusCode": 200}
    history = rest(sandbox, "GET", f"/v1/commands/{command_id}/history").json()
    assert history["id"] == command_id
    assert [(line["reason"], line["updatedBy"]) for line in history["history"]] == [
        ("Command created", "platform"),
        ("Status update to PENDING", "platform"),
        ("Command status changed to PROCESSING", "target"),
        ("Command status changed to SUCCESS", "target"),
    ]
    assert {"id", "commandId", "reason", "updatedBy", "updatedAt"} == set(history["history"][0])


def test_nothing_undoes_a_final_status(sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    report(sandbox, agent_id, command_id, "FAILURE", "PROCESSING", "SUCCESS")
    sandbox.wait(lambda: len(sandbox.command(command_id).updates) == 3)
    command = sandbox.command(command_id)
    assert command.status == "FAILURE"
    assert sorted(json.loads(text)["status"] for text in command.updates) == ["FAILURE", "PROCESSING", "SUCCESS"]
    assert [event.reason for event in command.history if "ignored" in event.reason] == [
        "Status PROCESSING ignored: the command is FAILURE",
        "Status SUCCESS ignored: the command is FAILURE",
    ]


def test_a_status_no_target_may_set_is_ignored(sandbox: Sandbox, agent_id: str) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST)
    report(sandbox, agent_id, command_id, "PURGED", "REJECTED")
    assert sandbox.wait_final(command_id).status == "REJECTED"


def test_a_message_that_names_no_command_is_kept_aside(sandbox: Sandbox, agent_id: str) -> None:
    report(sandbox, agent_id, "nobody's", "SUCCESS")
    sandbox.wait(lambda: any("nobody's" in text for text in sandbox.unmatched_updates))


@pytest.mark.parametrize(
    "change", [{"targetId": ""}, {"action": None}, {"payload": "text"}, {"expiresAt": "soon"}, {"payloadDelivery": "pigeon"}]
)
def test_a_field_of_the_wrong_form_is_a_400_that_names_it(sandbox: Sandbox, agent_id: str, change: dict[str, object]) -> None:
    answer = rest(sandbox, "POST", "/v1/commands", json=new_command(agent_id) | change)
    assert answer.status_code == 400
    assert next(iter(change)) in answer.json()["validation"][0]["message"]


def test_expires_at_must_be_as_far_ahead_as_the_sandbox_says(agent_id: str, sandbox: Sandbox) -> None:
    answer = rest(sandbox, "POST", "/v1/commands", json=new_command(agent_id, seconds=-5))
    assert answer.status_code == 400
    assert answer.json()["message"] == "Param expiresAt must be at least 1 seconds from current date timestamp"


@pytest.mark.parametrize("form", ["Z", "+00:00", "+05:30"])
def test_expires_at_may_have_any_offset(sandbox: Sandbox, agent_id: str, form: str) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    shifted = at + timedelta(hours=5, minutes=30) if form == "+05:30" else at
    text = shifted.replace(tzinfo=None).isoformat() + form
    created = rest(sandbox, "POST", "/v1/commands", json=new_command(agent_id, expiresAt=text)).json()
    assert abs(datetime.fromisoformat(created["expiresAt"]) - at) < timedelta(milliseconds=1)


@pytest.mark.parametrize("metadata", [{"vendor": "tétra"}, {"vendor": 1}, {"ü": "a"}, ["a"]])
def test_metadata_must_be_ascii_strings(sandbox: Sandbox, agent_id: str, metadata: object) -> None:
    answer = rest(sandbox, "POST", "/v1/commands", json=new_command(agent_id, metadata=metadata))
    assert answer.status_code == 400
    assert "ASCII" in answer.json()["message"]


def test_a_request_over_10_mb_is_refused_and_one_below_goes_referenced(sandbox: Sandbox, agent_id: str) -> None:
    def body(size: int) -> dict[str, object]:
        return new_command(agent_id, payload={"url": "http://x", "body": "x" * size})

    answer = rest(sandbox, "POST", "/v1/commands", json=body(10 * MEBIBYTE))
    assert answer.status_code == 400
    assert answer.json()["message"] == "Command request payload is larger than maximum size of 10 MB."
    assert rest(sandbox, "POST", "/v1/commands", json=body(10 * MEBIBYTE - 2000)).json()["requestPayloadDelivery"] == "referenced"


def test_a_command_for_an_unknown_agent_is_a_404(sandbox: Sandbox) -> None:
    assert rest(sandbox, "POST", "/v1/commands", json=new_command("somebody")).status_code == 404


def test_a_command_for_a_disabled_queue_is_unsent(sandbox: Sandbox, agent_id: str) -> None:
    sandbox.enable_queue(agent_id, False)
    assert rest(sandbox, "POST", "/v1/commands", json=new_command(agent_id)).json()["status"] == "UNSENT"
    assert sandbox.queue_depth(agent_id) == (0, 0)


def test_an_unknown_command_is_a_404(sandbox: Sandbox) -> None:
    assert rest(sandbox, "GET", "/v1/commands/none").json()["message"] == "Command with ID none not found"
    assert rest(sandbox, "GET", "/v1/commands/none/history").json()["message"] == "Command with given ID none does not exist"


@pytest.mark.parametrize("under_way", [False, True])
def test_a_command_expires_while_it_is_not_final(sandbox: Sandbox, agent_id: str, under_way: bool) -> None:
    command_id = sandbox.create_command(agent_id, REQUEST, expires_in=0.3)
    if under_way:
        report(sandbox, agent_id, command_id, "PROCESSING")
    command = sandbox.wait_final(command_id)
    assert command.status == "EXPIRED"
    report(sandbox, agent_id, command_id, "SUCCESS")
    sandbox.wait(lambda: "Status SUCCESS ignored: the command is EXPIRED" in [event.reason for event in command.history])


def test_a_purge_empties_the_queue_and_marks_what_waited(sandbox: Sandbox, agent_id: str) -> None:
    waiting = [sandbox.create_command(agent_id, REQUEST) for _ in range(2)]
    running = sandbox.create_command(agent_id, REQUEST)
    report(sandbox, agent_id, running, "PROCESSING")
    sandbox.wait(lambda: sandbox.command(running).status == "PROCESSING")
    answer = rest(sandbox, "DELETE", f"/v1/commands?targetId={agent_id}").json()
    assert answer == {"purged": [{"commandId": command_id} for command_id in waiting]}
    assert {sandbox.command(command_id).status for command_id in waiting} == {"PURGED"}
    assert sandbox.command(running).status == "PROCESSING"
    assert sandbox.queue_depth(agent_id) == (0, 0)
    assert rest(sandbox, "DELETE", "/v1/commands").status_code == 400


def test_of_very_many_commands_the_oldest_is_forgotten(sandbox: Sandbox, agent_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(sandbox.now, Changes())
    monkeypatch.setattr("relay_agent.sandbox.commands.KEPT", 2)
    template = sandbox.command(sandbox.create_command(agent_id, REQUEST))
    for name in ("one", "two", "three"):
        commands.add(replace(template, id=name, history=[]))
    assert [command.id for command in commands.all()] == ["two", "three"]
    commands.expire()


def test_search_filters_by_every_field_and_pages(sandbox: Sandbox, agent_id: str) -> None:
    ids = [sandbox.create_command(agent_id, REQUEST, action=f"A.{number}", metadata={"n": str(number)}) for number in range(3)]
    report(sandbox, agent_id, ids[1], "SUCCESS")
    sandbox.wait_final(ids[1])

    def found(query: str) -> list[int]:
        hits = rest(sandbox, "GET", f"/v1/commands?targetId={agent_id}&{query}").json()["hits"]
        return [ids.index(hit["id"]) for hit in hits]

    assert found("") == [2, 1, 0]
    assert found("sort=asc") == [0, 1, 2]
    assert found("sortBy=updatedAt")[0] == 1
    assert found("status=SUCCESS&status=FAILURE") == [1]
    assert found("action=A.0&action=A.2") == [2, 0]
    assert found("metadata.n=2") == [2]
    assert found("createdAtAfter=2100-01-01T00:00:00Z") == []
    assert found("toDate=2100-01-01T00:00:00%2B01:00&expiresAtAfter=2001-01-01T00:00:00Z") == [2, 1, 0]
    page = rest(sandbox, "GET", f"/v1/commands?targetId={agent_id}&from=1&size=1").json()
    assert ([hit["id"] for hit in page["hits"]], page["hasNext"], page["from"], page["size"], page["sort"]) == (
        [ids[1]],
        True,
        1,
        1,
        "desc",
    )


@pytest.mark.parametrize("query", ["status=LOST", "sort=up", "sortBy=name", "size=many", "from=-1", "createdAtAfter=then"])
def test_a_filter_that_makes_no_sense_is_a_400(sandbox: Sandbox, query: str) -> None:
    assert rest(sandbox, "GET", f"/v1/commands?{query}").status_code == 400


def test_actions_lists_what_agents_answer(sandbox: Sandbox) -> None:
    assert "TetraScience.Connector.gdc.HttpRequest" in rest(sandbox, "GET", "/v1/commands/actions").json()


@pytest.mark.parametrize("route", ["/internal", "/api/v1/commands"])
def test_the_vendors_sdk_needs_only_the_organisation(sandbox: Sandbox, agent_id: str, route: str) -> None:
    headers = {"x-org-slug": sandbox.org_slug}
    nothing = {"workflowId": None, "pipelineId": None, "taskId": None}
    answer = rest(sandbox, "POST", route, json=new_command(agent_id, metadata=nothing), headers=headers)
    assert answer.status_code == 200
    command_id = answer.json()["id"]
    report(sandbox, agent_id, command_id, "SUCCESS", body="done")
    sandbox.wait_final(command_id)
    assert rest(sandbox, "GET", f"{route}/{command_id}", headers=headers).json()["responseBody"] == "done"
    assert rest(sandbox, "GET", f"{route}/{command_id}", headers={}).status_code == 403


def test_the_order_of_a_payloads_fields_is_kept(sandbox: Sandbox, agent_id: str) -> None:
    payload = {"z": 1, "a": 2, "m": {"y": 1, "b": 2}}
    rest(sandbox, "POST", "/v1/commands", json=new_command(agent_id, payload=payload))
    assert json.dumps(receive(sandbox, agent_id)[0]["body"]) == json.dumps(payload)


def test_a_message_group_in_flight_holds_up_only_its_own_commands(sandbox: Sandbox, agent_id: str) -> None:
    first, _, other = [sandbox.create_command(agent_id, REQUEST, group=group) for group in (None, None, "another")]
    with aws(sandbox, "sqs") as sqs:
        url = config(sandbox, agent_id)["rpcSourceQueueUrl"]
        calls = [sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=most, WaitTimeSeconds=2)["Messages"] for most in (1, 10)]
    assert [[json.loads(message["Body"])["commandId"] for message in found] for found in calls] == [[first], [other]]
