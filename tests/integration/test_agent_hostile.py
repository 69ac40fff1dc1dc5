"""Hostile input through a real agent: every input of one sender or target is answered, and the commands of others go on.

Each kind of input once. The details of a parser are in its unit tests.
"""

from __future__ import annotations

import gzip
import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.models import ACTION_HTTP
from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.server import Sandbox
from tests.agents import Json, RunningAgent, body, finals, page, running, wait_until
from tests.target_server import Gate
from tests.targets import ByteTarget, play, raw, reply

SOON_SECONDS = 8.0
"""What takes milliseconds, on a machine where other tests run beside this one; each of these inputs once took minutes."""
FAR = datetime.max.replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"), {"RELAY_WORKERS": "4"}, whole=True)) as started:
        yield started


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as server:
        server.on("/", reply(200, [("Content-Type", "text/plain")], "as ever"))
        yield server


def others_go_on(agent: RunningAgent, target: ByteTarget) -> None:
    """Another command is answered, and the agent's own pages are, soon."""
    begun = time.monotonic()
    answered = agent.get(target.url("/"))
    assert body(answered)["body"] == "as ever"
    assert page(agent, "/healthz")[0] == 200
    assert time.monotonic() - begun < SOON_SECONDS


LISTS: list[Any] = [[]] * 80_000
COMMANDS: dict[str, tuple[Json, str, str]] = {
    "a host of 60 KB": ({"url": "http://" + "a-" * 30_000 + "/"}, ACTION_HTTP, "EBADCOMMAND"),
    "a host of 200 KB in the path": ({"url": "http://h/" + "a-" * 100_000}, ACTION_HTTP, "EBADCOMMAND"),
    "a label of 64": ({"url": f"http://{'a' * 64}.example/"}, ACTION_HTTP, "EBADCOMMAND"),
    "a long method": ({"url": "http://h/", "method": "basic-" * 30_000}, ACTION_HTTP, "EBADCOMMAND"),
    "a long action": ({"url": "http://h/"}, "token=" * 30_000, "EBADCOMMAND"),
    "many values": ({"url": "http://h/", "x": [LISTS, [0] * 30_000]}, ACTION_HTTP, "EBADCOMMAND"),
    "a deep value": ({"url": "http://h/", "x": [[]]}, ACTION_HTTP, "EBADCOMMAND"),
    "a media type of semicolons": (
        {
            "url": "http://127.0.0.1:9/",
            "headers": {"Content-Type": 'multipart/form-data; a="' + ";" * 200_000},
            "body": {"mode": "formdata", "formdata": [{"key": "a", "value": "b"}]},
        },
        ACTION_HTTP,
        "EBADCOMMAND",
    ),
}
inner: Any = COMMANDS["a deep value"][0]["x"]
for _ in range(100):
    inner = [inner]
COMMANDS["a deep value"][0]["x"] = inner


@pytest.mark.parametrize("name", COMMANDS)
def test_hostile_input_of_one_sender_does_not_affect_others(agent: RunningAgent, target: ByteTarget, name: str) -> None:
    payload, action, code = COMMANDS[name]
    begun = time.monotonic()
    commands = [agent.create(payload, action) for _ in range(10)]
    others_go_on(agent, target)
    answers = [agent.sandbox.wait_final(command.id, 20) for command in commands]
    assert [(answer.status, body(answer)["code"]) for answer in answers] == [("FAILURE", code)] * 10
    assert time.monotonic() - begun < 2 * SOON_SECONDS


