"""`relay-agent retire` answers everything that a stopped agent's journal holds, and empties it (docs/several-agents.md)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import relay_agent
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, answers, body, run_once, wait_until
from tests.target_server import Gate
from tests.targets import ByteTarget, reply

UNREACHABLE = {"API_TARGET": "http://127.0.0.1:9", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as one:
        yield one


def hold(target: ByteTarget, path: str, answer: bytes = b"held") -> Gate:
    """Let requests for a path wait at a gate."""
    gate = target.gate()
    target.on(path, lambda conn, _: (conn.wait(gate), conn.respond(200, [("Content-Type", "text/plain")], answer)))
    return gate


def retire(agent: RunningAgent, *options: str, **more: str) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and report."""
    done = run_once(["retire", "--json", *options], agent.directory, {**agent.environment, **more}, timeout=60.0)
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith(b"{") else {"errors": done.stderr.decode()}


def left(agent: RunningAgent) -> list[Any]:
    """The commands in the journal."""
    found: list[Any] = json.loads(run_once(["commands", "--json"], agent.directory, agent.environment).stdout)["commands"]
    return found


def test_every_command_in_the_journal_is_answered_by_what_is_known_of_it(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    target.on("/ended", reply(body="ended"))
    target.on("/large", reply(body="x" * 400_000))
    gates = [hold(target, "/post"), hold(target, "/get")]
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_WORKERS": "3"})
    with agent, sandbox.inject(Fault("sqs", "SendMessageBatch", contains=agent.agent_id, hang_seconds=FOREVER, count=None)):
        ended = [agent.create({"method": "POST", "url": target.url(path)}) for path in ("/ended", "/large")]
        for _ in ended:
            agent.wait_log("command", status="SUCCESS")
        begun = [agent.create({"method": "POST", "url": target.url("/post")}), agent.create({"url": target.url("/get")})]
        for gate in gates:
            gate.wait_reached()
        waiting = [agent.create({"url": target.url("/never")}) for _ in range(3)]
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        agent.kill()
    for gate in gates:
        gate.release()
    code, report = retire(agent)
    assert (code, report["unsent"], report["problem"]) == (0, 0, None), report
    assert (report["ended"], report["shutdown"], report["interrupted"]) == (2, 3, 2)
    assert [sandbox.wait_final(command.id).status for command in ended] == ["SUCCESS", "SUCCESS"]
    assert [body(sandbox.wait_final(command.id))["code"] for command in begun] == ["EINTERRUPTED", "EINTERRUPTED"]
    assert [body(sandbox.wait_final(command.id))["code"] for command in waiting] == ["ESHUTDOWN"] * 3
    assert {len(answers(command)) for command in (*ended, *begun, *waiting)} == {1}
    assert left(agent) == []
    assert [request.target for request in target.requests].count("/never") == 0
    assert retire(agent)[1]["ended"] == 0, "a second time there is nothing left"


def test_what_the_platform_does_not_take_stays_for_the_next_try(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = hold(target, "/post")
    agent = RunningAgent(sandbox, tmp_path)
    with agent:
        command = agent.create({"method": "POST", "url": target.url("/post")})
        gate.wait_reached()
        agent.kill()
    gate.release()
    code, report = retire(agent, "--timeout", "1", **UNREACHABLE)
    assert (code, report["unsent"]) == (1, 1)
    assert "ECONNREFUSED" in report["problem"]
    assert report["cause"]["cure"]
    assert retire(agent)[0] == 0
    assert body(sandbox.wait_final(command.id))["code"] == "EINTERRUPTED"


HANGING = {"an answer": ("sqs", "SendMessageBatch"), "a receive": ("sqs", "ReceiveMessage"), "the configuration": ("rest", "")}


@pytest.mark.parametrize("call", HANGING)
def test_a_signal_ends_it_soon_though_a_call_to_the_platform_hangs(sandbox: Sandbox, tmp_path: Path, target: ByteTarget, call: str) -> None:
    target.on("/x", reply(body="done"))
    unacked = call == "a receive"
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_LEASE_SECONDS": "5", **({"RELAY_FAULT_POINT": "before-ack"} if unacked else {})})
    with agent, sandbox.inject(Fault("sqs", "SendMessageBatch", contains=agent.agent_id, close=True, count=None)):
        agent.create({"method": "POST", "url": target.url("/x")})
        if unacked:
            agent.wait()
        else:
            agent.wait_log("command")
            agent.kill()
    agent.environment.pop("RELAY_FAULT_POINT", None)
    wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id)[1] == 0)  # A lease is over, so that a receipt is refused.
    kind, operation = HANGING[call]
    contains = "" if kind == "rest" else agent.agent_id
    with sandbox.inject(Fault(kind, operation, contains=contains, hang_seconds=FOREVER, count=None)) as held:
        command = [str(Path(sys.executable).with_name("relay-agent")), "retire", "--json"]
        environment = {**os.environ, **agent.environment, "PYTHONPATH": str(Path(relay_agent.__file__).parents[1])}
        with subprocess.Popen(command, cwd=agent.directory, env=environment, stdout=subprocess.PIPE) as process:
            wait_until(sandbox, lambda: held.hits > 0)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            report = json.loads(process.communicate(timeout=60.0)[0])
            seconds = time.monotonic() - began
    assert (process.returncode, report["problem"], report["cause"]) == (1, "interrupted by a signal", None)
    assert seconds < 8.0


