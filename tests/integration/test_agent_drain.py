"""What a stop does with running and waiting commands (docs/design.md, "Stopping is not cancelling").

With real processes: what the drain finishes, what it leaves, what it sends, and the effect of a kill during it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from relay_agent.transport import resolver
from tests.agents import RunningAgent, ThreadedAgent, answers, body, finals, running, wait_until
from tests.target_server import Gate
from tests.targets import ByteTarget, FullBacklog, redirect, reply, seen

UNDER_WAY = 6
WAITING = 38
TENFOLD = 10.0
"""How long a drain of a second may take on a machine that does more than this."""
# One host gets all workers but a quarter: six run, the others wait.
EIGHT_WORKERS: dict[str, str | None] = {"RELAY_WORKERS": "8", "RELAY_HEARTBEAT_SECONDS": "1"}


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        yield running_target


def held(target: ByteTarget, path: str) -> Gate:
    """Let requests for a path be read, and answered when the gate opens."""
    gate = target.gate()
    target.on(path, lambda conn, request: (conn.wait(gate, 30), conn.respond(200, [], request.method.encode())))
    return gate


def fill(agent: RunningAgent, target: ByteTarget) -> list[Command]:
    """Give the agent four POSTs that the target has read, and forty more that it owns; the first four come first."""
    commands = [agent.create({"method": "POST", "url": target.url(f"/{number}")}) for number in range(UNDER_WAY + WAITING)]
    target.wait_requests(UNDER_WAY)
    wait_until(agent.sandbox, lambda: agent.sandbox.queue_depth(agent.agent_id) == (0, 0))
    return commands


def shipped(sandbox: Sandbox, agent_id: str) -> list[dict[str, object]]:
    """The agent's log lines in its log group."""
    return [json.loads(event["message"]) for event in sandbox.log_events(agent_id)]


# --- a drain with enough time ---


