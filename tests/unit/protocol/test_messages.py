"""Messages of the queues and models (PROTOCOL §2): what is read, what is refused and by which field, what is written."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.clock import FAR_FUTURE, FAR_PAST, from_timestamp, iso
from relay_agent.core.errors import BadRequest, MalformedMessage
from relay_agent.core.models import Status
from relay_agent.protocol import messages, requests
from tests.unit.protocol.scenes import ANY_JSON, CANARY, XML_1_0

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def message(**fields: Any) -> str:
    whole = {
        "commandId": "c-1",
        "targetId": "a-1",
        "action": "TetraScience.Connector.gdc.HttpRequest",
        "createdAt": "2026-03-01T12:00:00.000Z",
        "expiresAt": "2026-03-01T12:05:00.000Z",
        "body": {"url": "http://target.example/"},
        "bodyDelivery": "embedded",
        "responseBodyUploadUrl": "https://s3.example/put?signature=x",
    } | fields
    return json.dumps({name: value for name, value in whole.items() if value is not ...})


def malformed(text: str) -> MalformedMessage:
    with pytest.raises(MalformedMessage) as caught:
        messages.decode_message(text)
    return caught.value


# --- §2, inbound ---


def test_every_field_of_an_inbound_message_is_decoded() -> None:
    command = messages.decode_message(message())
    assert (command.id, command.target_id, command.action) == ("c-1", "a-1", "TetraScience.Connector.gdc.HttpRequest")
    assert command.created_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert command.expires_at == datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
    assert command.payload == {"url": "http://target.example/"}
    assert command.body_url is None
    assert command.upload_url == "https://s3.example/put?signature=x"


def test_a_commands_repr_shows_neither_payload_nor_presigned_urls() -> None:
    text = repr(messages.decode_message(message(body={"a": CANARY}, responseBodyUploadUrl=f"https://s3.example/{CANARY}")))
    assert CANARY not in text


def test_a_referenced_body_is_given_by_its_url() -> None:
    command = messages.decode_message(message(body=None, bodyDelivery="referenced", bodyUrl="https://s3.example/get"))
    assert command.body_url == "https://s3.example/get"


def test_a_body_url_beside_an_embedded_body_is_ignored() -> None:
    assert messages.decode_message(message(bodyUrl="https://s3.example/get")).body_url is None


def test_a_message_without_body_delivery_is_referenced_only_if_it_has_no_body() -> None:
    assert messages.decode_message(message(bodyDelivery=..., bodyUrl="https://s3.example/get")).body_url is None
    assert (
        messages.decode_message(message(bodyDelivery=..., body=..., bodyUrl="https://s3.example/get")).body_url == "https://s3.example/get"
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-03-01T12:00:00Z", NOW.replace(microsecond=0)),
        ("2026-03-01T13:00:00.000+01:00", NOW.replace(microsecond=0)),
        ("2026-03-01T12:00:00", NOW.replace(microsecond=0)),
        ("2026-03-01T12:00:00.123456789Z", NOW),
    ],
)
def test_times_are_iso_8601_and_in_utc_if_they_have_no_time_zone(written: str, meant: datetime) -> None:
    assert messages.decode_message(message(expiresAt=written)).expires_at == meant


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '"x"', "{", "{}", "\x00", '{"commandId": 1}', '{"commandId": "  "}', '{"commandId": "  "', "[" * 100_000]
)
def test_a_message_without_a_usable_id_is_malformed_without_an_id(text: str) -> None:
    assert malformed(text).command_id is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"action": None}, "action"),
        ({"action": 1}, "action"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
        ({"expiresAt": 5}, "expiresAt"),
        ({"createdAt": "2026-13-01T00:00:00Z"}, "createdAt"),
        ({"createdAt": "2026-01-01T24:00:01Z"}, "createdAt"),
        ({"action": "x" * 129}, "action"),
        ({"bodyDelivery": "by post"}, "bodyDelivery"),
        ({"bodyDelivery": "referenced"}, "bodyUrl"),
        ({"responseBodyUploadUrl": []}, "responseBodyUploadUrl"),
    ],
)
def test_a_malformed_message_with_an_id_keeps_the_ids_and_names_the_field(fields: dict[str, Any], named: str) -> None:
    error = malformed(message(**fields))
    assert (error.command_id, error.target_id) == ("c-1", "a-1")
    assert named in str(error)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "9" * 5000])
def test_a_number_that_is_not_accepted_is_named_by_its_field_and_the_rest_is_decoded(number: str) -> None:
    command = messages.decode_message(f'{{"commandId": "c-1", "action": "x", "body": {{"url": "http://h/", "timeout": {number}}}}}')
    with pytest.raises(BadRequest, match="timeout"):
        requests.decode_request(command.payload)


@pytest.mark.parametrize(
    "text",
    [
        '{"commandId": "c-1", "action": "x", "body": ' + "[" * 100_000,
        '{"commandId":"c-1", "action"',
        '{"body": {}, "commandId" : "c-1",}',
    ],
)
def test_text_that_is_not_json_keeps_the_id_that_can_be_read(text: str) -> None:
    assert malformed(text).command_id == "c-1"


@given(st.text(st.characters(exclude_categories=())) | ANY_JSON.map(json.dumps))
def test_arbitrary_text_is_a_command_or_malformed_and_nothing_else(text: str) -> None:
    with contextlib.suppress(MalformedMessage):
        messages.decode_message(text)


FIELDS = ("commandId", "targetId", "action", "createdAt", "expiresAt", "body", "bodyDelivery", "bodyUrl", "responseBodyUploadUrl")


@given(st.dictionaries(st.sampled_from(FIELDS), ANY_JSON | st.sampled_from(["c-1", "embedded", "referenced", "2026-03-01T12:00:00Z"])))
def test_arbitrary_values_in_known_fields_are_a_command_or_malformed(fields: dict[str, Any]) -> None:
    try:
        command = messages.decode_message(json.dumps(fields))
    except MalformedMessage as error:
        assert error.command_id is None or error.command_id == fields["commandId"]
    else:
        assert command.id == fields["commandId"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("9999-12-31T23:59:59.9999999Z", FAR_FUTURE),
        ("9999-12-31T23:59:59-14:00", FAR_FUTURE),
        ("2400-01-01T00:00:00Z", datetime(2400, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00", FAR_PAST),
        ("0001-01-01T00:00:00+14:00", FAR_PAST),
        ("+10000-01-01T00:00:00Z", FAR_FUTURE),
        ("12000-01-01T00:00:00Z", FAR_FUTURE),
        ("2027-01-01T24:00:00Z", datetime(2027, 1, 2, tzinfo=UTC)),
        ("2027-12-31T24:00Z", datetime(2028, 1, 1, tzinfo=UTC)),
        ("9999-12-31T24:00:00.000Z", FAR_FUTURE),
    ],
)
def test_a_time_at_either_end_of_the_calendar_is_clamped_so_that_it_can_be_stored(text: str, moment: datetime) -> None:
    found = messages.decode_message(message(expiresAt=text)).expires_at
    assert found == moment
    assert from_timestamp(moment.timestamp()) == moment


def test_a_message_above_any_queues_limit_is_not_parsed_and_keeps_its_id() -> None:
    error = malformed(message(body={"url": "http://h/", "x": "y" * messages.MAX_MESSAGE}))
    assert (error.command_id, "larger" in str(error)) == ("c-1", True)


def test_a_message_may_have_any_payload() -> None:
    found = messages.decode_message(message(body=[[]] * 100_001))
    with pytest.raises(BadRequest, match="payload: must be an object"):
        requests.decode_request(found.payload)


# --- §2, outbound ---


def test_an_embedded_update_has_the_protocols_fields() -> None:
    found = json.loads(messages.update_message("c-1", "a-1", Status.SUCCESS, NOW, '{"statusCode":200}'))
    assert found == {
        "commandId": "c-1",
        "targetId": "a-1",
        "status": "SUCCESS",
        "body": {"statusCode": 200},
        "responseBodyDelivery": "embedded",
        "createdAt": "2026-03-01T12:00:00.123Z",
    }


def test_a_referenced_update_has_no_body() -> None:
    found = json.loads(messages.update_message("c-1", "a-1", Status.SUCCESS, NOW, None, "referenced"))
    assert (found["body"], found["responseBodyDelivery"]) == (None, "referenced")


def test_times_are_sent_in_utc_with_milliseconds() -> None:
    assert iso(NOW.astimezone(timezone(timedelta(hours=2)))) == "2026-03-01T12:00:00.123Z"


@given(ANY_JSON.filter(lambda value: "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)))
def test_every_character_sent_is_allowed_in_xml_and_decodes_to_the_same_value(value: object) -> None:
    text = messages.dumps(value)
    assert XML_1_0.fullmatch(text)
    assert json.loads(text) == json.loads(json.dumps(value))


def test_characters_that_sqs_refuses_are_escaped() -> None:
    assert messages.dumps("\x00\x0b\x1f\ufffe\uffff\ud800\\\uffff") == r'"\u0000\u000b\u001f\ufffe\uffff\ud800\\\uffff"'
    assert messages.dumps("\u20ac\U0001f600") == '"\u20ac\U0001f600"'
