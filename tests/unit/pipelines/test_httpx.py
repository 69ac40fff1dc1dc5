"""httpx through an agent: its responses, its exceptions, both kinds of client."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import requests

from relay_agent.pipelines import CommandClient
from relay_agent.pipelines.httpx import AsyncRelayTransport, RelayTransport
from relay_agent.pipelines.testing import LocalAgent
from tests.sender_side import AGENT, RING, TOKEN, Platform
from tests.unit.pipelines.test_requests_adapter import FAILURES

API = "https://lims.lab.example/api"


class Answering:
    """A client whose agent answers as the test says."""

    def __init__(self, *found: Any) -> None:
        self.found = list(found)
        self.payloads: list[dict[str, Any]] = []

    def exchange(self, payload: Any, *, timeout_seconds: float, keyring: Any = None) -> Any:
        from relay_agent.pipelines.encoding import read_answer

        self.payloads.append(payload)
        status, body = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        return read_answer({"id": "c", "status": status, "responseBody": body})


@pytest.mark.parametrize("keyring", [None, RING], ids=["plain", "secure"])
def test_a_client_sends_and_reads_as_ever(keyring: Any) -> None:
    answers = {
        API: (200, {"id": 1}, {"Set-Cookie": "a=1"}),
        f"POST {API}": (303, "", {"Location": "/api"}),
        f"{API}/file": (200, b"\xff\x00" * 90_000),
    }
    agent = LocalAgent(answers=answers)
    with httpx.Client(transport=RelayTransport(agent, keyring=keyring), follow_redirects=True) as client:
        found = client.post(API, json={"a": "é"}, params={"q": "x y"}, timeout=7)
        assert found.json() == {"id": 1} and [hop.status_code for hop in found.history] == [303] and client.cookies["a"] == "1"
        with client.stream("GET", f"{API}/file") as streamed:
            assert b"".join(streamed.iter_bytes(1000)) == b"\xff\x00" * 90_000
        with pytest.raises(httpx.ConnectError, match=r"^ECONNREFUSED: "):
            client.get("https://other.example/")
    assert agent.requests[0]["url"] == f"{API}?q=x%20y" or agent.requests[0]["url"] == f"{API}?q=x+y"
    assert agent.requests[0]["timeout"] == 7 and json.loads(agent.requests[0]["body"]["raw"]) == {"a": "é"}
    assert "body" not in agent.requests[1]


def test_an_async_client_waits_for_many_at_once() -> None:
    async def main() -> list[Any]:
        agent = LocalAgent(answers={API: (200, {"id": 1})})
        async with httpx.AsyncClient(transport=AsyncRelayTransport(agent)) as client:
            return [found.json() for found in await asyncio.gather(*(client.get(API) for _ in range(20)))]

    assert asyncio.run(main()) == [{"id": 1}] * 20


class Waiting(Answering):
    """A client whose every exchange waits until the test ends it."""

    def __init__(self) -> None:
        super().__init__(("SUCCESS", {"statusCode": 200, "headers": [], "body": "ok"}))
        self.gate = threading.Event()
        self.running = self.most = 0
        self.closed = 0
        self._lock = threading.Lock()

    def exchange(self, payload: Any, *, timeout_seconds: float, keyring: Any = None) -> Any:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.gate.wait(20)
        with self._lock:
            self.running -= 1
        return super().exchange(payload, timeout_seconds=timeout_seconds, keyring=keyring)

    def close(self) -> None:
        self.closed += 1


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("most", [None, 5])
def test_as_many_requests_are_under_way_as_the_transport_allows_whatever_the_machine_has(most: int | None) -> None:
    async def main() -> list[str]:
        transport = AsyncRelayTransport(waiting) if most is None else AsyncRelayTransport(waiting, max_requests=most)
        async with httpx.AsyncClient(transport=transport) as client:
            tasks = [asyncio.create_task(client.get(API)) for _ in range(70)]
            await until(lambda: waiting.running == (most or 64))
            await asyncio.sleep(0.1)
            waiting.gate.set()
            return [found.text for found in await asyncio.gather(*tasks)]

    waiting = Waiting()
    assert asyncio.run(main()) == ["ok"] * 70
    assert waiting.most == (most or 64)


def test_a_cancelled_request_keeps_neither_the_program_nor_one_that_has_not_begun() -> None:
    async def main() -> None:
        async with httpx.AsyncClient(transport=AsyncRelayTransport(waiting, max_requests=1)) as client:
            running = asyncio.create_task(client.get(API))
            await until(lambda: waiting.running == 1)
            queued = asyncio.create_task(client.get(API))
            await asyncio.sleep(0.05)
            for task in (queued, running):
                task.cancel()
            assert [type(error) for error in await asyncio.gather(running, queued, return_exceptions=True)] == [asyncio.CancelledError] * 2

    waiting = Waiting()
    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 5 and not waiting.payloads
    waiting.gate.set()
    for thread in threading.enumerate():
        if thread.name == "relay-httpx":
            assert thread.daemon
            thread.join(10)
    assert len(waiting.payloads) == 1  # The queued one was never begun.


def test_a_request_that_waits_when_the_client_is_closed_fails_as_httpx_does() -> None:
    async def main() -> list[object]:
        client = httpx.AsyncClient(transport=AsyncRelayTransport(waiting, max_requests=1))
        running = asyncio.create_task(client.get(API))
        await until(lambda: waiting.running == 1)
        queued = asyncio.create_task(client.get(API))
        await asyncio.sleep(0.05)
        await client.aclose()
        waiting.gate.set()
        found = await asyncio.gather(running, queued, return_exceptions=True)
        return [getattr(found[0], "text", found[0]), type(found[1])]

    waiting = Waiting()
    assert asyncio.run(main()) == ["ok", httpx.ConnectError]


def test_an_answer_of_another_form_is_an_error_of_httpx(client: CommandClient, platform: Platform) -> None:
    platform.agent = lambda _: ("SUCCESS", {"statusCode": 200, "headers": "none", "body": "x", "bodyEncoding": "utf-8"})
    with httpx.Client(transport=RelayTransport(client)) as http, pytest.raises(httpx.RequestError, match=r"^EBADRESPONSE: "):
        http.get(API)


def test_a_closed_client_closes_the_connections_that_are_the_platform_client_s_own(served: tuple[Platform, str]) -> None:
    def kept(client: CommandClient) -> int:
        return len(client._session.get_adapter(served[1]).poolmanager.pools)  # type: ignore[attr-defined]

    async def asynchronous(client: CommandClient) -> None:
        async with httpx.AsyncClient(transport=AsyncRelayTransport(client)) as http:
            await http.get(API)
            assert kept(client) == 1

    with requests.Session() as shared:
        shared.trust_env = False
        own, given = CommandClient(served[1], "acme", TOKEN, AGENT), CommandClient(served[1], "acme", TOKEN, AGENT, shared)
        for client, left in ((own, 0), (given, 1)):
            with httpx.Client(transport=RelayTransport(client)) as http:
                http.get(API)
                assert kept(client) == 1
            assert kept(client) == left
            asyncio.run(asynchronous(client))
            assert kept(client) == left


NAMES = {
    "ConnectionError": (httpx.ConnectError, httpx.ReadError),
    "ProxyError": (httpx.ProxyError,),
    "ConnectTimeout": (httpx.ConnectTimeout,),
    "ReadTimeout": (httpx.ReadTimeout,),
    "SSLError": (httpx.ConnectError,),
    "TooManyRedirects": (httpx.TooManyRedirects,),
    "InvalidURL": (httpx.UnsupportedProtocol,),
    "InvalidHeader": (httpx.LocalProtocolError,),
    "ChunkedEncodingError": (httpx.RemoteProtocolError,),
    "ContentDecodingError": (httpx.DecodingError,),
    "RequestException": (httpx.RequestError,),
}


@pytest.mark.parametrize("found, kind", FAILURES, ids=[f"{kind.__name__}-{n}" for n, (_, kind) in enumerate(FAILURES)])
def test_a_failure_is_httpx_own_exception(found: Any, kind: type[Exception]) -> None:
    with httpx.Client(transport=RelayTransport(Answering(found))) as client, pytest.raises(httpx.RequestError) as caught:
        client.get(API)
    assert type(caught.value) in NAMES[kind.__name__]
    assert str(caught.value.request.url) == API


def test_only_what_was_not_sent_is_sent_again() -> None:
    refused, reset = ("FAILURE", {"code": "ECONNREFUSED", "message": "x"}), ("FAILURE", {"code": "ECONNRESET", "message": "x"})
    fine = ("SUCCESS", {"statusCode": 200, "headers": [], "body": "ok"})
    once = Answering(refused, fine)
    with httpx.Client(transport=RelayTransport(once, retries=1)) as client:
        assert client.post(API).text == "ok"
    with httpx.Client(transport=RelayTransport(Answering(reset, fine), retries=1)) as client, pytest.raises(httpx.ReadError):
        client.get(API)


def test_a_body_beyond_the_limit_is_said_before_anything_is_sent() -> None:
    agent = LocalAgent(answers={})
    with httpx.Client(transport=RelayTransport(agent)) as client, pytest.raises(httpx.RequestError, match=r"^EMSGSIZE: .*10 MB"):
        client.post(API, content=b"x" * 10_500_000)
    assert not agent.requests


def test_without_verification_the_command_says_so() -> None:
    agent = LocalAgent(answers={API: (200, "")})
    with httpx.Client(transport=RelayTransport(agent, verify=False)) as client:
        client.get(API)
    assert agent.requests[0]["ignore_tls_certificate"] is True
