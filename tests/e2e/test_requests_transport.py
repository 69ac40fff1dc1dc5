"""A `requests` session with the relay as its transport, on a real agent: a program sees what it would see without it.

The adapter by itself is tested in the sender's integration tests.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator

import pytest
import requests

from relay_agent.pipelines.client import CommandClient
from relay_agent.pipelines.requests_adapter import RelayAdapter
from relay_agent.protocol.keyring import Keyring
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, running
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, closed_port, redirect, reply

KEY = secrets.token_bytes(32)


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"), {"SECURE_COMMAND_KEY": KEY.hex()})) as started:
        yield started


def echo(conn: Connection, request: RawRequest) -> None:
    shown = {"method": request.method, "target": request.target, "headers": request.headers, "body": request.body.decode("latin-1")}
    conn.respond(200, [("Content-Type", "application/json")], json.dumps(shown).encode())


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("*", echo)
        running_target.on(
            "/login", reply(302, [("Location", "/home"), ("Set-Cookie", "session=1; Path=/"), ("Set-Cookie", "theme=dark; Path=/")])
        )
        running_target.on("/post-redirect", redirect(303, "/after"))
        running_target.on("/loop", redirect(302, "/loop"))
        running_target.on("/missing", reply(404, body="nothing"))
        running_target.on("/latin", reply(200, [("Content-Type", "text/plain; charset=iso-8859-1")], "é".encode("latin-1")))
        yield running_target


@pytest.fixture(params=["plain", "secure"])
def session(request: pytest.FixtureRequest, agent: RunningAgent) -> Iterator[requests.Session]:
    """A session through the agent, by plain or by secure commands."""
    sandbox = agent.sandbox
    with requests.Session() as calls, requests.Session() as through:
        calls.trust_env = through.trust_env = False
        client = CommandClient(sandbox.api_target, sandbox.org_slug, sandbox.jwt, agent.agent_id, calls)
        keyring = Keyring([KEY]) if request.param == "secure" else None
        for scheme in ("http://", "https://"):
            through.mount(scheme, RelayAdapter(client, keyring=keyring))
        yield through


def test_json_goes_and_comes(session: requests.Session, target: ByteTarget) -> None:
    answer = session.post(target.url("/api"), json={"id": 1, "name": "ü"}, params={"q": "a b/c"})
    assert answer.json()["target"] == "/api?q=a+b%2Fc"
    assert json.loads(answer.json()["body"]) == {"id": 1, "name": "ü"}
    assert ["Content-Type", "application/json"] in answer.json()["headers"]


def test_a_login_keeps_its_cookies_for_the_session(session: requests.Session, target: ByteTarget) -> None:
    answer = session.get(target.url("/login"))
    assert answer.url == target.url("/home")
    assert [hop.status_code for hop in answer.history] == [302]
    assert dict(session.cookies) == {"session": "1", "theme": "dark"}
    sent = dict(session.get(target.url("/next")).json()["headers"])
    assert sorted(sent["Cookie"].split("; ")) == ["session=1", "theme=dark"]


def test_one_sessions_cookies_never_reach_another(session: requests.Session, agent: RunningAgent, target: ByteTarget) -> None:
    session.get(target.url("/login"))
    session.cookies.clear()
    assert "Cookie" not in dict(session.get(target.url("/next")).json()["headers"])


def test_see_other_turns_a_post_into_a_get(session: requests.Session, target: ByteTarget) -> None:
    answer = session.post(target.url("/post-redirect"), data={"a": "1"})
    assert (answer.json()["method"], answer.json()["body"]) == ("GET", "")


def test_a_loop_of_redirects_is_too_many(session: requests.Session, target: ByteTarget) -> None:
    session.max_redirects = 3
    with pytest.raises(requests.TooManyRedirects):
        session.get(target.url("/loop"))


def test_files_are_uploaded_byte_for_byte(session: requests.Session, target: ByteTarget) -> None:
    data = bytes(range(256))
    session.post(target.url("/upload"), files={"file": ("plate.bin", io.BytesIO(data))}, data={"kind": "plate"})
    seen = target.last
    assert (seen.get("Content-Type") or "").startswith("multipart/form-data; boundary=")
    assert data in seen.body
    assert b'filename="plate.bin"' in seen.body


def test_basic_authorization_reaches_the_target(session: requests.Session, target: ByteTarget) -> None:
    sent = dict(session.get(target.url("/auth"), auth=("user", "p:w")).json()["headers"])
    assert sent["Authorization"] == "Basic dXNlcjpwOnc="


def test_streams_and_encodings_are_as_without_the_relay(session: requests.Session, target: ByteTarget) -> None:
    assert session.get(target.url("/latin")).text == "é"
    pieces = session.get(target.url("/stream"), stream=True).iter_content(10)
    assert json.loads(b"".join(pieces))["method"] == "GET"
    assert session.head(target.url("/head")).content == b""
    assert session.post(target.url("/generator"), data=iter([b"a", b"b"])).json()["body"] == "ab"


def test_errors_are_the_classes_of_a_direct_call(session: requests.Session, target: ByteTarget) -> None:
    with pytest.raises(requests.HTTPError, match="404"):
        session.get(target.url("/missing")).raise_for_status()
    with pytest.raises(requests.ConnectionError, match="ECONNREFUSED"):
        session.get(f"http://127.0.0.1:{closed_port()}/")
    target.on("/hang", lambda conn, _: conn.hang(10))
    with pytest.raises(requests.ReadTimeout):
        session.get(target.url("/hang"), timeout=0.4)
