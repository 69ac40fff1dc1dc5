"""The body of an answer (PROTOCOL §4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, Headers, HttpResponse
from relay_agent.protocol import responses
from tests.examples import examples
from tests.unit.protocol.scenes import XML_1_0


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


def response(
    data: bytes = b"", *, charset: str | None = None, text: bool = True, headers: Headers = (), piece: int = 65536
) -> HttpResponse:
    return HttpResponse(200, headers, Bytes(data, piece), charset, text, "http://target.example/", 12)


def decoded(answer: HttpResponse) -> Any:
    text = "".join(responses.response_body(answer))
    assert XML_1_0.fullmatch(text)
    return json.loads(text)


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
