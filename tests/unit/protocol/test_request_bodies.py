"""Request bodies (PROTOCOL §3, Postman's modes): the bytes that are sent, decoded by independent parsers."""

from __future__ import annotations

import base64
import io
from email import message_from_bytes, policy
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.fields import RequestField
from werkzeug.formparser import parse_form_data

from relay_agent.core.errors import BadRequest
from relay_agent.protocol.request_bodies import encode_body

TEXT = st.text(max_size=40)
LONG = 200_001
"""Characters that are encoded in several pieces."""


def encoded(body: object, content_type: str | None) -> tuple[bytes | None, str | None]:
    pieces, made = encode_body(body, content_type)
    return None if pieces is None else b"".join(pieces), made


def bad(body: object, content_type: str | None = None) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        encoded(body, content_type)
    return caught.value


def formdata(fields: list[dict[str, Any]], content_type: str | None = None) -> tuple[Any, Any]:
    """The text fields and the files of a form, as an independent server decodes it."""
    data, made = encoded({"mode": "formdata", "formdata": fields}, content_type)
    assert data is not None
    environ = {
        "wsgi.input": io.BytesIO(data),
        "CONTENT_LENGTH": str(len(data)),
        "CONTENT_TYPE": made or content_type,
        "REQUEST_METHOD": "POST",
    }
    _, form, files = parse_form_data(environ, silent=False)
    return form, files


def test_a_missing_body_gives_no_body() -> None:
    assert encoded(None, None) == (None, None)


def test_a_bare_string_is_sent_raw_in_utf_8() -> None:
    assert encoded("caf\xe9", None) == (b"caf\xc3\xa9", None)
    assert encoded({"mode": "raw", "raw": "caf\xe9"}, None) == (b"caf\xc3\xa9", None)


def test_a_raw_body_without_text_is_empty() -> None:
    assert encoded({"mode": "raw"}, None) == (b"", None)


def test_base64_can_give_any_bytes() -> None:
    assert encoded({"mode": "base64", "base64": base64.b64encode(bytes(range(256))).decode()}, None) == (bytes(range(256)), None)


