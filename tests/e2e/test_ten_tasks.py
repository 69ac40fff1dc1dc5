"""Ten things that a pipeline developer does with requests, through a real agent of the sandbox: with a `context`, and by the REST API.

The program is what somebody would write who knows requests and nothing of this project.
"""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from urllib3.util import Retry

from relay_agent.pipelines import CommandClient, ContextClient, Keyring, relay_session
from relay_agent.pipelines.testing import SandboxContext
from relay_agent.sandbox.server import Sandbox
from tests.agents import EXECUTABLE, RunningAgent, running
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, closed_port, redirect, reply

KEY = "cd" * 32
LARGE = b"0123456789abcdef" * 1_000_000


def echo(conn: Connection, request: RawRequest) -> None:
    shown = {"method": request.method, "target": request.target, "headers": request.headers, "body": request.body.decode("latin-1")}
    conn.respond(200, [("Content-Type", "application/json")], json.dumps(shown).encode())


@pytest.fixture(scope="module")
def lims() -> Iterator[ByteTarget]:
    with ByteTarget() as target:
        target.on("*", echo)
        target.on("/samples", reply(200, [("Content-Type", "application/json")], '[{"id": 7}]'))
        target.on("/login", reply(302, [("Location", "/home"), ("Set-Cookie", "session=1; Path=/")]))
        target.on("/moved", redirect(301, "/samples"))
        target.on("/missing", reply(404, body="nothing"))
        target.on("/large", reply(200, [("Content-Type", "application/octet-stream")], LARGE))
        yield target


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"), {"SECURE_COMMAND_KEY": KEY})) as started:
        yield started


@pytest.fixture(scope="module", params=["context", "context, sealed", "api", "api, sealed"])
def session(request: pytest.FixtureRequest, agent: RunningAgent) -> Iterator[requests.Session]:
    sandbox = agent.sandbox
    client = (
        ContextClient(SandboxContext(sandbox.api_target, sandbox.org_slug), agent.agent_id)
        if request.param.startswith("context")
        else CommandClient(sandbox.api_target, sandbox.org_slug, sandbox.jwt, agent.agent_id)
    )
    keyring = Keyring.from_text(KEY) if request.param.endswith("sealed") else None
    with relay_session(client, keyring=keyring, retries=Retry(2, status_forcelist=[503])) as made:
        yield made


def test_1_read_json(session: requests.Session, lims: ByteTarget) -> None:
    assert session.get(lims.url("/samples"), params={"run": 7}, timeout=30).json()[0]["id"] == 7


def test_2_write_json_with_a_header_and_a_login(session: requests.Session, lims: ByteTarget) -> None:
    sent = session.post(lims.url("/api"), json={"id": 1}, headers={"X-Run": "7"}, auth=("user", "pass"), timeout=30).json()
    headers = dict(sent["headers"])
    assert (json.loads(sent["body"]), headers["X-Run"], headers["Authorization"]) == ({"id": 1}, "7", "Basic dXNlcjpwYXNz")


def test_3_upload_a_file(session: requests.Session, lims: ByteTarget) -> None:
    sent = session.post(lims.url("/upload"), files={"plate": ("plate.bin", io.BytesIO(b"\xff\x00"))}, timeout=30).json()
    assert "\xff\x00" in sent["body"] and 'filename="plate.bin"' in sent["body"]


def test_4_log_in_and_stay_so(session: requests.Session, lims: ByteTarget) -> None:
    found = session.get(lims.url("/login"), timeout=30)
    assert [hop.status_code for hop in found.history] == [302] and dict(found.json()["headers"])["Cookie"] == "session=1"
    session.cookies.clear()


def test_5_stream_a_large_file_to_a_disk(session: requests.Session, lims: ByteTarget, tmp_path: Path) -> None:
    with session.get(lims.url("/large"), stream=True, timeout=60) as answer, (tmp_path / "large").open("wb") as file:
        for piece in answer.iter_content(1_000_000):
            file.write(piece)
    assert (tmp_path / "large").read_bytes() == LARGE


def test_6_see_a_404_and_a_dead_host_as_ever(session: requests.Session, lims: ByteTarget) -> None:
    with pytest.raises(requests.HTTPError, match="404"):
        session.get(lims.url("/missing"), timeout=30).raise_for_status()
    with pytest.raises(requests.ConnectionError, match=r"^ECONNREFUSED: "):
        session.get(f"http://127.0.0.1:{closed_port()}/", timeout=30)


