"""JSON on the wire (PROTOCOL §2–§4): what is decoded, what is refused with which field's name, and what is sent."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_agent.core.clock import FAR_FUTURE, FAR_PAST, from_timestamp, iso
from relay_agent.core.errors import BadRequest, MalformedMessage
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, Headers, HttpRequest, HttpResponse, Status
from relay_agent.protocol import messages, requests, responses
from tests.examples import examples

XML_1_0 = re.compile(r"[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CANARY = "canary-value-7f3a"
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


class Bytes:
    """A response's content in memory, in pieces of `piece` bytes."""

    def __init__(self, data: bytes, piece: int = 65536) -> None:
        self.data, self.piece = data, piece
        self.size = len(data)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), self.piece):
            yield self.data[start : start + self.piece]

    def close(self) -> None:
        pass


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


def request(**fields: Any) -> HttpRequest:
    return requests.decode_request({"url": "http://target.example/"} | fields)


def refused(payload: object) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        requests.decode_request(payload)
    return caught.value


def response(
    data: bytes = b"", *, charset: str | None = None, text: bool = True, headers: Headers = (), piece: int = 65536
) -> HttpResponse:
    return HttpResponse(200, headers, Bytes(data, piece), charset, text, "http://target.example/", 12)


def decoded(answer: HttpResponse) -> Any:
    text = "".join(responses.response_body(answer))
    assert XML_1_0.fullmatch(text)
    return json.loads(text)


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


@pytest.mark.parametrize("text", ["", "null", "[]", '"x"', "{", "{}", "\x00", '{"commandId": 1}', '{"commandId": "  "}', "[" * 100_000])
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


@given(seconds=st.floats() | st.integers() | st.just(253402300800.0))
def test_any_number_of_seconds_gives_a_time(seconds: float) -> None:
    assert FAR_PAST <= from_timestamp(seconds) <= FAR_FUTURE


def test_a_message_above_any_queues_limit_is_not_parsed_and_keeps_its_id() -> None:
    error = malformed(message(body={"url": "http://h/", "x": "y" * messages.MAX_MESSAGE}))
    assert (error.command_id, "larger" in str(error)) == ("c-1", True)


def test_a_message_may_have_any_payload() -> None:
    found = messages.decode_message(message(body=[[]] * 100_001))
    with pytest.raises(BadRequest, match="payload: must be an object"):
        requests.decode_request(found.payload)


# --- §3, the request ---


def test_a_request_needs_only_its_url_and_has_the_defaults_of_the_protocol() -> None:
    found = request()
    assert (found.method, found.headers, found.body, found.timeout) == ("GET", (), None, None)
    assert (found.ignore_tls_certificate, found.follow_redirects, found.encrypt_response, found.secure) == (False, True, False, False)


def test_null_counts_as_absent() -> None:
    names = requests.REQUEST_FIELDS - {"url"}
    assert request(**dict.fromkeys(names)) == request()


def test_the_example_of_the_protocol_is_decoded() -> None:
    found = requests.decode_request(
        {
            "method": "POST",
            "url": "https://lims.lab.example:9005/path?x=1",
            "headers": [{"Content-Type": "application/json"}, {"X-Two": "a"}, {"X-Two": "b"}],
            "body": {"mode": "raw", "raw": '{"id":1}'},
            "ignore_tls_certificate": False,
            "timeout": 30,
            "follow_redirects": True,
            "encrypt_response": False,
            "not_after": "2026-03-01T13:00:00+01:00",
        }
    )
    assert found.not_after == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert str(found.url) == "https://lims.lab.example:9005/path?x=1"
    assert found.headers == (("Content-Type", "application/json"), ("X-Two", "a"), ("X-Two", "b"))
    assert (found.method, found.body, found.timeout, found.warnings) == ("POST", b'{"id":1}', 30.0, ())


def test_any_token_is_a_method_and_its_case_is_kept() -> None:
    assert [request(method=method).method for method in ("get", "M-SEARCH", "X!#$%&'*+.^_`|~9")] == ["get", "M-SEARCH", "X!#$%&'*+.^_`|~9"]


@pytest.mark.parametrize(
    "headers",
    [
        [{"X-One": "1"}, {"X-Two": "a"}, {"X-Two": "b"}],
        [{"X-One": "1"}, {"X-Two": ["a", "b"]}],
        {"X-One": "1", "X-Two": ["a", "b"]},
    ],
)
def test_headers_are_a_list_of_one_key_objects_or_a_plain_object(headers: object) -> None:
    assert request(headers=headers).headers == (("X-One", "1"), ("X-Two", "a"), ("X-Two", "b"))


def test_a_header_value_keeps_its_exact_text() -> None:
    assert request(headers={"X-A": "a, \t b\xe9"}).headers == (("X-A", "a, \t b\xe9"),)


def test_headers_that_the_agent_sets_are_dropped_with_a_warning() -> None:
    found = request(headers={"content-LENGTH": "5", "Transfer-Encoding": "chunked", "X-A": "1"})
    assert found.headers == (("X-A", "1"),)
    assert found.warnings == ("header content-LENGTH dropped: the agent sets it", "header Transfer-Encoding dropped: the agent sets it")


