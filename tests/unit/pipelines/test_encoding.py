"""The sender's half of the wire: a request as a payload, and an answer read back (PROTOCOL §3 to §5)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.errors import SecureCommandError
from relay_agent.pipelines.encoding import BadAnswer, read_answer, read_sealed_answer, request_payload, sealed_payload
from relay_agent.protocol.jwe import open_command, seal_answer
from relay_agent.protocol.keyring import Keyring
from relay_agent.protocol.requests import decode_payload, decode_request, take_envelope

RING, OTHER = Keyring([bytes(range(32))]), Keyring([bytes(range(32, 64))])
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def command(body: object, status: str = "SUCCESS") -> dict[str, Any]:
    return {"id": "c-1", "status": status, "responseBody": body if isinstance(body, str) or body is None else json.dumps(body)}


def sealed(body: object, *, cid: str = "c-1", jti: str = "once", ring: Keyring = RING) -> dict[str, Any]:
    return {"statusCode": 200, "jwe": "".join(seal_answer([json.dumps(body).encode()], ring, cid=cid, jti=jti))}


@given(st.binary(max_size=100))
def test_the_agent_reads_the_request_that_a_sender_encodes(body: bytes) -> None:
    found = decode_request(request_payload("PUT", "http://h/a", [("X-A", "1"), ("X-A", "2")], body, 30.0))
    assert (found.method, str(found.url), found.headers, found.timeout) == ("PUT", "http://h/a", (("X-A", "1"), ("X-A", "2")), 30.0)
    assert found.body == body


def test_a_sealed_payload_is_for_one_agent() -> None:
    payload = request_payload("GET", "http://h/", [], None, 1.0)
    envelope = sealed_payload(payload, RING, agent_id="a-1", expires_at=NOW + timedelta(minutes=5), jti="once")
    opened = open_command(take_envelope(dict(envelope)), RING, agent_id="a-1", now=NOW)
    assert (decode_payload(opened.plaintext), opened.jti) == (payload, "once")
    with pytest.raises(SecureCommandError):
        open_command(take_envelope(envelope), RING, agent_id="a-2", now=NOW)


def test_a_response_and_a_failure_are_told_apart() -> None:
    response = read_answer(command({"statusCode": 404, "body": "gone"}, "FAILURE"))
    assert (response.http, response.status_code) == (True, 404)
    failure = read_answer(command({"code": "ECONNREFUSED"}, "FAILURE"))
    assert (failure.http, failure.status_code, failure.code) == (False, None, "ECONNREFUSED")
    undelivered = read_answer(command({"statusCode": 200, "code": "ERESPONSETOOLARGE"}, "FAILURE"))
    assert (undelivered.http, undelivered.code) == (False, "ERESPONSETOOLARGE")
    assert read_answer(command(None, "EXPIRED")).code == "EXPIRED"


@pytest.mark.parametrize("body", ["no json", "[]", [], {"jwe": base64.b64encode(b"x").decode()}])
def test_what_is_no_plain_answer_is_refused_without_being_repeated(body: object) -> None:
    found = command(body) if not (isinstance(body, list) and not body) else {"id": "c-1", "responseBody": [1]}
    if body == "no json" or body == "[]":
        assert read_answer(found).body == {}
    else:
        with pytest.raises(BadAnswer):
            read_answer(found)


def test_a_sealed_answer_decides_for_itself_whether_it_is_a_success() -> None:
    assert read_sealed_answer(command(sealed({"statusCode": 200, "body": "x"}), "FAILURE"), RING, "once").status == "SUCCESS"
    found = read_sealed_answer(command(sealed({"statusCode": 500, "body": "x"})), RING, "once")
    assert (found.status, found.sealed, found.status_code) == ("FAILURE", True, 500)


@pytest.mark.parametrize("forged", [{"statusCode": 200, "body": "forged"}, {}])
def test_a_success_in_the_clear_is_no_answer_to_a_secure_command(forged: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer):
        read_sealed_answer(command(forged), RING, "once")


def test_a_failure_in_the_clear_only_says_that_there_is_no_response() -> None:
    found = read_sealed_answer(command({"code": "ENOKEY"}, "FAILURE"), RING, "once")
    assert (found.sealed, found.http, found.code) == (False, False, "ENOKEY")


@pytest.mark.parametrize("other", [{"cid": "c-2"}, {"jti": "twice"}, {"ring": OTHER}])
def test_an_answer_to_another_command_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(SecureCommandError):
        read_sealed_answer(command(sealed({"statusCode": 200}, **other)), RING, "once")