def test_7_give_up_in_time(session: requests.Session, lims: ByteTarget) -> None:
    lims.on("/hang", lambda conn, _: conn.hang(10))
    began = time.monotonic()
    with pytest.raises(requests.ReadTimeout, match=r"^ETIMEDOUT: "):
        session.post(lims.url("/hang"), timeout=0.5)
    assert time.monotonic() - began < 5


def test_8_repeat_what_may_be_repeated(session: requests.Session, lims: ByteTarget) -> None:
    asked: list[str] = []

    def busy_once(conn: Connection, request: RawRequest) -> None:
        asked.append(request.method)
        conn.respond(200 if len(asked) > 1 else 503, [], b"at last")

    lims.on("/busy", busy_once)
    assert session.get(lims.url("/busy"), timeout=30).text == "at last" and asked == ["GET", "GET"]
    asked.clear()
    assert session.post(lims.url("/busy"), timeout=30).status_code == 503 and asked == ["POST"]


def test_9_ask_for_many_at_once(session: requests.Session, lims: ByteTarget) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: session.get(lims.url(f"/many?n={n}"), timeout=30).json()["target"], range(16)))
    assert found == [f"/many?n={n}" for n in range(16)]


def test_10_send_too_much_and_learn_what_fits(session: requests.Session, lims: ByteTarget) -> None:
    asked = len(lims.requests)
    with pytest.raises(requests.RequestException, match=r"^EMSGSIZE: .*10 MB") as caught:
        session.post(lims.url("/api"), data=b"x" * 11_000_000, timeout=30)
    assert not isinstance(caught.value, requests.ConnectionError) and len(lims.requests) == asked
    assert session.post(lims.url("/count"), data=b"x" * 5_000_000, timeout=60).json()["body"] == "x" * 5_000_000


def test_without_an_agent_a_call_ends_10_s_after_its_timeout(sandbox: Sandbox) -> None:
    absent = sandbox.add_agent("nobody runs it")
    client = CommandClient(sandbox.api_target, sandbox.org_slug, sandbox.jwt, absent)
    began = time.monotonic()
    with relay_session(client) as session, pytest.raises(requests.ReadTimeout, match="is the agent running"):
        session.get("http://h.example/", timeout=0.2)
    assert 8 < time.monotonic() - began < 10.7


def test_an_unknown_agent_and_a_wrong_token_are_no_connection_errors(sandbox: Sandbox) -> None:
    for jwt, agent_id, code in ((sandbox.jwt, "none", "404"), ("a.b.c", "none", "40[13]")):
        client = CommandClient(sandbox.api_target, sandbox.org_slug, jwt, agent_id)
        with relay_session(client) as session, pytest.raises(requests.RequestException, match=rf"^{code}: ") as caught:
            session.get("http://h.example/", timeout=5)
        assert not isinstance(caught.value, requests.ConnectionError)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_command_line_that_the_sandbox_s_page_shows_for_a_command_works(
    session: requests.Session, lims: ByteTarget, agent: RunningAgent, tmp_path: Path
) -> None:
    session.post(lims.url("/echo"), data="it's", headers={"X-A": "1"}, timeout=0.9)
    sandbox = agent.sandbox
    command = sandbox.commands.all()[-1]
    time.sleep(max(0.0, 1.0 - (time.time() - command.created_at.timestamp())))  # Until its `not_after` has passed.
    page = requests.get(f"{sandbox.api_target}/commands/{command.id}", timeout=10).text
    shown = re.findall(r'<pre id="curl"[^>]*>(.*?)</pre>', page, re.DOTALL)[0]
    line = html.unescape(shown).split("# The response")[0]
    known = {command.id for command in sandbox.commands.all()}
    path = f"{EXECUTABLE.parent}:/usr/bin:/bin"
    environment = {"PATH": path, "JWT": sandbox.jwt, "SECURE_COMMAND_KEY": KEY, "no_proxy": "127.0.0.1"}
    done = subprocess.run(["bash", "-c", line], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    (copied,) = [command.id for command in sandbox.commands.all() if command.id not in known]
    found = sandbox.wait_final(copied)
    if "jwe" in command.payload:  # Sealed anew, for the address of the sample.
        assert "ENOTFOUND" in done.stderr or "EAI_AGAIN" in done.stderr, done.stderr
    else:
        assert found.status == "SUCCESS", found.response_body
        assert lims.last.body == b"it's" and lims.last.get("X-A") == "1"