def test_an_unknown_field_is_ignored_with_a_warning_that_does_not_show_its_value() -> None:
    found = request(verify=CANARY)
    assert found.warnings == ("unknown field 'verify' ignored",)


def test_user_info_becomes_basic_authorization_and_is_in_no_url_and_no_repr() -> None:
    found = request(url=f"http://me:{CANARY}@target.example/")
    assert found.url.authorization == "Basic " + base64.b64encode(f"me:{CANARY}".encode()).decode()
    assert CANARY not in str(found.url) + repr(found)


def test_the_number_of_warnings_is_bounded() -> None:
    found = request(headers=[{"Content-Length": "1"}] * 1000, **{f"unknown-{place}": 1 for place in range(1000)})
    assert len(found.warnings) == 10


@pytest.mark.parametrize(
    "url", [f"http://{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}/", "http://h./" + "x" * 65_526, f"http://{'m' * 63}/"]
)
def test_a_url_may_be_as_long_as_the_protocol_says(url: str) -> None:
    assert str(request(url=url, method="M" * 32).url) == url


def test_a_host_header_may_replace_the_urls_host() -> None:
    assert request(headers={"Host": "virtual.example:81"}).headers == (("Host", "virtual.example:81"),)
    assert refused({"url": "http://a/", "headers": {"Host": "virtual.example/path"}}).field == "headers.Host"
    assert refused({"url": "http://a/", "headers": [{"Host": "a"}, {"host": "b"}]}).field == "headers"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": None}, "url"),
        ({"url": CANARY}, "url"),
        ({"url": f"ftp://{CANARY}/"}, "url"),
        ({"url": f"http://host/{CANARY}\r\n"}, "url"),
        ({"url": 5}, "url"),
        ({"method": f"GET {CANARY}"}, "method"),
        ({"method": ""}, "method"),
        ({"method": f"G\n{CANARY}"}, "method"),
        ({"method": 1}, "method"),
        ({"headers": CANARY}, "headers"),
        ({"headers": [CANARY]}, "headers[0]"),
        ({"headers": [{"X-A": "1"}, {"X-B": CANARY, "X-C": CANARY}]}, "headers[1]"),
        ({"headers": {"X A": CANARY}}, "headers"),
        ({"headers": {"": CANARY}}, "headers"),
        ({"headers": {"X-A": 5}}, "headers.X-A"),
        ({"headers": {"X-A": [CANARY, None]}}, "headers.X-A"),
        ({"headers": [{"X-A": f"{CANARY}\r\nX-Evil: 1"}]}, "headers[0].X-A"),
        ({"headers": {"X-A": f"{CANARY}\x00"}}, "headers.X-A"),
        ({"headers": {"X-A": f"{CANARY}\u20ac"}}, "headers.X-A"),
        ({"body": 5}, "body"),
        ({"body": {"mode": CANARY}}, "body.mode"),
        ({"ignore_tls_certificate": "yes"}, "ignore_tls_certificate"),
        ({"follow_redirects": 1}, "follow_redirects"),
        ({"encrypt_response": CANARY}, "encrypt_response"),
        ({"timeout": CANARY}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"not_after": 5}, "not_after"),
        ({"not_after": CANARY}, "not_after"),
        ({"method": "M" * 33}, "method"),
        ({"url": f"http://{CANARY}/" + "x" * 65_536}, "url"),
        ({"url": "http://" + "a." * 127 + "example/"}, "url"),
        ({"url": f"http://{'a' * 64}.example/"}, "url"),
        ({"url": "http://h/" + "\u00e9" * 30_000}, "url"),
        ({"headers": {"Host": "a" * 64}}, "headers.Host"),
        ({"x": [0] * 100_001}, "payload"),
        ({"x": functools.reduce(lambda inner, _: [inner], range(64), 0)}, "payload"),
    ],
)
def test_the_error_text_names_a_wrong_field_but_not_its_value(fields: dict[str, Any], named: str) -> None:
    error = refused({"url": "http://target.example/"} | fields)
    assert error.field == named
    assert CANARY not in str(error)


@pytest.mark.parametrize("payload", [None, [], "GET http://a/", 5])
def test_a_payload_that_is_not_an_object_is_refused(payload: object) -> None:
    assert refused(payload).field == "payload"


NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "method": ANY_JSON | st.sampled_from(["GET", "PUT"]),
        "url": ANY_JSON | st.sampled_from(["http://h/", "http://u:p@[::1]:1/\ud800", "https://\u00e4.example/%zz"]),
        "headers": ANY_JSON | st.dictionaries(st.sampled_from(["Host", "Content-Type", "X"]), ANY_JSON, max_size=3),
        "body": ANY_JSON
        | st.fixed_dictionaries(
            {"mode": st.sampled_from(["raw", "urlencoded", "formdata", "base64"])},
            optional={
                mode: ANY_JSON
                | st.lists(
                    st.dictionaries(
                        st.sampled_from(["key", "value", "type", "filename", "contentType", "base64"]),
                        ANY_JSON | st.sampled_from(["file", "text"]),
                    ),
                    max_size=3,
                )
                for mode in ("raw", "urlencoded", "formdata", "base64")
            },
        ),
        "timeout": ANY_JSON,
        "follow_redirects": ANY_JSON,
    },
)


