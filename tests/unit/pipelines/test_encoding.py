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
from relay_agent.pipelines.encoding import Answer, BadAnswer, read_answer, read_sealed_answer, request_payload, sealed_payload
from relay_agent.pipelines.long_json import LongText, read_json
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


def test_a_response_and_a_failure_are_distinguished() -> None:
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


def through_json(body: dict[str, Any]) -> Answer:
    """The answer as it is read from the platform's JSON, in which a long body is a `LongText`."""
    data = json.dumps({"id": "c", "status": "SUCCESS", "responseBody": body}).encode()
    return read_answer(read_json(data[at : at + 1000] for at in range(0, len(data), 1000)))


@pytest.mark.parametrize("size", [49_151, 49_152, 49_153, 65_536, 98_304, 98_305, 200_000, 9_000_001])
def test_a_long_body_of_bytes_comes_back(size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    body = {"statusCode": 200, "body": base64.b64encode(data).decode(), "bodyEncoding": "base64"}
    assert through_json(body).content() == data
    with through_json(body).open() as file:
        assert file.read(10) == data[:10] and file.read() == data[10:]


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "iso-8859-1", "shift_jis", "iso-2022-jp"])
@pytest.mark.parametrize("text", ["h\u00e9", "\u65e5\u672c a", "\U0001f600 b", '"\\\n'])
def test_a_long_text_comes_back_as_a_short_one_does(charset: str, text: str) -> None:
    def body(repeated: str) -> dict[str, Any]:
        return {"statusCode": 200, "headers": [{"Content-Type": f"text/plain; charset={charset}"}], "body": repeated}

    long = text * 30_000
    assert through_json(body(long)).content() == Answer("c", "SUCCESS", body(long)).content()


def test_a_long_sealed_answer_comes_back_and_another_s_is_refused() -> None:
    body = {"statusCode": 200, "body": "é\n" * 200_000}
    for command_id, jti in (("c", "once"), ("c", "twice"), ("d", "once")):
        data = json.dumps({"id": command_id, "responseBody": sealed(body, cid="c")}).encode()
        found = read_json(data[at : at + 1000] for at in range(0, len(data), 1000))
        if (command_id, jti) == ("c", "once"):
            assert read_sealed_answer(found, RING, jti).content() == body["body"].encode()
        else:
            with pytest.raises(SecureCommandError):
                read_sealed_answer(found, RING, jti)


LONG = "\u00e9" * 100_000


def test_only_a_body_stays_a_long_text() -> None:
    """As a header of 100 KB, which an agent passes on, or its name."""
    found = through_json({"statusCode": 200, "headers": [{"X-Long": LONG}, {"Set-Cookie": ["a=1", LONG]}, {LONG: "x"}], "body": "b"})
    assert found.headers() == [("X-Long", LONG), ("Set-Cookie", "a=1"), ("Set-Cookie", LONG), (LONG, "x")]
    failed = through_json({"code": "EPROTO", "message": LONG})
    assert (failed.code, failed.message) == ("EPROTO", LONG)
    sealed_header = {"id": "c", "responseBody": sealed({"statusCode": 200, "headers": [{"X": LONG}]}, cid="c")}
    assert read_sealed_answer(read_json([json.dumps(sealed_header).encode()]), RING, "once").headers() == [("X", LONG)]


def test_a_long_header_that_is_no_text_of_json_is_a_bad_answer() -> None:
    long = LongText()
    long.add(b"\\ud8" + b"x" * 100_000)
    with pytest.raises(BadAnswer):
        read_answer({"id": "c", "responseBody": {"statusCode": 200, "headers": [{"X": long}]}})


def test_a_long_answer_may_come_as_a_text_of_json() -> None:
    body = {"statusCode": 200, "body": "é\n" * 200_000}
    data = json.dumps(command(json.dumps(body))).encode()
    found = read_answer(read_json(data[at : at + 1000] for at in range(0, len(data), 1000)))
    assert found.content() == body["body"].encode()


def test_a_long_answer_that_is_no_text_of_json_is_a_bad_answer() -> None:
    long = LongText()
    long.add(b"\\ud8" + b"x" * 100_000)
    for finished in ({"id": "c", "responseBody": long}, {"id": "c", "responseBody": {"jwe": long}}):
        with pytest.raises(BadAnswer):
            read_sealed_answer(finished, RING, "once")


@pytest.mark.parametrize("body", ["=" * 4 + "AAAA" * 30_000, "AAA=" * 30_000, "AAAA" * 30_000 + "A", "!" * 100_000])
def test_a_long_body_that_is_no_base64_is_a_bad_answer(body: str) -> None:
    with pytest.raises(BadAnswer, match="base64"):
        through_json({"statusCode": 200, "body": body, "bodyEncoding": "base64"}).content()


def test_reading_an_answer_leaves_the_command_as_it_is() -> None:
    finished = command(json.dumps(sealed({"statusCode": 200, "body": "x"})))
    finished["responseBody"] = json.loads(finished["responseBody"])
    before = json.dumps(finished)
    assert read_sealed_answer(finished, RING, "once").content() == read_sealed_answer(finished, RING, "once").content() == b"x"
    assert json.dumps(finished) == before
