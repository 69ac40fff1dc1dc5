"""How an agent ends and what it resumes: SIGTERM, more signals, `kill -9` ("What survives", "Stopping is not cancelling").

With real processes and real signals.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import EXECUTABLE, RunningAgent, agent_environment, answers, body, finals, running, wait_until
from tests.target_server import Gate
from tests.targets import ByteTarget, reply, seen


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


def hold(target: ByteTarget, path: str) -> Gate:
    """Let requests for a path wait at a gate."""
    gate = target.gate()
    target.on(path, lambda conn, request: (conn.wait(gate), conn.respond(200, [], request.method.encode())))
    return gate


# --- asked to stop ---


def test_an_agent_whose_stdout_nobody_reads_works_on_reports_it_and_can_be_stopped(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    agent_id = sandbox.add_agent()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    environment = agent_environment(sandbox, agent_id, tmp_path, {"RELAY_DRAIN_SECONDS": "5"})
    with subprocess.Popen([EXECUTABLE, "run"], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=writing) as process:
        os.close(writing)
        try:
            asked = [sandbox.create_command(agent_id, {"url": target.url("/")}) for _ in range(60)]  # ten lines fill the pipe
            assert {sandbox.wait_final(command).status for command in asked} == {"SUCCESS"}
            wait_until(sandbox, lambda: any('"stdout-blocked"' in event["message"] for event in sandbox.log_events(agent_id)))
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()
            os.close(reading)


def test_a_request_under_way_is_finished_and_answered(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = hold(target, "/held")
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        command = agent.create({"method": "POST", "url": target.url("/held")})
        gate.wait_reached()
        agent.send_signal()
        agent.wait_log("agent-stopping", running=1)
        assert not command.final
        gate.release()
        assert agent.wait() == 0
        assert finals(command) == ["SUCCESS"]
        assert sandbox.settings(agent.agent_id) == ["STARTED", "STOPPED"]
        assert agent.wait_log("agent-stopped")["untold"] == 0


def test_an_agent_that_may_not_start_ends_though_nobody_reads_why(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4096)
    with subprocess.Popen([EXECUTABLE, "run"], cwd=tmp_path, env={}, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing) as process:
        try:
            assert process.wait(15) == 2
        finally:
            process.kill()
            os.close(reading)
            os.close(writing)


def test_an_agent_whose_stdout_is_closed_works(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent_id = sandbox.add_agent()
    command_line = f'exec "{EXECUTABLE}" run >&-'
    environment = agent_environment(sandbox, agent_id, tmp_path)
    with subprocess.Popen(["/bin/sh", "-c", command_line], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            assert sandbox.wait_final(sandbox.create_command(agent_id, {"url": target.url("/")})).status == "SUCCESS"
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()


def test_what_never_started_is_left_for_the_next_start(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = hold(target, "/first")
    target.on("/second", reply(body="later"))
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_WORKERS": "1", "RELAY_HEARTBEAT_SECONDS": "1"})
    with running(agent):
        first = agent.create({"url": target.url("/first")})
        gate.wait_reached()
        second = agent.create({"method": "POST", "url": target.url("/second")})
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        agent.send_signal()
        agent.wait_log("agent-stopping", running=1, waiting=1)
        beats = len(sandbox.heartbeats(agent.agent_id))
        wait_until(sandbox, lambda: len(sandbox.heartbeats(agent.agent_id)) > beats + 1)  # the workers are told after the line
        gate.release()
        assert agent.wait() == 0
        assert (finals(first), finals(second)) == (["SUCCESS"], [])
        assert agent.wait_log("agent-stopped")["left"] == 1
    with running(agent):
        assert sandbox.wait_final(second.id).status == "SUCCESS"
    assert seen(target) == {"GET /first": 1, "POST /second": 1}


def test_an_idle_agent_does_not_wait_for_the_end_of_its_poll(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """A poll lasts 20 seconds, and this one began after the answer."""
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        agent.get(target.url("/"))
        assert agent.stop(signal.SIGINT, 15) == 0


def test_the_drain_has_an_end_at_which_a_post_is_answered_and_a_get_is_left_to_the_next_start(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    gates = [hold(target, "/get"), hold(target, "/post")]
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1"})
    with running(agent):
        get, post = agent.create({"url": target.url("/get")}), agent.create({"method": "POST", "url": target.url("/post")})
        for gate in gates:
            gate.wait_reached()
        assert agent.stop(timeout=10) == 0
        assert not get.final
        assert body(sandbox.wait_final(post.id, 20))["code"] == "EINTERRUPTED"
    for gate in gates:
        gate.release()
    with running(agent):
        assert sandbox.wait_final(get.id).status == "SUCCESS"
        assert agent.stop() == 0
    assert finals(post) == ["FAILURE"]
    assert seen(target) == {"GET /get": 2, "POST /post": 1}


def test_a_second_signal_skips_the_waits(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = hold(target, "/held")
    with running(RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "60"})) as agent:
        agent.create({"url": target.url("/held")})
        gate.wait_reached()
        agent.send_signal()
        agent.wait_log("agent-stopping")
        assert agent.stop() == 0


def test_a_third_signal_ends_it_at_once(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """The third follows the second at once, and is another one: two that are the same may arrive as one, and either may be first."""
    gate = hold(target, "/held")
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        agent.create({"url": target.url("/held")})
        gate.wait_reached()
        agent.send_signal()
        agent.wait_log("agent-stopping")
        agent.send_signal(signal.SIGINT)
        assert agent.stop() in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_a_signal_while_it_enrols_stops_it(sandbox: Sandbox, tmp_path: Path) -> None:
    agent_id = sandbox.add_agent()
    with (
        sandbox.inject(Fault("rest", "agent/config", contains=agent_id, hang_seconds=FOREVER)) as hanging,
        RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "2"}, agent_id) as agent,
    ):
        wait_until(sandbox, lambda: hanging.hits == 1)
        assert agent.stop() == 0


def test_a_signal_before_it_has_begun_is_a_clean_stop_too(sandbox: Sandbox, tmp_path: Path) -> None:
    """From the moment that it has handlers: before, Python itself is starting, and there is nothing to stop."""
    with RunningAgent(sandbox, tmp_path, whole=True) as agent:
        status = Path(f"/proc/{agent.pid}/status")
        wait_until(sandbox, lambda: bool(int(status.read_text().partition("SigCgt:")[2].split()[0], 16) & 1 << (signal.SIGTERM - 1)))
        assert agent.stop() == 0
    assert agent.errors == ""


# --- killed ---


def test_after_kill_9_a_get_runs_again_a_post_is_einterrupted_and_what_waited_runs(
    forgetful: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    sandbox = forgetful
    # One host gets all workers but a quarter: the fourth command waits.
    gates = [hold(target, "/get"), hold(target, "/post"), hold(target, "/put")]
    target.on("/waiting", reply(body="waited"))
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_WORKERS": "4"})
    with running(agent):
        get = agent.create({"url": target.url("/get")})
        post = agent.create({"method": "POST", "url": target.url("/post"), "body": "x"})
        put = agent.create({"method": "PUT", "url": target.url("/put"), "body": "x"})
        for gate in gates:
            gate.wait_reached()
        waiting = agent.create({"method": "POST", "url": target.url("/waiting")})
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        agent.kill()
    for gate in gates:
        gate.release()
    with running(agent):
        agent.wait_log("recovered")
        for command in (get, post, put, waiting):
            sandbox.wait_final(command.id)
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.stop() == 0
    assert (get.status, body(get)["body"]) == ("SUCCESS", "GET")
    assert (put.status, body(put)["body"]) == ("SUCCESS", "PUT")
    assert (post.status, body(post)["code"]) == ("FAILURE", "EINTERRUPTED")
    assert "statusCode" not in body(post)
    assert (waiting.status, body(waiting)["body"]) == ("SUCCESS", "waited")
    assert [len(finals(command)) for command in (get, post, put, waiting)] == [1, 1, 1, 1]
    assert seen(target) == {"GET /get": 2, "PUT /put": 2, "POST /post": 1, "POST /waiting": 1, "GET /": 1}


def test_an_answer_that_was_not_sent_before_kill_9_is_sent_after_it_the_same(
    forgetful: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    sandbox = forgetful
    target.on("/post", reply(body="done"))
    agent = RunningAgent(sandbox, tmp_path)
    with (
        running(agent),
        sandbox.inject(Fault("sqs", "SendMessageBatch", contains=agent.agent_id, hang_seconds=FOREVER, count=None)) as hanging,
    ):
        command = agent.create({"method": "POST", "url": target.url("/post")})
        agent.wait_log("command", status="SUCCESS")
        wait_until(sandbox, lambda: hanging.hits >= 1)
        agent.kill()
    with running(agent):
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        assert agent.stop() == 0
    assert len(answers(command)) == 1
    assert seen(target) == {"POST /post": 1}


def test_a_large_answer_that_was_not_uploaded_before_kill_9_is_uploaded_after_it(
    forgetful: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    sandbox = forgetful
    target.on("/large", reply(200, [("Content-Type", "text/plain")], "a" * 400_000))
    agent = RunningAgent(sandbox, tmp_path)
    with running(agent), sandbox.inject(Fault("s3", "PutObject", hang_seconds=FOREVER, count=None)) as hanging:
        command = agent.create({"method": "POST", "url": target.url("/large")})
        wait_until(sandbox, lambda: hanging.hits >= 1)
        agent.kill()
    with running(agent):
        assert body(sandbox.wait_final(command.id))["body"] == "a" * 400_000
        assert agent.stop() == 0
    assert seen(target) == {"POST /large": 1}
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_what_was_not_acknowledged_before_kill_9_is_not_run_again(forgetful: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    sandbox = forgetful
    target.on("/post", reply(body="done"))
    agent = RunningAgent(sandbox, tmp_path)
    with (
        running(agent),
        sandbox.inject(Fault("sqs", "DeleteMessageBatch", contains=agent.agent_id, hang_seconds=FOREVER, count=None)) as hanging,
    ):
        command = agent.create({"method": "POST", "url": target.url("/post")})
        wait_until(sandbox, lambda: hanging.hits >= 1)
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        agent.kill()
    with running(agent):
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.stop() == 0
    # Sent again if the power failed before the journal recorded the delivery.
    assert len(answers(command)) == 1
    assert seen(target) == {"POST /post": 1, "GET /": 1}
    assert sandbox.queue_depth(agent.agent_id) == (0, 0)


def test_kill_9_in_the_middle_of_many_commands_loses_and_repeats_none(forgetful: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    sandbox = forgetful
    target.on("*", lambda conn, request: conn.respond(200, [], request.target.encode()))
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_WORKERS": "4"})
    with running(agent):
        commands = [agent.create({"method": "POST", "url": target.url(f"/{number}")}) for number in range(60)]
        target.wait_requests(10)
        agent.kill()
    with running(agent):
        wait_until(sandbox, lambda: all(command.final for command in commands))
        assert agent.stop() == 0
    assert max(Counter(request.target for request in target.requests).values()) == 1
    outcomes = Counter(body(command).get("code", body(command).get("statusCode")) for command in commands)
    assert set(outcomes) <= {200, "EINTERRUPTED"}
    assert outcomes["EINTERRUPTED"] <= 4
    reported = [answers(command) for command in commands]
    assert {len(texts) for texts in reported} == {1}


def test_what_was_not_acknowledged_waits_while_the_queue_is_disabled(forgetful: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """Messages taken over and not acknowledged are no reason to end an agent whose queue is disabled meanwhile."""
    sandbox = forgetful
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_CONFIG_REFRESH_SECONDS": "1", "RELAY_HEARTBEAT_SECONDS": "1"})
    with (
        running(agent),
        sandbox.inject(Fault("sqs", "DeleteMessageBatch", contains=agent.agent_id, hang_seconds=FOREVER, count=None)) as hanging,
    ):
        agent.create({"url": target.url("/")})
        wait_until(sandbox, lambda: hanging.hits >= 1)
        agent.kill()
    sandbox.enable_queue(agent.agent_id, False)
    with running(agent):
        agent.wait_log("queue-disabled")
        beats = len(sandbox.heartbeats(agent.agent_id))
        wait_until(sandbox, lambda: len(sandbox.heartbeats(agent.agent_id)) > beats)  # it runs on, and has seen the disabled queue
        sandbox.enable_queue(agent.agent_id, True)
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.stop() == 0