def test_an_agent_that_runs_is_not_retired(sandbox: Sandbox, tmp_path: Path) -> None:
    with RunningAgent(sandbox, tmp_path) as agent:
        agent.ready()
        code, report = retire(agent)
        assert (code, "Stop the agent, or wait" in report["errors"]) == (2, True)
        assert agent.stop() == 0


SHARED = {"RELAY_SHARED_QUEUE": "true", "RELAY_LEASE_SECONDS": "5"}


def test_what_is_only_claimed_of_a_shared_queue_is_left_to_the_others_once_its_lease_is_over(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    target.on("*", reply(body="here"))
    agent = RunningAgent(sandbox, tmp_path / "one", SHARED)
    with agent, sandbox.inject(Fault("sqs", "DeleteMessageBatch", contains=agent.agent_id, hang_seconds=FOREVER, close=True)) as held:
        command = agent.create({"method": "POST", "url": target.url("/")})
        wait_until(sandbox, lambda: held.hits >= 1)
        agent.kill()
    with RunningAgent(sandbox, tmp_path / "two", SHARED, agent.agent_id) as other:
        assert sandbox.wait_final(command.id).status == "SUCCESS"  # The lease of the first is over.
        code, report = retire(agent)
        assert (code, report["ceded"], report["shutdown"]) == (0, 1, 0)
        assert left(agent) == []
        assert other.stop() == 0
    assert (len(target.requests), len(answers(command))) == (1, 1)


@pytest.mark.parametrize("carried_out", [False, True], ids=["not carried out", "carried out"])
def test_a_claim_within_its_lease_is_made_this_agents_and_answered(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, carried_out: bool
) -> None:
    """Its message may be deleted already, though that was not confirmed: then no other agent would ever answer it."""
    agent = RunningAgent(sandbox, tmp_path, {**SHARED, "RELAY_LEASE_SECONDS": "60"})
    agent.environment["RELAY_FAULT_POINT"] = "after-ack" if carried_out else "before-ack"
    with agent:
        command = agent.create({"method": "POST", "url": target.url("/")})
        agent.wait()
    del agent.environment["RELAY_FAULT_POINT"]
    code, report = retire(agent)
    assert (code, report["ceded"], report["shutdown"]) == (0, 0, 1), report
    assert body(sandbox.wait_final(command.id))["code"] == "ESHUTDOWN"
    assert sandbox.queue_depth(agent.agent_id) == (0, 0)
    assert target.requests == []


def test_no_message_is_left_in_the_queue_for_a_machine_that_takes_this_ones_place(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    """Deletes failed until the agent was killed, and SQS refuses their receipts by now."""
    gate = hold(target, "/held")
    target.on("/done", reply(body="done"))
    agent = RunningAgent(sandbox, tmp_path / "one", {"RELAY_LEASE_SECONDS": "5"})
    with agent, sandbox.inject(Fault("sqs", "DeleteMessageBatch", contains=agent.agent_id, close=True, count=None)):
        held = agent.create({"method": "POST", "url": target.url("/held")})
        done = agent.create({"method": "POST", "url": target.url("/done")}, group="another")
        gate.wait_reached()
        assert sandbox.wait_final(done.id).status == "SUCCESS"
        agent.kill()
    gate.release()
    wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (2, 0))
    code, report = retire(agent)
    assert (code, report["undeleted"], report["interrupted"]) == (0, 0, 1), report
    assert sandbox.queue_depth(agent.agent_id) == (0, 0)
    with RunningAgent(sandbox, tmp_path / "two", None, agent.agent_id) as other:
        target.on("/new", reply(body="new"))
        assert other.get(target.url("/new")).status == "SUCCESS"
        assert other.stop() == 0
    assert body(sandbox.wait_final(held.id))["code"] == "EINTERRUPTED"
    assert [len(answers(command)) for command in (held, done)] == [1, 1]
    assert sorted(request.target for request in target.requests) == ["/done", "/held", "/new"]


@pytest.mark.parametrize("how", ["closed", "InternalError"])
def test_while_deletes_fail_no_answer_is_sent_and_the_queue_is_not_taken_for_empty(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, how: str
) -> None:
    """Its own receive takes the message for a lease, and finds the queue empty then."""
    target.on("*", reply(body="done"))
    agent = RunningAgent(sandbox, tmp_path / "one", {"RELAY_LEASE_SECONDS": "5", "RELAY_WORKERS": "1"})
    failed = json.dumps({"Successful": [], "Failed": [{"Id": "0", "SenderFault": False, "Code": "InternalError"}]})
    kind: dict[str, Any] = {"close": True} if how == "closed" else {"status": 200, "body": failed}
    with sandbox.inject(Fault("sqs", "DeleteMessageBatch", contains=agent.agent_id, count=None, **kind)):
        with agent:
            command = agent.create({"method": "POST", "url": target.url("/x")})
            assert sandbox.wait_final(command.id).status == "SUCCESS"
            agent.kill()
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (1, 0))
        code, report = retire(agent, "--timeout", "8")
    assert (code, report["undeleted"]) == (1, 1), report
    code, report = retire(agent)
    assert (code, report["undeleted"], sandbox.queue_depth(agent.agent_id)) == (0, 0, (0, 0)), report
    assert (len(target.requests), len(answers(command))) == (1, 1)