def test_a_drain_answers_what_runs_and_leaves_what_waits_to_the_next_start(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """Four requests of a second under way, forty queued: the four are answered, the forty run after the next start, each once."""
    gate = target.gate()
    target.on("*", lambda conn, _: (conn.wait(gate, 30), conn.stopping.wait(1), conn.respond(200)))
    agent = RunningAgent(sandbox, tmp_path, EIGHT_WORKERS)
    with running(agent):
        commands = fill(agent, target)
        gate.release()  # only once all forty wait, however slow this machine is
        assert agent.stop() == 0
        assert agent.wait_log("agent-stopped")["left"] == WAITING
        wait_until(sandbox, lambda: all(command.final for command in commands[:UNDER_WAY]), 2)
        assert [finals(command) for command in commands] == [["SUCCESS"]] * UNDER_WAY + [[]] * WAITING
        assert sandbox.settings(agent.agent_id) == ["STARTED", "STOPPED"]
    target.on("*", reply(200))
    with running(agent):
        assert agent.wait_log("recovered")["commands"] == WAITING
        wait_until(sandbox, lambda: all(command.final for command in commands))
        assert agent.stop() == 0
    assert [finals(command) for command in commands] == [["SUCCESS"]] * (UNDER_WAY + WAITING)
    assert seen(target) == {f"POST /{number}": 1 for number in range(UNDER_WAY + WAITING)}


def test_heartbeats_go_on_while_it_drains_and_its_last_lines_reach_the_log_group(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    gate = held(target, "/held")
    with running(RunningAgent(sandbox, tmp_path, EIGHT_WORKERS)) as agent:
        command = agent.create({"method": "POST", "url": target.url("/held")})
        gate.wait_reached()
        agent.send_signal()
        agent.wait_log("agent-stopping", running=1)
        beats = len(sandbox.heartbeats(agent.agent_id))
        wait_until(sandbox, lambda: len(sandbox.heartbeats(agent.agent_id)) >= beats + 2)
        assert not command.final
        assert sandbox.settings(agent.agent_id) == ["STARTED"]
        gate.release()
        assert agent.wait() == 0
        assert sandbox.settings(agent.agent_id) == ["STARTED", "STOPPED"]
        lines = shipped(sandbox, agent.agent_id)
    events = ("agent-stopping", "command", "agent-stopped")
    assert [line["event"] for line in lines if line["event"] in events] == list(events)
    assert [line["id"] for line in lines if line["event"] == "command"] == [command.id]


# --- a request that outlasts the drain ---


def test_what_outlasts_the_drain_is_answered_before_the_exit_or_left_to_the_next_start_by_its_method(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    requests = {
        "/get": {"method": "GET"},
        "/put": {"method": "PUT", "body": "x"},
        "/keyed": {"method": "POST", "body": "x", "headers": [{"Idempotency-Key": "7"}]},
        "/post": {"method": "POST", "body": "x"},
        "/patch": {"method": "PATCH", "body": "x"},
    }
    once = ("/post", "/patch")
    gates = [held(target, path) for path in requests]
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_WORKERS": "10", "RELAY_DRAIN_SECONDS": "1"})
    with running(agent):
        commands = {path: agent.create({"url": target.url(path), **request}) for path, request in requests.items()}
        for gate in gates:
            gate.wait_reached()
        assert agent.stop(timeout=TENFOLD) == 0
        assert agent.wait_log("agent-stopped")["untold"] == 0
        for path in once:
            answer = body(sandbox.wait_final(commands[path].id, 20))
            assert (answer["code"], "statusCode" in answer) == ("EINTERRUPTED", False)
        assert [path for path, command in commands.items() if command.final] == list(once)
    for gate in gates:
        gate.release()
    with running(agent):
        assert agent.wait_log("recovered")["commands"] == 3
        for command in commands.values():
            sandbox.wait_final(command.id)
        assert agent.stop() == 0
    assert {path: finals(command) for path, command in commands.items()} == {
        path: ["FAILURE"] if path in once else ["SUCCESS"] for path in requests
    }
    assert Counter(request.target for request in target.requests) == {path: 1 if path in once else 2 for path in requests}


def test_a_post_redirected_to_a_silent_host_is_answered_before_the_exit_too(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with FullBacklog() as nobody, running(RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1"})) as agent:
        target.on("/", redirect(307, nobody.url("/")))
        command = agent.create({"method": "POST", "url": target.url("/"), "body": "x"})
        target.wait_requests(1)
        assert agent.stop() == 0
        assert body(sandbox.wait_final(command.id, 20))["code"] == "EINTERRUPTED"
    assert finals(command) == ["FAILURE"]


# --- a drain that is interrupted ---


def test_a_drain_that_is_cut_off_by_sigkill_loses_nothing(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """As by `docker stop`, whose patience ends before the drain does: one is answered by then, three run, forty wait."""
    gates = [held(target, f"/{number}") for number in range(UNDER_WAY)]
    target.on("*", reply(200))
    agent = RunningAgent(sandbox, tmp_path, {**EIGHT_WORKERS, "RELAY_DRAIN_SECONDS": "60"})
    with running(agent):
        commands = fill(agent, target)
        agent.send_signal()
        agent.wait_log("agent-stopping", running=UNDER_WAY, waiting=WAITING)
        gates[0].release()
        sandbox.wait_final(commands[0].id)
        agent.kill()
    for gate in gates:
        gate.release()
    with running(agent):
        wait_until(sandbox, lambda: all(command.final for command in commands))
        assert agent.stop() == 0
    assert [body(command).get("code", body(command).get("statusCode")) for command in commands] == [
        200,
        *["EINTERRUPTED"] * (UNDER_WAY - 1),
        *[200] * WAITING,
    ]
    # Sent at most twice, unchanged.
    assert {len(answers(command)) for command in commands} == {1}
    assert seen(target) == {f"POST /{number}": 1 for number in range(UNDER_WAY + WAITING)}


def test_answers_that_an_interrupted_drain_did_not_send_are_sent_after_the_next_start(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    gate = held(target, "/held")
    environment = {"RELAY_DRAIN_SECONDS": "60", "RELAY_FAULT_POINT": "before-answer"}
    agent = RunningAgent(sandbox, tmp_path, environment)
    with agent:
        agent.ready()
        command = agent.create({"method": "POST", "url": target.url("/held")})
        gate.wait_reached()
        agent.send_signal()
        agent.wait_log("agent-stopping", running=1)
        gate.release()
        assert agent.wait() == -9
        assert not command.final
        agent.start({"RELAY_FAULT_POINT": None}).ready()
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        assert agent.stop() == 0
    assert finals(command) == ["SUCCESS"]
    assert seen(target) == {"POST /held": 1}


# --- a platform that hangs ---


def test_a_platform_that_hangs_in_every_call_delays_no_exit_and_no_answer_is_lost(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    target.on("/", reply(body="here"))
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1", "RELAY_HEARTBEAT_SECONDS": "1"})
    with running(agent):
        with ExitStack() as hanging:
            for service, operation in (("sqs", "SendMessageBatch"), ("rest", ""), ("logs", ""), ("sqs", "")):
                hanging.enter_context(sandbox.inject(Fault(service, operation, hang_seconds=FOREVER, count=None)))
                if operation:
                    command = agent.create({"method": "POST", "url": target.url("/")})
                    agent.wait_log("command", status="SUCCESS")
            assert agent.stop(timeout=TENFOLD) == 0
        assert not command.final
        agent.start()
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        assert agent.stop() == 0
    assert seen(target) == {"POST /": 1}


def test_a_drain_of_a_second_is_hardly_longer_if_everything_hangs(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = target.gate()
    target.on("/", reply(body="here"))
    target.on("/held", lambda conn, _: (conn.wait(gate), conn.respond(200)))
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1"})) as agent:
        agent.get(target.url("/"))
        agent.create({"method": "POST", "url": target.url("/held")})
        gate.wait_reached()
        with ExitStack() as hanging:
            for service in ("rest", "logs", "sqs"):
                hanging.enter_context(sandbox.inject(Fault(service, "", hang_seconds=FOREVER, count=None)))
            hanging.enter_context(agent.agent.flow.journal.writer.using)
            agent.agent.flow.journal.acked(["nothing"])
            assert agent.stop(timeout=TENFOLD) == 0
        gate.release()


def test_without_a_drain_the_agent_ends_at_once_although_answers_cannot_be_sent(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    target.on("/", reply(body="here"))
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "0"})
    with running(agent):
        with sandbox.inject(Fault("sqs", "SendMessageBatch", contains=agent.agent_id, status=503, count=None)):
            command = agent.create({"method": "POST", "url": target.url("/")})
            agent.wait_log("send-failed")
            assert agent.stop() == 0
        assert not command.final
        agent.start()
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        assert agent.stop() == 0


def test_credentials_that_nobody_renews_hold_up_no_exit(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """A thread that needs new credentials waits for the one that fetches them, which hangs; the last log lines need some too."""
    target.on("/", reply(body="here"))
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1"})
    with running(agent), sandbox.inject(Fault("rest", "agent/credentials", hang_seconds=FOREVER, count=None)) as hanging:
        agent.get(target.url("/"))
        sandbox.expire_credentials()
        wait_until(sandbox, lambda: hanging.hits >= 1)
        assert agent.stop(timeout=TENFOLD) == 0


def test_a_second_signal_skips_the_wait_for_a_platform_that_hangs(sandbox: Sandbox, tmp_path: Path) -> None:
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "60"})
    stopped = Fault("rest", "PUT /v1/data-acquisition/agent/status", hang_seconds=FOREVER, count=None)
    with running(agent), sandbox.inject(stopped) as hanging:
        agent.send_signal()
        wait_until(sandbox, lambda: hanging.hits >= 1)
        assert agent.stop() == 0


def test_a_journal_that_hangs_holds_up_no_exit(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """A change that is noted but not written yet is written by the next thread that uses the journal."""
    target.on("/", reply(body="here"))
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1"})) as agent:
        agent.get(target.url("/"))
        with agent.agent.flow.journal.writer.using:
            agent.agent.flow.journal.acked(["nothing"])
            assert agent.stop(timeout=TENFOLD) == 0


def test_a_name_that_is_not_resolved_holds_up_no_exit(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1"})) as agent:
        release = threading.Event()
        # Here the sandbox is called by a name that no DNS server answers for.
        monkeypatch.setattr(resolver, "literal_address", lambda _host: None)
        monkeypatch.setattr(resolver, "ask_system", lambda *_: [] * release.wait(30))
        agent.agent.network.connection_pool.close()
        try:
            assert agent.stop(timeout=TENFOLD) == 0
        finally:
            release.set()
