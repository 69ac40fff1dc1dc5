"""The vendor's own `ts-sdk` as the sender: `context.run_cmd` on both of its routes, answered by a real agent (PROTOCOL §1).

Pipelines written for the vendor's connector get their answers.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest
import requests

from relay_agent.core.models import ACTION_HTTP
from relay_agent.pipelines import ContextClient, Keyring, relay_session
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, running
from tests.targets import ByteTarget, closed_port, reply

KEY = secrets.token_hex(32)


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"), {"SECURE_COMMAND_KEY": KEY})) as started:
        yield started


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(200, [("Content-Type", "application/json")], '{"instrument": "reader"}'))
        running_target.on("/missing", reply(404, body="nothing here"))
        yield running_target


@pytest.fixture(params=["v0", "v1"])
def context(request: pytest.FixtureRequest, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pipeline's context, on either of the SDK's routes."""
    from ts_sdk.task.__task_script_runner import Context

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PIPELINES_COMMUNICATION_FORMAT", request.param)
    monkeypatch.setenv("COMMAND_ENDPOINT", sandbox.api_target)
    monkeypatch.setenv("KERNEL_ENDPOINT", sandbox.api_target)
    ids = {"orgSlug": sandbox.org_slug, "workflowId": "w-1", "pipelineId": "p-1", "taskId": "t-1"}
    # A command uses neither the data lake nor artifacts nor the log.
    return Context(ids, Mock(), Mock(), Mock())


def test_run_cmd_returns_the_response_body_or_raises_with_it(context: Any, agent: RunningAgent, target: ByteTarget) -> None:
    def run(path: str, action: str = ACTION_HTTP) -> Any:
        try:
            return "returned", context.run_cmd(agent.agent_id, action, {"vendor": "tetra"}, {"url": path}, ttl_sec=60)
        except Exception as error:
            return "raised", error.args[0]

    gate = target.gate()
    target.on("/slow", lambda conn, _: (conn.wait(gate, 1.3), conn.respond(200, [], b"at last")))
    target.on("/large", reply(200, [("Content-Type", "text/plain")], "a" * 1_000_000))
    # In parallel, since the SDK sleeps a second before its first query.
    with ThreadPoolExecutor(6) as pool:
        unknown = pool.submit(run, target.url("/"), "TetraScience.Connector.Nonsense")
        paths = [target.url("/"), target.url("/missing"), f"http://127.0.0.1:{closed_port()}/", target.url("/slow"), target.url("/large")]
        found, missing, refused, slow, large = pool.map(run, paths)
    assert [how for how, _ in (found, slow, large)] == ["returned"] * 3
    assert [how for how, _ in (missing, refused, unknown.result())] == ["raised"] * 3
    assert (found[1]["statusCode"], found[1]["body"]) == (200, '{"instrument": "reader"}')
    assert (missing[1]["statusCode"], missing[1]["body"]) == (404, "nothing here")
    assert (refused[1]["code"], "statusCode" in refused[1]) == ("ECONNREFUSED", False)
    assert unknown.result()[1]["code"] == "UNKNOWN_COMMAND"
    assert slow[1]["body"] == "at last"
    assert large[1]["body"] == "a" * 1_000_000
    assert sorted(command.status for command in agent.sandbox.commands.all()[-6:]) == [
        "FAILURE",
        "FAILURE",
        "REJECTED",
        "SUCCESS",
        "SUCCESS",
        "SUCCESS",
    ]


# --- ordinary requests code, with nothing but the context ---


@pytest.mark.parametrize("keyring", [None, Keyring.from_text(KEY)], ids=["plain", "secure"])
def test_a_session_of_the_context_is_as_any_session(
    context: Any,
    agent: RunningAgent,
    target: ByteTarget,
    keyring: Keyring | None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sleep, slept = time.sleep, [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: (slept.append(seconds), sleep(seconds)))
    target.on("/large", reply(200, [("Content-Type", "text/plain")], "a" * 1_000_000))
    with relay_session(ContextClient(context, agent.agent_id), keyring=keyring) as session:
        assert session.get(target.url("/"), timeout=30).json() == {"instrument": "reader"}
        assert max(slept) < 0.9  # The SDK alone would sleep for a second before it looks.
        with pytest.raises(requests.HTTPError, match="404"):
            session.get(target.url("/missing"), timeout=30).raise_for_status()
        with pytest.raises(requests.ConnectionError, match=r"^ECONNREFUSED: "):
            session.get(f"http://127.0.0.1:{closed_port()}/", timeout=30)
        assert session.get(target.url("/large"), timeout=30).text == "a" * 1_000_000
    assert capfd.readouterr() == ("", "")


def test_an_unknown_agent_is_no_connection_error(context: Any) -> None:
    session = relay_session(ContextClient(context, "00000000-0000-4000-8000-000000000000"))
    with session, pytest.raises(requests.RequestException, match=r"^404: ") as caught:
        session.get("http://h.example/", timeout=5)
    assert not isinstance(caught.value, requests.ConnectionError)


def test_without_an_agent_a_call_of_the_context_ends_in_time(context: Any, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    absent = sandbox.add_agent("nobody runs it")
    began = time.monotonic()
    words = r"^ETIMEDOUT: .*still PENDING: is the agent running.*\(command [0-9a-f-]{36}\)"
    with relay_session(ContextClient(context, absent)) as session, pytest.raises(requests.ReadTimeout, match=words):
        session.get("http://h.example/", timeout=0.5)
    assert 5 < time.monotonic() - began < 11
    for thread in threading.enumerate():
        if thread.name == "relay-context":
            thread.join(5)
            assert not thread.is_alive()
    assert capfd.readouterr() == ("", "")