def test_commands_that_wait_in_the_queue_keep_no_agent_from_being_retired_and_stay_there(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    """Its message is gone, though that was not recorded, and SQS refuses the receipt by now. Answers that can be sent are sent first."""
    target.on("*", reply(body="done"))
    agent = RunningAgent(sandbox, tmp_path / "one", {"RELAY_LEASE_SECONDS": "5"})
    with agent, sandbox.inject(Fault("sqs", "SendMessageBatch", contains=agent.agent_id, close=True, count=None)):
        ended = [agent.create({"method": "POST", "url": target.url("/ended")}, group=f"g{number}") for number in range(30)]
        for _ in ended:
            agent.wait_log("command", status="SUCCESS")
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        agent.stop()
    agent.environment["RELAY_FAULT_POINT"] = "after-ack"
    with agent:
        unknown = agent.create({"method": "POST", "url": target.url("/x")})
        agent.wait()
    del agent.environment["RELAY_FAULT_POINT"]
    over = datetime.now(UTC) + timedelta(seconds=5.5)
    wait_until(sandbox, lambda: datetime.now(UTC) > over)
    waiting = agent.create({"url": target.url("/waiting")})
    code, report = retire(agent, "--timeout", "3")
    assert (code, report["undeleted"], len([command for command in ended if command.final])) == (1, 1, 30), report
    code, report = retire(agent)
    assert (code, report["unsent"], report["undeleted"]) == (0, 0, 0), report
    assert unknown.final and sandbox.queue_depth(agent.agent_id) == (1, 0)
    with RunningAgent(sandbox, tmp_path / "two", None, agent.agent_id) as other:
        assert sandbox.wait_final(waiting.id).status == "SUCCESS"
        assert other.stop() == 0
    assert [request.target for request in target.requests].count("/waiting") == 1


def test_a_second_run_counts_by_what_the_first_had_decided(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = hold(target, "/post")
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_WORKERS": "1"})
    with agent:
        agent.create({"method": "POST", "url": target.url("/post")})
        gate.wait_reached()
        waiting = agent.create({"url": target.url("/never")})
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        agent.kill()
    gate.release()
    assert retire(agent, "--timeout", "1", **UNREACHABLE)[1]["unsent"] == 2
    code, report = retire(agent)
    assert (code, report["ended"], report["shutdown"], report["interrupted"]) == (0, 0, 1, 1)
    assert body(sandbox.wait_final(waiting.id))["code"] == "ESHUTDOWN"


def test_a_state_directory_that_is_not_there_is_no_success(sandbox: Sandbox, tmp_path: Path) -> None:
    agent = RunningAgent(sandbox, tmp_path)
    missing = tmp_path / "missing"
    code, report = retire(agent, RELAY_STATE_DIR=str(missing))
    assert (code, missing.exists(), "RELAY_STATE_DIR" in report["errors"]) == (2, False, True)


def test_a_disabled_agent_is_named_as_the_cause(sandbox: Sandbox, tmp_path: Path) -> None:
    agent = RunningAgent(sandbox, tmp_path)
    with agent:
        agent.ready()
        agent.kill()
    sandbox.enable_agent(agent.agent_id, False)
    code, report = retire(agent, "--timeout", "1")
    assert (code, report["cause"]["cause"]) == (1, "the agent is disabled")


def test_without_a_configuration_it_says_what_is_missing(tmp_path: Path) -> None:
    done = run_once(["retire"], tmp_path, {"PATH": "/usr/bin"})
    assert (done.returncode, b"API_TARGET" in done.stderr) == (2, True)
