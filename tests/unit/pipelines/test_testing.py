"""The agent in a test's own process: what it executes, what its table answers, and how quickly."""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from relay_agent.pipelines import Keyring, relay_session
from relay_agent.pipelines.testing import LocalAgent
from tests.sender_side import RING
from tests.target_certificates import ca_pem
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, closed_port, redirect, reply

API = "https://lims.lab.example/api"


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running:
        yield running


@pytest.fixture(params=[None, RING], ids=["plain", "secure"])
def session(request: pytest.FixtureRequest) -> Iterator[requests.Session]:
    with relay_session(LocalAgent(), keyring=request.param) as made:
        yield made


def test_it_executes_with_the_agents_own_code(session: requests.Session, target: ByteTarget) -> None:
    def echo(conn: Connection, request: RawRequest) -> None:
        conn.respond(200, [("X-Method", request.method), ("Set-Cookie", "a=1")], request.body)

    target.on("*", echo)
    target.on("/moved", redirect(302, "/echo"))
    found = session.post(target.url("/echo"), data=b"\xff\x00", headers={"X-A": "1"})
    assert (found.content, found.headers["X-Method"], session.cookies["a"]) == (b"\xff\x00", "POST", "1")
    assert target.last.get("X-A") == "1"
    assert [hop.status_code for hop in session.get(target.url("/moved")).history] == [302]


def test_failures_are_those_of_an_agent(session: requests.Session, target: ByteTarget) -> None:
    target.on("/missing", reply(404, body="nothing"))
    target.on("/hang", lambda conn, _: conn.hang(10))
    with pytest.raises(requests.HTTPError):
        session.get(target.url("/missing")).raise_for_status()
    with pytest.raises(requests.ConnectionError, match=r"^ECONNREFUSED: "):
        session.get(f"http://127.0.0.1:{closed_port()}/")
    with pytest.raises(requests.ReadTimeout, match=r"^ETIMEDOUT: "):
        session.get(target.url("/hang"), timeout=0.3)
    with pytest.raises(requests.RequestException, match=r"^EPOLICY: "):
        session.get("http://169.254.169.254/")


def test_further_roots_may_be_trusted(tmp_path: Path) -> None:
    from tests.target_certificates import server_context

    (tmp_path / "ca.pem").write_bytes(ca_pem())
    with ByteTarget(tls=server_context()) as target:
        target.on("/", reply(200, body="safe"))
        with relay_session(LocalAgent(ca_file=tmp_path / "ca.pem")) as session:
            assert session.get(target.url("/", host="localhost")).text == "safe"
        with relay_session(LocalAgent()) as session:
            with pytest.raises(requests.exceptions.SSLError):
                session.get(target.url("/", host="localhost"))
            assert session.get(target.url("/", host="localhost"), verify=False).text == "safe"


def test_a_session_with_it_can_be_pickled_as_any(session: requests.Session, target: ByteTarget) -> None:
    target.on("/", reply(200, body="hello"))
    session.get(target.url("/"))
    with pickle.loads(pickle.dumps(session)) as again:
        assert again.get(target.url("/")).text == "hello"


def test_several_threads_may_share_it(session: requests.Session, target: ByteTarget) -> None:
    target.on("/", reply(200, body="hello"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: session.get(target.url("/")).text, range(40)))
    assert found == ["hello"] * 40


def table(**more: Any) -> dict[str, Any]:
    return {
        API: (200, {"id": 1}),
        f"POST {API}": (201, "made", {"Location": "/api/1"}),
        f"{API}?run=7": (200, b"\xff"),
        "http://lims.lab.example/slow": lambda payload: (200, {"timeout": payload["timeout"]}),
    } | more


@pytest.mark.parametrize("keyring", [None, RING], ids=["plain", "secure"])
def test_a_table_answers_without_any_call(keyring: Keyring | None) -> None:
    agent = LocalAgent(answers=table())
    with relay_session(agent, keyring=keyring) as session:
        assert session.get(API).json() == {"id": 1}
        assert session.get(API, params={"other": 1}).json() == {"id": 1}
        assert session.get(API, params={"run": 7}).content == b"\xff"
        made = session.post(API, json={"name": "x"})
        assert (made.status_code, made.text, made.headers["location"]) == (201, "made", "/api/1")
        assert session.get("http://lims.lab.example/slow", timeout=3).json() == {"timeout": 3}
        with pytest.raises(requests.ConnectionError, match=r"^ECONNREFUSED: the table of answers has none for GET http://other\.example/"):
            session.get("http://other.example/")
    assert [request["method"] for request in agent.requests] == ["GET", "GET", "GET", "POST", "GET", "GET"]
    assert json.loads(agent.requests[3]["body"]["raw"]) == {"name": "x"}


@pytest.mark.parametrize("keyring", [None, RING], ids=["plain", "secure"])
def test_what_no_agent_could_get_is_too_large_here_too(keyring: Keyring | None) -> None:
    agent = LocalAgent(answers=table())
    with relay_session(agent, keyring=keyring) as session, pytest.raises(requests.RequestException, match=r"^EMSGSIZE: "):
        session.post(API, data=b"\xff" * 8_000_000)
    assert not agent.requests


def test_threads_that_start_together_share_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    from relay_agent.transport import connection_pool

    made: list[connection_pool.ConnectionPool] = []

    class Slow(connection_pool.ConnectionPool):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)
            time.sleep(0.1)

    monkeypatch.setattr(connection_pool, "ConnectionPool", Slow)
    with unclosed() as session, ThreadPoolExecutor(8) as pool:
        assert {type(error) for error in pool.map(lambda _: refused(session), range(8))} == {requests.ConnectionError}
    assert len(made) == 1


def unclosed() -> requests.Session:
    return relay_session(LocalAgent())


def refused(session: requests.Session) -> Exception | None:
    try:
        session.get(f"http://127.0.0.1:{closed_port()}/")
    except requests.RequestException as error:
        return error
    return None


def test_a_session_that_nobody_closes_leaves_no_warning(target: ByteTarget) -> None:
    target.on("/", reply(200, body="hello"))
    session = unclosed()
    assert session.get(target.url("/")).text == "hello"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del session
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


WITHOUT = """
import sys
for name in ("psutil", "pydantic", "structlog", "boto3", "prometheus_client"):
    sys.modules[name] = None
from relay_agent.pipelines import relay_session
from relay_agent.pipelines.testing import LocalAgent
print(relay_session(LocalAgent(answers={"http://h.example/": (200, "fine")})).get("http://h.example/").text)
try:
    relay_session(LocalAgent()).get("http://127.0.0.1:9/")
except ModuleNotFoundError as error:
    print(error)
"""


def test_without_the_extra_a_table_answers_and_a_call_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=50, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and lines[0] == "fine", done.stderr
    assert "pip install 'tdp-relay-agent[testing]'" in lines[1]


def test_a_unit_test_with_it_takes_milliseconds() -> None:
    with relay_session(LocalAgent(answers=table())) as session:
        session.get(API)
        began = time.perf_counter()
        for _ in range(20):
            session.get(API)
        assert (time.perf_counter() - began) / 20 < 0.02