@given(ANY_JSON | NEARLY)
@settings(max_examples=examples(80))
def test_arbitrary_json_is_a_request_or_a_bad_request_and_nothing_else(payload: object) -> None:
    try:
        requests.decode_request(payload)
    except BadRequest as error:
        assert error.field


@pytest.mark.parametrize(
    "parameter", ["boundary*=a; boundary*0=b", f"boundary*{'1' * 5000}=x", "boundary*=undefined''a", "boundary*=idna''%ff"]
)
def test_an_odd_boundary_parameter_is_a_request_or_a_bad_request(parameter: str) -> None:
    with contextlib.suppress(BadRequest):
        request(headers={"Content-Type": f"multipart/form-data; {parameter}"}, body={"mode": "formdata", "formdata": []})


def test_a_referenced_payload_is_any_json_in_utf_8() -> None:
    assert requests.decode_payload(b'{"a":"\xc3\xa9"}') == {"a": "\xe9"}
    for data in (b"\xff\xfe", b"{", b""):
        with pytest.raises(BadRequest):
            requests.decode_payload(data)


def test_the_envelope_of_a_secure_command_is_its_jwe() -> None:
    assert requests.take_envelope({"jwe": "a.b.c.d.e"}) == "a.b.c.d.e"
    for payload in (None, "a.b.c.d.e", {}, {"jwe": 5}):
        with pytest.raises(BadRequest):
            requests.take_envelope(payload)


# --- §4, the response body ---


def test_a_response_body_has_the_protocols_fields_in_order() -> None:
    body = decoded(
        response(b"caf\xc3\xa9", headers=(("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("X", "y"), ("set-cookie", "b=2")))
    )
    assert list(body) == ["statusCode", "headers", "body", "bodyEncoding", "url", "elapsedMs"]
    assert body["headers"] == [{"Content-Type": "text/plain"}, {"Set-Cookie": ["a=1", "b=2"]}, {"X": "y"}]
    assert (body["statusCode"], body["body"], body["bodyEncoding"]) == (200, "caf\xe9", "utf-8")
    assert (body["url"], body["elapsedMs"]) == ("http://target.example/", 12)


@given(data=st.binary(max_size=300), piece=st.integers(1, 50))
def test_bytes_that_are_not_text_are_sent_as_base64_whatever_the_pieces(data: bytes, piece: int) -> None:
    body = decoded(response(data, text=False, piece=piece))
    assert body["bodyEncoding"] == "base64"
    assert base64.b64decode(body["body"], validate=True) == data


CHARSETS = [
    None,
    "utf-8",
    "UTF8",
    "iso-8859-1",
    "windows-1252",
    "koi8-r",
    "utf-16-le",
    "utf-16-be",
    "utf-32-le",
    "cp437",
    "gb18030",
    "us-ascii",
]


@given(
    data=st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode()),
    charset=st.sampled_from(CHARSETS),
    piece=st.integers(1, 9),
)
@settings(max_examples=examples(60))
def test_text_can_be_encoded_to_the_same_bytes_whatever_the_pieces(data: bytes, charset: str | None, piece: int) -> None:
    try:
        data.decode(charset or "utf-8")
    except UnicodeError:
        return
    body = decoded(response(data, charset=charset, piece=piece))
    assert body["body"] == data.decode(charset or "utf-8")
    assert body["body"].encode(charset or "utf-8") == data


@given(
    st.lists(st.tuples(st.sampled_from(["A", "a", "B", "Set-Cookie"]), st.text(st.characters(max_codepoint=255), max_size=8)), max_size=8)
)
def test_every_header_value_is_sent_in_order_under_its_name(pairs: list[tuple[str, str]]) -> None:
    found: dict[str, list[str]] = {}
    for entry in decoded(response(headers=tuple(pairs)))["headers"]:
        ((name, value),) = entry.items()
        found[name.lower()] = value if isinstance(value, list) else [value]
    wanted: dict[str, list[str]] = {}
    for name, value in pairs:
        wanted.setdefault(name.lower(), []).append(value)
    assert list(found.items()) == list(wanted.items())


def test_a_failure_has_a_code_and_a_message_and_no_status_code() -> None:
    body = json.loads(responses.failure_body(Failure(Code.ECONNREFUSED, "connect ECONNREFUSED 10.1.2.3:443", "https://h/", 3)))
    assert body == {"code": "ECONNREFUSED", "message": "connect ECONNREFUSED 10.1.2.3:443", "url": "https://h/", "elapsedMs": 3}
    assert "url" not in json.loads(responses.failure_body(Failure(Code.EEXPIRED, "too late")))


def test_a_sealed_body_is_status_and_jwe() -> None:
    before, after = responses.sealed_body(404)
    assert json.loads(before + "a.b.c.d.e" + after) == {"statusCode": 404, "jwe": "a.b.c.d.e"}


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
