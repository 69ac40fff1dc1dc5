"""The life of a command: every rule of PROTOCOL §2 to §4 through a real agent, real queues and a real target.

With a healthy platform. The details of HTTP are in the contract tests.
"""

from __future__ import annotations

import base64
import gzip
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, body, running, statuses, wait_until
from tests.target_server import RawRequest
from tests.targets import ByteTarget, closed_port, reply

LIMIT = 262_144
PLAIN = ("TetraScience.Connector.gdc.HttpRequest", "TetraScience.Connector.http.Request.V1")
FINAL = {"SUCCESS", "FAILURE", "REJECTED"}


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One real agent for the module."""
    with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"))) as started:
        yield started


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    """One target for the module; `/size?bytes=` answers with that much text."""
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        running_target.on("/size", lambda conn, request: conn.respond(200, [("Content-Type", "text/plain")], sized(request)))
        yield running_target


def sized(request: RawRequest) -> bytes:
    return b"a" * int(request.target.partition("=")[2])


def message(agent: RunningAgent, **fields: Any) -> dict[str, Any]:
    """A message of the inbound queue as the platform would write it, for a command that the platform knows and has not sent."""
    now = datetime.now(UTC)
    expires = now + timedelta(minutes=5)
    command = Command(str(uuid.uuid4()), agent.sandbox.org_slug, agent.agent_id, PLAIN[0], now, expires, now, {})
    agent.sandbox.commands.add(command)
    sent = command.request_json() | {"body": {"url": "http://127.0.0.1:9/"}, "bodyDelivery": "embedded"}
    return sent | fields


def answer_to(agent: RunningAgent, sent: dict[str, Any]) -> dict[str, Any]:
    """Put such a message on the queue, and wait for its final answer."""
    agent.sandbox.send_raw(agent.agent_id, json.dumps(sent))
    return updates(agent.sandbox.wait_final(sent["commandId"]))[-1]


def updates(command: Command) -> list[dict[str, Any]]:
    return [json.loads(text) for text in command.updates]


# --- actions and the form of an answer ---


@pytest.mark.parametrize("action", PLAIN)
def test_both_plain_actions_make_the_request(agent: RunningAgent, target: ByteTarget, action: str) -> None:
    command = agent.ask({"url": target.url("/")}, action)
    assert command.status == "SUCCESS"
    assert body(command)["body"] == "here"


def test_an_update_has_the_fields_of_the_protocol_and_no_other(agent: RunningAgent, target: ByteTarget) -> None:
    command = agent.get(target.url("/"))
    [update] = updates(command)
    assert update.pop("body") == body(command)
    assert abs(datetime.fromisoformat(update.pop("createdAt")) - datetime.now(UTC)) < timedelta(seconds=10)
    assert update == {"commandId": command.id, "targetId": agent.agent_id, "status": "SUCCESS", "responseBodyDelivery": "embedded"}


def test_a_response_has_the_fields_of_the_protocol_in_order(agent: RunningAgent, target: ByteTarget) -> None:
    target.on(
        "/created", reply(201, [("content-type", "text/plain"), ("Set-Cookie", "a=1"), ("X-One", "1"), ("Set-Cookie", "b=2")], "text")
    )
    answer = body(agent.ask({"method": "POST", "url": target.url("/created")}))
    assert list(answer) == ["statusCode", "headers", "body", "bodyEncoding", "url", "elapsedMs"]
    assert isinstance(answer.pop("elapsedMs"), int)
    assert answer == {
        "statusCode": 201,
        "headers": [{"content-type": "text/plain"}, {"Set-Cookie": ["a=1", "b=2"]}, {"X-One": "1"}, {"Content-Length": "4"}],
        "body": "text",
        "bodyEncoding": "utf-8",
        "url": target.url("/created"),
    }


def test_the_request_arrives_as_the_command_says(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/path", reply())
    agent.ask(
        {
            "method": "POST",
            "url": target.url("/path?x=%2F&y"),
            "headers": [{"Content-Type": "application/json"}, {"X-Two": "a"}, {"X-Two": "b"}],
            "body": {"mode": "raw", "raw": '{"id":1}'},
        }
    )
    seen = target.last
    assert (seen.method, seen.target, seen.body) == ("POST", "/path?x=%2F&y", b'{"id":1}')
    assert seen.get_all("X-Two") == ["a", "b"]
    assert seen.get_all("Content-Type") == ["application/json"]


@pytest.mark.parametrize(
    "status, expected", [(200, "SUCCESS"), (204, "SUCCESS"), (304, "SUCCESS"), (400, "FAILURE"), (404, "FAILURE"), (503, "FAILURE")]
)
def test_a_command_succeeds_below_400_and_fails_from_400_on(agent: RunningAgent, target: ByteTarget, status: int, expected: str) -> None:
    target.on(f"/{status}", reply(status, body="" if status in (204, 304) else "words"))
    command = agent.get(target.url(f"/{status}"))
    assert command.status == expected
    assert body(command)["statusCode"] == status


def test_without_a_response_there_is_no_status_code_but_a_code(agent: RunningAgent) -> None:
    command = agent.get(f"http://127.0.0.1:{closed_port()}/")
    assert command.status == "FAILURE"
    assert set(body(command)) == {"code", "message", "url", "elapsedMs"}
    assert body(command)["code"] == "ECONNREFUSED"


def test_binary_answers_are_base64(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/binary", reply(body=bytes(range(256))))
    answer = body(agent.get(target.url("/binary")))
    assert (answer["bodyEncoding"], base64.b64decode(answer["body"])) == ("base64", bytes(range(256)))


def test_an_unknown_action_is_rejected(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/unknown", reply())
    command = agent.ask({"url": target.url("/unknown")}, "TetraScience.Connector.gdc.Nonsense")
    assert command.status == "REJECTED"
    assert body(command)["code"] == "UNKNOWN_COMMAND"
    assert body(command)["message"]
    assert [request for request in target.requests if request.target == "/unknown"] == []


def test_an_expired_command_is_rejected_and_never_sent(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/expired", reply())
    command = agent.create({"url": target.url("/expired")}, expires_in=0)
    wait_until(agent.sandbox, lambda: len(command.updates) == 1)
    [update] = updates(command)
    assert (update["status"], update["body"]["code"]) == ("REJECTED", "EEXPIRED")
    assert "statusCode" not in update["body"]
    assert [request for request in target.requests if request.target == "/expired"] == []


def test_a_secure_command_without_a_key_is_enokey(agent: RunningAgent) -> None:
    command = agent.ask({"jwe": "a.b.c.d.e"}, "TetraScience.Connector.http.Request.V2")
    assert (command.status, body(command)["code"]) == ("FAILURE", "ENOKEY")
    assert "SECURE_COMMAND_KEY" in body(command)["message"]


def test_what_is_left_until_expires_at_bounds_the_request(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/hang", lambda conn, _: conn.hang(10))
    command = agent.create({"url": target.url("/hang"), "timeout": 30}, expires_in=1)
    wait_until(agent.sandbox, lambda: any(update["status"] != "PROCESSING" for update in updates(command)))
    assert updates(command)[-1]["body"]["code"] == "ETIMEDOUT"


WRONG_FIELDS = {
    "url": {"url": 7},
    "method": {"url": "http://x/", "method": "G\r\nET"},
    "headers": {"url": "http://x/", "headers": "canary-value"},
    "headers[0].X-A": {"url": "http://x/", "headers": [{"X-A": "canary-value\r\nX: y"}]},
    "timeout": {"url": "http://x/", "timeout": "canary-value"},
    "follow_redirects": {"url": "http://x/", "follow_redirects": "canary-value"},
    "ignore_tls_certificate": {"url": "http://x/", "ignore_tls_certificate": 1},
    "encrypt_response": {"url": "http://x/", "encrypt_response": "canary-value"},
    "body": {"url": "http://x/", "body": 7},
}


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_a_field_of_the_wrong_type_is_named_and_its_value_is_not(agent: RunningAgent, field: str) -> None:
    command = agent.ask(WRONG_FIELDS[field])
    assert (command.status, body(command)["code"]) == ("FAILURE", "EBADCOMMAND")
    assert field in body(command)["message"]
    assert "canary" not in command.updates[-1]


# --- bodies through S3 ---


@pytest.mark.parametrize("size", [0, 10, 300_000, 2_000_000])
def test_a_referenced_command_body_arrives_whole(agent: RunningAgent, target: ByteTarget, size: int) -> None:
    target.on("/referenced", reply(body="thanks"))
    text = "ü" * size
    command = agent.ask({"method": "POST", "url": target.url("/referenced"), "body": {"mode": "raw", "raw": text}}, delivery="referenced")
    assert command.status == "SUCCESS"
    assert target.last.body.decode() == text


@pytest.mark.parametrize("packed", [False, True])
def test_a_referenced_body_is_fetched_without_any_header_of_ours(agent: RunningAgent, target: ByteTarget, packed: bool) -> None:
    data = json.dumps({"url": target.url("/after-fetch")}).encode()
    headers = [("Content-Encoding", "gzip")] if packed else []
    target.on("/after-fetch", reply(body="fetched"))
    target.on("/bucket", reply(200, [("Content-Type", "application/json"), *headers], gzip.compress(data) if packed else data))
    sent = message(agent, body=None, bodyDelivery="referenced", bodyUrl=target.url("/bucket?X-Amz-Signature=s"))
    assert answer_to(agent, sent)["body"]["body"] == "fetched"
    fetch = next(request for request in reversed(target.requests) if request.target.startswith("/bucket"))
    assert (fetch.method, fetch.target) == ("GET", "/bucket?X-Amz-Signature=s")
    assert set(fetch.names) <= {"host", "user-agent", "accept-encoding", "accept", "connection"}


@pytest.mark.parametrize("status, data", [(403, b"<Error/>"), (404, b""), (200, b"no json"), (200, b"\x1f\x8bdamaged")])
def test_a_referenced_body_that_cannot_be_downloaded_fails_the_command(
    agent: RunningAgent, target: ByteTarget, status: int, data: bytes
) -> None:
    target.on("/lost", reply(status, body=data))
    sent = message(agent, body=None, bodyDelivery="referenced", bodyUrl=target.url("/lost?X-Amz-Signature=canary-signature"))
    answer = answer_to(agent, sent)
    assert (answer["status"], answer["body"]["code"]) == ("FAILURE", "EBADCOMMAND")
    assert "canary" not in json.dumps(answer)


def test_a_response_over_the_limit_is_uploaded_and_equal_to_the_byte(agent: RunningAgent, target: ByteTarget) -> None:
    text = "".join(chr(33 + place % 90) + "é" for place in range(400_000))
    target.on("/large", reply(200, [("Content-Type", "text/plain; charset=utf-8")], text))
    command = agent.get(target.url("/large"))
    assert command.status == "SUCCESS"
    assert body(command)["body"] == text
    final = updates(command)[-1]
    assert (final["responseBodyDelivery"], final["body"]) == ("referenced", None)


def test_a_binary_response_over_the_limit_is_equal_to_the_byte(agent: RunningAgent, target: ByteTarget) -> None:
    data = bytes(range(256)) * 4001
    target.on("/large-binary", reply(body=data))
    answer = body(agent.get(target.url("/large-binary")))
    assert (answer["bodyEncoding"], base64.b64decode(answer["body"])) == ("base64", data)


def test_an_upload_is_gzip_json_without_any_header_of_ours(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/upload", reply())
    sent = message(agent, body={"url": target.url("/size?bytes=300000")}, responseBodyUploadUrl=target.url("/upload?X-Amz-Signature=s"))
    final = answer_to(agent, sent)
    assert (final["status"], final["responseBodyDelivery"], final["body"]) == ("SUCCESS", "referenced", None)
    put = target.last
    assert (put.method, put.target) == ("PUT", "/upload?X-Amz-Signature=s")
    assert put.get_all("Content-Type") == ["application/json"]
    assert put.get_all("Content-Encoding") == ["gzip"]
    assert set(put.names) <= {
        "host",
        "user-agent",
        "accept-encoding",
        "accept",
        "connection",
        "content-type",
        "content-encoding",
        "content-length",
    }
    assert json.loads(gzip.decompress(put.body))["body"] == "a" * 300_000


@pytest.mark.parametrize("where", [None, "/refuses"])
def test_a_response_that_cannot_be_uploaded_fails_with_its_status(agent: RunningAgent, target: ByteTarget, where: str | None) -> None:
    target.on("/refuses", reply(403, body="<Error/>"))
    fields = {"responseBodyUploadUrl": target.url(where)} if where else {}
    sent = message(agent, body={"url": target.url("/size?bytes=300000")}, **fields)
    final = answer_to(agent, sent)
    assert (final["status"], final["responseBodyDelivery"]) == ("FAILURE", "embedded")
    assert (final["body"]["code"], final["body"]["statusCode"]) == ("ERESPONSETOOLARGE", 200)
    agent.wait_log("command", id=sent["commandId"], status="FAILURE", code="ERESPONSETOOLARGE", statusCode=200)
    assert len([line for line in agent.events("command") if line["id"] == sent["commandId"]]) == 1


def test_the_limit_is_that_of_the_message(agent: RunningAgent, target: ByteTarget) -> None:
    [update] = agent.get(target.url("/size?bytes=200000")).updates
    room = LIMIT - (len(update.encode()) - 200_000)
    under, over = (agent.get(target.url(f"/size?bytes={room + change}")) for change in (-4, 4))
    assert updates(under)[-1]["responseBodyDelivery"] == "embedded"
    assert LIMIT - 8 <= len(under.updates[-1].encode()) <= LIMIT
    assert updates(over)[-1]["responseBodyDelivery"] == "referenced"
    assert (body(under)["body"], body(over)["body"]) == ("a" * (room - 4), "a" * (room + 4))


NASTY = {
    "control characters": "".join(map(chr, range(0x20))) + "\x7f\x80\x85\x9f",
    "noncharacters": "\ufffe\uffff\U0001ffff\ufdd0",
    "text that looks like escapes": '\\ud800 \\u0000 \\\\ "quoted" </script> \\',
    "astral and separators": "😀 \u2028\u2029 \ufeff ü",
    "a lone surrogate's bytes": "\ud800",
}


@pytest.mark.parametrize("name", NASTY)
def test_any_character_travels_embedded(agent: RunningAgent, target: ByteTarget, name: str) -> None:
    data = NASTY[name].encode("utf-8", "surrogatepass")
    target.on("/nasty", reply(200, [("Content-Type", "text/plain; charset=utf-8"), ("X-Odd", "\x80\xff\x9f")], data))
    command = agent.get(target.url("/nasty"))
    assert updates(command)[-1]["responseBodyDelivery"] == "embedded"
    answer = body(command)
    received = base64.b64decode(answer["body"]) if answer["bodyEncoding"] == "base64" else answer["body"].encode("utf-8")
    assert received == data
    assert {"X-Odd": "\x80\xff\x9f"} in answer["headers"]


# --- PROCESSING, and one final status ---


def test_a_command_still_under_way_after_250_ms_gets_one_processing(agent: RunningAgent, target: ByteTarget) -> None:
    gate = target.gate()
    target.on("/slowly", lambda conn, _: (conn.wait(gate), conn.respond(200)))
    before = datetime.now(UTC)
    command = agent.create({"url": target.url("/slowly")})
    gate.wait_reached()
    wait_until(agent.sandbox, lambda: statuses(command) == ["PROCESSING"])
    gate.release()
    agent.sandbox.wait_final(command.id)
    agent.get(target.url("/"))
    assert statuses(command) == ["PROCESSING", "SUCCESS"]
    first, final = updates(command)
    assert set(first) == {"commandId", "targetId", "status", "body", "responseBodyDelivery", "createdAt"}
    assert first["body"] in ({}, None)
    assert datetime.fromisoformat(first["createdAt"]) - before > timedelta(seconds=0.249)
    assert datetime.fromisoformat(first["createdAt"]) <= datetime.fromisoformat(final["createdAt"])


def test_a_quick_command_gets_no_processing(agent: RunningAgent, target: ByteTarget) -> None:
    commands = [agent.get(target.url("/")) for _ in range(5)]
    assert [statuses(command) for command in commands] == [["SUCCESS"]] * 5


def test_a_request_is_never_echoed(agent: RunningAgent, target: ByteTarget) -> None:
    gate = target.gate()
    target.on("/held", lambda conn, _: (conn.wait(gate), conn.respond(200)))
    secret = "canary-" + uuid.uuid4().hex
    command = agent.create({"method": "POST", "url": target.url("/held"), "headers": [{"Authorization": secret}], "body": secret})
    wait_until(agent.sandbox, lambda: command.status == "PROCESSING")
    gate.release()
    agent.sandbox.wait_final(command.id)
    assert [text for text in command.updates if secret in text] == []


# --- malformed messages ---

NOT_COMMANDS = {
    "no json": "canary no json",
    "a list": "[1, 2]",
    "a string": '"canary"',
    "null": "null",
    "no id": '{"action": "x"}',
    "a number for an id": '{"commandId": 7, "action": "x"}',
    "an empty id": '{"commandId": "", "action": "x"}',
    "a lone surrogate in the id": '{"commandId": "\\ud800", "action": "x"}',
    "NUL in the id": '{"commandId": "a\\u0000b", "action": "x"}',
}


@pytest.mark.parametrize("name", NOT_COMMANDS)
def test_a_message_that_is_not_a_command_is_logged_in_one_line_and_the_agent_goes_on(
    agent: RunningAgent, target: ByteTarget, name: str
) -> None:
    agent.ask_until_logged({"url": target.url("/")})
    before = len(agent.logs)
    agent.sandbox.send_raw(agent.agent_id, NOT_COMMANDS[name])
    assert agent.ask_until_logged({"url": target.url("/")}).status == "SUCCESS"
    wait_until(agent.sandbox, lambda: agent.sandbox.queue_depth(agent.agent_id) == (0, 0))
    fresh = agent.logs[before:]
    assert sorted(line["event"] for line in fresh) == ["command", "odd-message"]
    assert "canary" not in json.dumps(fresh)


_ACTION = "TetraScience.Connector.gdc.HttpRequest"
BARELY_READABLE = {
    "half an object": '{"commandId": "ID", "action":',
    "NaN": f'{{"commandId": "ID", "action": "{_ACTION}", "body": {{"url": "http://h/", "timeout": NaN}}}}',
    "deep nesting": '{"commandId": "ID", "body": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a huge number": f'{{"commandId": "ID", "action": "{_ACTION}", "body": {{"url": "http://h/", "timeout": ' + "9" * 10_000 + "}}",
}


@pytest.mark.parametrize("name", BARELY_READABLE)
def test_what_names_its_command_is_answered_however_it_is_written(agent: RunningAgent, name: str) -> None:
    command_id = str(uuid.uuid4())
    agent.sandbox.send_raw(agent.agent_id, BARELY_READABLE[name].replace("ID", command_id))
    wait_until(agent.sandbox, lambda: any(command_id in text for text in agent.sandbox.unmatched_updates))
    (answer,) = [json.loads(text) for text in agent.sandbox.unmatched_updates if command_id in text]
    assert (answer["status"], answer["body"]["code"], answer["targetId"]) == ("FAILURE", "EBADCOMMAND", agent.agent_id)


WRONG_MESSAGES = {
    "action is missing": {"action": None},
    "action is a number": {"action": 7},
    "action holds a lone surrogate": {"action": "a\ud800"},
    "expiresAt is no time": {"expiresAt": "soon"},
    "expiresAt is a number": {"expiresAt": 1e300},
    "createdAt is a list": {"createdAt": []},
    "bodyDelivery is unknown": {"bodyDelivery": "pigeon"},
    "bodyUrl is missing": {"bodyDelivery": "referenced", "body": None},
    "bodyUrl is a number": {"bodyDelivery": "referenced", "bodyUrl": 7},
    "responseBodyUploadUrl is an object": {"responseBodyUploadUrl": {}},
    "targetId is a number": {"targetId": 7, "action": 7},
    "the body is a string": {"body": "text"},
    "the body is a list": {"body": []},
    "the body is deep": {"body": {"url": "http://x/", "body": json.loads("[" * 400 + "]" * 400)}},
    "the timeout is huge": {"body": {"url": "http://x/", "timeout": 10**400}},
    "the url holds a lone surrogate": {"body": {"url": "http://x/\ud800"}},
}


@pytest.mark.parametrize("name", WRONG_MESSAGES)
def test_a_malformed_message_with_an_id_is_answered_ebadcommand(agent: RunningAgent, target: ByteTarget, name: str) -> None:
    answer = answer_to(agent, message(agent) | WRONG_MESSAGES[name])
    assert (answer["status"], answer["body"]["code"]) == ("FAILURE", "EBADCOMMAND")
    assert agent.get(target.url("/")).status == "SUCCESS"


@pytest.mark.parametrize("name", ["action is missing", "expiresAt is no time", "the body is a list"])
def test_a_malformed_message_with_an_id_costs_one_line(agent: RunningAgent, target: ByteTarget, name: str) -> None:
    agent.ask_until_logged({"url": target.url("/")})
    before = len(agent.logs)
    answer_to(agent, message(agent) | WRONG_MESSAGES[name])
    agent.ask_until_logged({"url": target.url("/")})
    assert len(agent.logs) - before == 2


# --- repeated messages ---


def test_a_message_that_comes_twice_is_run_and_answered_once(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/twice", reply())
    sent = json.dumps(message(agent, body={"method": "POST", "url": target.url("/twice")}))
    for _ in range(3):
        agent.sandbox.send_raw(agent.agent_id, sent)
    assert agent.get(target.url("/")).status == "SUCCESS"
    agent.sandbox.send_raw(agent.agent_id, sent)
    assert agent.get(target.url("/")).status == "SUCCESS"
    assert statuses(agent.sandbox.command(json.loads(sent)["commandId"])) == ["SUCCESS"]
    assert sum(request.target == "/twice" for request in target.requests) == 1


def test_an_id_that_comes_again_with_another_body_is_not_run(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/first", reply())
    target.on("/second", reply())
    sent = message(agent, body={"url": target.url("/first")})
    agent.sandbox.send_raw(agent.agent_id, json.dumps(sent))
    agent.sandbox.send_raw(agent.agent_id, json.dumps({**sent, "body": {"url": target.url("/second")}}))
    assert agent.get(target.url("/")).status == "SUCCESS"
    assert statuses(agent.sandbox.command(sent["commandId"])) == ["SUCCESS"]
    assert [request.target for request in target.requests if request.target in ("/first", "/second")] == ["/first"]


# --- at the end: what is true of all these requests ---


def test_nothing_of_the_platforms_ever_reached_a_target_or_a_presigned_url(agent: RunningAgent, target: ByteTarget) -> None:
    assert len(target.requests) > 30
    for request in target.requests:
        assert not {"ts-auth-token", "x-org-slug", "x-amz-security-token"} & set(request.names)
        assert agent.sandbox.jwt.encode() not in request.head + request.body


def test_every_command_of_this_module_has_exactly_one_final_status(agent: RunningAgent) -> None:
    commands = [command for command in agent.sandbox.commands.all() if command.target_id == agent.agent_id]
    assert len(commands) > 50
    assert {command.id: statuses(command) for command in commands if sum(status in FINAL for status in statuses(command)) != 1} == {}
