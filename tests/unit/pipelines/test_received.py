"""A response's body: every way of reading it gives what a direct call gives, and comes to its end as there."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from urllib3.util import Retry

from relay_agent.pipelines import relay_session
from relay_agent.pipelines.testing import LocalAgent
from tests.targets import ByteTarget, reply

pytestmark = pytest.mark.timeout(20)  # What is not closed at its end is read for ever.

BODIES = {"empty": b"", "lines": b"one\ntwo\r\nthree", "large": (b"plate,well" * 1000 + b"\n") * 900}
READINGS: dict[str, Callable[[requests.Response], Any]] = {
    "content": lambda response: response.content,
    "iter_content of None": lambda response: b"".join(response.iter_content(None)),
    "iter_content": lambda response: list(map(len, response.iter_content(700_000))),
    "iter_lines of None": lambda response: sum(1 for _ in response.iter_lines(chunk_size=None)),
    "iter_lines": lambda response: sum(1 for _ in response.iter_lines()),
    "iter_content after content": lambda response: (response.content, list(response.iter_content(None))),
    "raw.stream of None": lambda response: b"".join(response.raw.stream(None)),
    "raw.stream": lambda response: b"".join(response.raw.stream(1000)),
    "raw.read": lambda response: (response.raw.closed, response.raw.read(), response.raw.closed, response.raw.read()),
    "raw.read of all": lambda response: (response.raw.read(len(BODIES["lines"])), response.raw.read(3)),
    "raw.read of three": lambda response: (response.raw.read(3), response.raw.closed, response.raw.tell()),
    "raw.read1": lambda response: sum(map(len, iter(response.raw.read1, b""))),
    "raw.readinto": lambda response: response.raw.readinto(bytearray(5)),
    "raw, line by line": lambda response: sum(1 for _ in response.raw),
    "raw.data": lambda response: response.raw.data,
    "a text file": lambda response: io.TextIOWrapper(response.raw).read(),
    "a copied file": lambda response: shutil.copyfileobj(response.raw, io.BytesIO()),
    "closed early": lambda response: (response.raw.read(1), response.close(), response.raw.read()),
}


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running:
        for name, body in BODIES.items():
            running.on(f"/{name}", reply(200, [("Content-Type", "text/plain")], body))
        yield running


@pytest.fixture(scope="module")
def sessions(target: ByteTarget) -> Iterator[list[requests.Session]]:
    agent = LocalAgent(answers={target.url(f"/{name}"): (200, body, {"Content-Type": "text/plain"}) for name, body in BODIES.items()})
    with requests.Session() as direct, relay_session(agent) as relayed:
        direct.trust_env = False
        yield [direct, relayed]


CASES = [(reading, name) for reading in READINGS for name in ("empty", "lines")]
ON_A_FILE = [(reading, "large") for reading in ("iter_content of None", "iter_lines of None", "raw.read", "raw.read1")]


@pytest.mark.parametrize("reading, name", CASES + ON_A_FILE)
def test_a_body_is_read_as_that_of_a_direct_call(sessions: list[requests.Session], target: ByteTarget, reading: str, name: str) -> None:
    found = []
    for session in sessions:
        response = session.get(target.url(f"/{name}"), stream=True)
        found.append((READINGS[reading](response), response.raw.closed, response.raw.isclosed()))
        response.close()
    assert found[1] == found[0]


def test_a_response_that_is_returned_when_retries_are_used_up_has_them_as_a_direct_one(target: ByteTarget) -> None:
    target.on("/busy", reply(503))
    retry = Retry(1, status_forcelist=[503], raise_on_status=False)
    histories = []
    with requests.Session() as direct, relay_session(LocalAgent(answers={target.url("/busy"): (503, "")}), retries=retry) as relayed:
        direct.trust_env = False
        direct.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
        for session in (direct, relayed):
            left = session.get(target.url("/busy")).raw.retries
            histories.append((left.total, [step.status for step in left.history]))
    assert histories[1] == histories[0] == (0, [503])