ANSWERS: dict[str, tuple[bytes, str | int]] = {
    "a Location of 200 KB": (
        b"HTTP/1.1 302 Found\r\nLocation: http://" + b"a-" * 100_000 + b"/\r\nContent-Length: 0\r\n\r\n",
        "EBADRESPONSE",
    ),
    "a Location whose host is 60 KB": (
        b"HTTP/1.1 302 Found\r\nLocation: http://" + b"a-" * 30_000 + b"/\r\nContent-Length: 0\r\n\r\n",
        "EBADRESPONSE",
    ),
    "a media type of semicolons": (b'HTTP/1.1 200 OK\r\nContent-Type: a;"' + b";" * 250_000 + b"\r\nContent-Length: 2\r\n\r\nok", 200),
    "cookies": (b"HTTP/1.1 302 Found\r\nLocation: /\r\n" + b"Set-Cookie: a=b; " + b"; " * 120_000 + b"\r\nContent-Length: 0\r\n\r\n", 200),
    "many cookies": (
        b"HTTP/1.1 302 Found\r\nLocation: /\r\n"
        + b"".join(b"Set-Cookie: c%d=%s; Version=1\r\n" % (place, b"v" * 250) for place in range(900))
        + b"Content-Length: 0\r\n\r\n",
        200,
    ),
    "an unknown charset": (b"HTTP/1.1 200 OK\r\nContent-Type: a/b; charset=" + b"x" * 100_000 + b"\r\nContent-Length: 2\r\n\r\nok", 200),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_hostile_input_of_one_target_does_not_affect_others(agent: RunningAgent, target: ByteTarget, name: str) -> None:
    answer, outcome = ANSWERS[name]
    target.on(f"/{name.replace(' ', '-')}", raw(answer))
    commands = [agent.create({"url": target.url(f"/{name.replace(' ', '-')}"), "timeout": SOON_SECONDS}) for _ in range(3)]
    others_go_on(agent, target)
    found = [body(agent.sandbox.wait_final(command.id, 20)) for command in commands]
    assert [one.get("code", one.get("statusCode")) for one in found] == [outcome] * 3


def test_empty_members_of_gzip_in_gzip_in_gzip_end_at_the_deadline(agent: RunningAgent, target: ByteTarget) -> None:
    layers = gzip.compress(b"") * 2_000_000
    packed = gzip.compress(gzip.compress(layers, 1), 1)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    target.on("/members", raw(head + packed))
    begun = time.monotonic()
    command = agent.create({"url": target.url("/members"), "timeout": 1})
    others_go_on(agent, target)
    found = body(agent.sandbox.wait_final(command.id, 20))
    assert found.get("code", found.get("statusCode")) in ("ETIMEDOUT", 200)
    assert time.monotonic() - begun < SOON_SECONDS


def test_a_command_that_expires_at_the_end_of_the_calendar_is_run_and_survives_a_restart(
    sandbox: Sandbox, target: ByteTarget, tmp_path: Path
) -> None:
    gate = Gate()
    target.on("/slow", play(lambda conn: conn.wait(gate), lambda conn: conn.respond(200, (), b"late")))
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        quick, slow = never(agent, target.url("/")), never(agent, target.url("/slow"))
        assert body(sandbox.wait_final(quick.id, 20))["body"] == "as ever"
        gate.wait_reached()
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        agent.kill()
        agent.start().ready()
        gate.release()
        assert body(sandbox.wait_final(slow.id, 20))["body"] == "late"
        assert finals(slow) == ["SUCCESS"]
        assert agent.stop() == 0


def never(agent: RunningAgent, url: str) -> Command:
    """A command that expires never, as .NET writes it."""
    now = agent.sandbox.now()
    command = Command(
        id=str(uuid.uuid4()),
        org_slug=agent.sandbox.org_slug,
        target_id=agent.agent_id,
        action=ACTION_HTTP,
        created_at=now,
        updated_at=now,
        expires_at=FAR,
        payload={"url": url},
        metadata={},
        delivery=None,
    )
    agent.sandbox.dispatch(command)
    return command


def test_a_body_of_millions_of_values_is_refused_and_takes_no_memory(agent: RunningAgent, target: ByteTarget) -> None:
    before = agent.resident_bytes
    command = agent.create({"url": target.url("/"), "x": [[] for _ in range(2_500_000)]})
    found = body(agent.sandbox.wait_final(command.id, 60))
    assert found["code"] == "EBADCOMMAND" and "values" in found["message"]
    assert agent.resident_bytes - before < 60_000_000
    others_go_on(agent, target)


def test_bodies_of_many_hosts_that_do_not_answer_do_not_delay_those_of_others(agent: RunningAgent, target: ByteTarget) -> None:
    """The first of the others was never asked before, the second is known to answer."""
    target.on("/bucket", reply(200, body=json.dumps({"url": target.url("/")})))
    with ExitStack() as listeners:
        # The system accepts their connections, and nothing answers.
        ports = [listeners.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(5)]
        dead = [referenced(agent, f"http://127.0.0.1:{port}/body") for port in [*ports[:1] * 60, *ports[1:] * 5]]
        for limit in (2 * SOON_SECONDS, SOON_SECONDS):
            begun = time.monotonic()
            assert body(agent.sandbox.wait_final(referenced(agent, target.url("/bucket")), 60))["body"] == "as ever"
            assert time.monotonic() - begun < limit
        assert not any(finals(agent.sandbox.command(command_id)) for command_id in dead)


def referenced(agent: RunningAgent, url: str) -> str:
    """Send a command whose body is behind a URL, and return its id."""
    now = agent.sandbox.now()
    command = Command(str(uuid.uuid4()), agent.sandbox.org_slug, agent.agent_id, ACTION_HTTP, now, now + timedelta(minutes=5), now, {})
    agent.sandbox.commands.add(command)
    message = command.request_json() | {"body": None, "bodyDelivery": "referenced", "bodyUrl": url}
    agent.sandbox.send_raw(agent.agent_id, json.dumps(message))
    return command.id
