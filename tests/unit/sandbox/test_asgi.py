"""Whole requests and answers over ASGI, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio

import pytest

from relay_agent.sandbox.asgi import Disconnected, Message, Receive, Request, read_request, replay, respond, until_disconnect
from tests.unit.sandbox.asgi_calls import Answered, scope


def received(*messages: Message) -> Receive:
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0)

    return receive


def read(*messages: Message, target: str = "/a%20b?x=1&y=&x=2", headers: dict[str, str] | None = None) -> Request:
    return asyncio.run(read_request(scope("PUT", target, headers), received(*messages)))


def test_a_request_is_read_to_its_end_with_its_target_as_it_was_sent() -> None:
    found = read(
        {"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"}, headers={"X-Name": "Value"}
    )
    assert (found.method, found.target, found.body) == ("PUT", "/a%20b?x=1&y=&x=2", b"abc")
    assert (found.query, found.headers) == ({"x": "2", "y": ""}, {"x-name": "Value"})
    assert read({"type": "http.request"}, target="/a").target == "/a"


def test_a_client_that_goes_away_within_its_request_has_made_none() -> None:
    with pytest.raises(Disconnected):
        read({"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.disconnect"})


def test_neither_headers_nor_body_are_in_a_request_s_repr() -> None:
    assert "canary" not in repr(read({"type": "http.request", "body": b"canary"}, headers={"Authorization": "canary"}))


def test_an_answer_gets_its_length_unless_it_names_one() -> None:
    plain, head = Answered(), Answered()
    asyncio.run(respond(plain.send, 200, b"abc", [("X-Name", "1")]))
    asyncio.run(respond(head.send, 200, b"", [("Content-Length", "7")]))
    assert (plain.status, plain.headers, plain.body) == (200, {"x-name": "1", "content-length": "3"}, b"abc")
    assert head.headers == {"content-length": "7"}


def test_a_body_that_was_read_can_be_read_again_by_the_app_behind() -> None:
    assert asyncio.run(read_request(scope(), replay(b"abc"))).body == b"abc"


def test_work_is_cancelled_when_its_client_disconnects() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def run() -> None:
        await asyncio.wait_for(until_disconnect(received({"type": "http.request"}, {"type": "http.disconnect"}), work()), 10)

    asyncio.run(run())
    assert ended == ["cancelled"]


def test_work_that_ends_first_ends_the_wait_and_its_error_comes_through() -> None:
    async def fail() -> None:
        raise ValueError("x")

    async def done() -> None:
        return None

    asyncio.run(until_disconnect(replay(b""), done()))
    with pytest.raises(ValueError):
        asyncio.run(until_disconnect(replay(b""), fail()))