@pytest.mark.parametrize("text", ["x" * LONG, "caf\xe9" * (LONG // 4), "\u20ac\U0001f600" * (LONG // 2)])
def test_a_long_text_is_encoded_completely_in_small_pieces(text: str) -> None:
    pieces, _ = encode_body({"mode": "raw", "raw": text}, None)
    assert pieces is not None
    found = list(pieces)
    assert (b"".join(found), max(map(len, found)) <= 256 * 1024) == (text.encode(), True)


def test_a_long_form_value_is_encoded_completely_in_small_pieces() -> None:
    value = "a b&c=d\u20ac\U0001f600" * (LONG // 8)
    pieces, _ = encode_body({"mode": "urlencoded", "urlencoded": [{"key": "k", "value": value}, {"key": "l"}]}, None)
    assert pieces is not None
    found = list(pieces)
    assert max(map(len, found)) <= 600_000
    assert parse_qsl(b"".join(found).decode("ascii"), keep_blank_values=True, strict_parsing=True) == [("k", value), ("l", "")]


@pytest.mark.parametrize("entry", [{"value": "v"}, {"type": "file", "base64": "", "contentType": "a/b", "filename": 'f\r\n"' * LONG}])
def test_a_long_name_in_a_form_is_written_as_urllib3_does_but_in_small_pieces(entry: dict[str, str]) -> None:
    key = 'a\n"\u20ac\U0001f600' * (LONG // 4)
    pieces, _ = encode_body({"mode": "formdata", "formdata": [{"key": key, **entry}]}, "multipart/form-data; boundary=B")
    assert pieces is not None
    found = list(pieces)
    assert max(map(len, found)) <= 600_000
    field = RequestField(name=key, data=b"", filename=entry.get("filename"))
    field.make_multipart(content_type=entry.get("contentType"))
    assert b"".join(found).decode() == f"--B\r\n{field.render_headers()}{entry.get('value', '')}\r\n--B--\r\n"


@pytest.mark.parametrize("size", [LONG, LONG + 1, LONG + 2, 36 * 1024, 72 * 1024])
def test_a_long_base64_text_is_decoded_completely_in_small_pieces(size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    pieces, _ = encode_body({"mode": "base64", "base64": base64.b64encode(data).decode()}, None)
    assert pieces is not None
    found = list(pieces)
    assert (b"".join(found), max(map(len, found)) <= 64 * 1024) == (data, True)


@pytest.mark.parametrize("text", ["QUJD=", "QUJD==", "QUJD====", "QUI", "QUJDQ===", "QQ=", "QQ==QQ==", "====", "Q"])
def test_wrong_base64_padding_is_refused(text: str) -> None:
    assert bad({"mode": "base64", "base64": text}).field == "body.base64"


@given(st.integers(1, LONG), st.sampled_from(["=", "==", "\n", "-", "\xe9"]))
def test_a_long_base64_text_with_a_wrong_character_is_refused(place: int, wrong: str) -> None:
    text = "QUJD" * (LONG // 4)
    assert bad({"mode": "base64", "base64": text[:place] + wrong + text[place:]}).field == "body.base64"


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_urlencoded_pairs_are_read_back_by_an_independent_parser_in_order(pairs: list[tuple[str, str]]) -> None:
    data, content_type = encoded({"mode": "urlencoded", "urlencoded": [{"key": key, "value": value} for key, value in pairs]}, None)
    assert data is not None
    assert content_type == "application/x-www-form-urlencoded"
    assert parse_qsl(data.decode("ascii"), keep_blank_values=True, strict_parsing=bool(pairs)) == pairs


def test_the_commands_own_content_type_is_kept_for_urlencoded() -> None:
    fields = [{"key": "a", "value": "b"}, {"key": "off", "value": "x", "disabled": True}, {"key": "empty"}]
    assert encoded({"mode": "urlencoded", "urlencoded": fields}, "application/x-www-form-urlencoded; charset=utf-8") == (
        b"a=b&empty=",
        None,
    )


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters='\\"%'), min_size=1, max_size=20), TEXT),
        min_size=1,
        max_size=5,
    )
)
def test_multipart_text_fields_are_read_back_by_an_independent_parser(pairs: list[tuple[str, str]]) -> None:
    form, _ = formdata([{"key": key, "value": value} for key, value in pairs])
    assert sorted((key, value) for key in form for value in form.getlist(key)) == sorted(pairs)


@given(st.binary(max_size=200))
def test_multipart_files_are_read_back_byte_for_byte(data: bytes) -> None:
    entry = {
        "key": "f",
        "type": "file",
        "filename": "r\xe9sultat.csv",
        "contentType": "text/csv",
        "base64": base64.b64encode(data).decode(),
    }
    _, files = formdata([entry, {"key": "note", "value": "x"}])
    assert files["f"].read() == data
    assert (files["f"].filename, files["f"].content_type) == ("r\xe9sultat.csv", "text/csv")


def test_multipart_is_read_back_by_the_email_parser() -> None:
    data, content_type = encoded(
        {"mode": "formdata", "formdata": [{"key": "a", "value": "1"}, {"key": "f", "type": "file", "base64": "AAE="}]}, None
    )
    assert data is not None
    parsed = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + data, policy=policy.HTTP)
    parts = list(parsed.iter_parts())
    assert [part.get_param("name", header="content-disposition") for part in parts] == ["a", "f"]
    assert [part.get_content_type() for part in parts] == ["text/plain", "application/octet-stream"]
    assert parts[1].get_payload(decode=True) == b"\x00\x01"
    assert parts[1].get_filename() == "file"


def test_a_boundary_of_the_command_is_used_and_its_header_is_kept() -> None:
    data, content_type = encoded({"mode": "formdata", "formdata": [{"key": "a", "value": "1"}]}, 'multipart/form-data; boundary="my own"')
    assert data is not None
    assert content_type is None
    assert data.startswith(b"--my own\r\n")
    assert data.endswith(b"--my own--\r\n")


def test_a_content_type_without_boundary_gets_one() -> None:
    data, content_type = encoded({"mode": "formdata", "formdata": []}, "multipart/related; type=text/plain")
    assert data is not None
    assert content_type is not None
    assert content_type.startswith("multipart/related; type=text/plain; boundary=")
    assert data == f"--{content_type.rpartition('=')[2]}--\r\n".encode()


@pytest.mark.parametrize(
    "content_type",
    [
        f"multipart/form-data; boundary={'b' * 71}",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=caf\xe9",
        'multipart/form-data; boundary="a\tb"',
        'a;"' + ";" * 250_000,
        f"multipart/form-data; x={'y' * 9000}; boundary=b",
    ],
)
def test_a_content_type_with_an_invalid_boundary_is_refused(content_type: str) -> None:
    assert bad({"mode": "formdata", "formdata": []}, content_type).field == "headers"


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary", "multipart/form-data; boundary=", "multipart/form-data;"])
def test_a_boundary_without_a_value_is_ignored(content_type: str) -> None:
    _, sent = encoded({"mode": "formdata", "formdata": []}, content_type)
    assert sent is not None
    assert sent.startswith(f"{content_type}; boundary=")


@pytest.mark.parametrize("name", ["a\r\nContent-Type: text/evil", 'a"; filename="x', "a\nb"])
def test_a_fields_name_or_filename_cannot_add_a_header_to_its_part(name: str) -> None:
    for entry in ({"key": name, "value": "1"}, {"key": "k", "type": "file", "filename": name, "base64": ""}):
        data, _ = encoded({"mode": "formdata", "formdata": [entry]}, "multipart/form-data; boundary=B")
        assert data is not None
        head = data.split(b"\r\n\r\n")[0]
        assert b"\nContent-Type: text/evil" not in head
        assert head.count(b"\r\n") == head.count(b"\n")
        assert head.count(b'"') % 2 == 0


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (5, "body"),
        ([], "body"),
        ({}, "body.mode"),
        ({"mode": 5}, "body.mode"),
        ({"mode": "graphql"}, "body.mode"),
        ({"mode": "raw", "raw": 5}, "body.raw"),
        ("\ud800", "body"),
        ({"mode": "raw", "raw": "\ud800"}, "body.raw"),
        ({"mode": "base64"}, "body.base64"),
        ({"mode": "base64", "base64": "a"}, "body.base64"),
        ({"mode": "base64", "base64": "QQ"}, "body.base64"),
        ({"mode": "base64", "base64": "QQ=\u20ac"}, "body.base64"),
        ({"mode": "urlencoded", "urlencoded": {}}, "body.urlencoded"),
        ({"mode": "urlencoded", "urlencoded": [5]}, "body.urlencoded[0]"),
        ({"mode": "urlencoded", "urlencoded": [{"key": "a"}, {"value": "b"}]}, "body.urlencoded[1].key"),
        ({"mode": "urlencoded", "urlencoded": [{"key": "a", "value": 5}]}, "body.urlencoded[0].value"),
        ({"mode": "formdata", "formdata": [{"key": "a", "type": "blob"}]}, "body.formdata[0].type"),
        ({"mode": "formdata", "formdata": [{"key": "a", "type": "file"}]}, "body.formdata[0].base64"),
        ({"mode": "formdata", "formdata": [{"key": "a", "contentType": "a\r\nb"}]}, "body.formdata[0].contentType"),
        ({"mode": "formdata", "formdata": [{"key": "\ud800"}]}, "body.formdata[0].key"),
    ],
)
def test_the_error_text_names_the_wrong_field(body: object, named: str) -> None:
    assert bad(body).field == named
