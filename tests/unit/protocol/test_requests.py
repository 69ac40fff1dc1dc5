"""The request that a command asks for (PROTOCOL §3): what is read, and what is refused by which name."""

from __future__ import annotations

import base64
import contextlib
import functools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_agent.core.errors import BadRequest
from relay_agent.core.models import HttpRequest
from relay_agent.protocol import requests
from tests.examples import examples
from tests.unit.protocol.scenes import ANY_JSON, CANARY


def request(**fields: Any) -> HttpRequest:
    return requests.decode_request({"url": "http://target.example/"} | fields)


def refused(payload: object) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        requests.decode_request(payload)
    return caught.value


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
