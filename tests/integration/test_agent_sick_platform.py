"""An agent with a failing platform, at the start and in service (docs/operations.md, "Exit codes"; docs/design.md, "Starting")."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay_agent.sandbox.faults import Fault, FaultHandle
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, ThreadedAgent, agent_environment, answers, finals, page, rest_calls, run_once, running, wait_until
from tests.targets import ByteTarget, closed_port, reply

QUICK: dict[str, str | None] = {"RELAY_CONFIG_REFRESH_SECONDS": "1", "RELAY_HEARTBEAT_SECONDS": "1"}
CONFIG = "POST /v1/data-acquisition/agent/config"


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


REFUSALS = {401: "ORG_SLUG and JWT do not match", 403: "ORG_SLUG and JWT do not match", 404: "AGENT_ID"}


@pytest.fixture(scope="module", autouse=True)
def refused(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, RunningAgent]]:
    """Three agents that are refused, side by side, and beside the other tests: they take their time."""
    with Sandbox() as stranger:
        foreign = stranger.jwt
    wrong: dict[int, dict[str, str | None]] = {401: {"JWT": foreign}, 403: {"JWT": sandbox.issue_jwt(600, "another-org")}, 404: {}}
    agents = {
        status: RunningAgent(sandbox, tmp_path_factory.mktemp(str(status)), environment, str(uuid.uuid4()) if status == 404 else None)
        for status, environment in wrong.items()
    }
    for agent in agents.values():
        agent.start()
    yield agents
    for agent in agents.values():
        agent.__exit__()


@pytest.fixture(scope="module", autouse=True)
def never_well(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ThreadedAgent, FaultHandle]]:
    """An agent whose platform answers 503, beside the other tests."""
    agent_id = sandbox.add_agent()
    with (
        sandbox.inject(Fault("rest", CONFIG, contains=agent_id, status=503, count=None)) as handle,
        ThreadedAgent(sandbox, tmp_path_factory.mktemp("never"), {"RELAY_WORKERS": "2"}, agent_id) as agent,
    ):
        yield agent, handle


@pytest.fixture(scope="module", autouse=True)
def healed(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedAgent]:
    """An agent that was refused, and whose token was put right then."""
    directory = tmp_path_factory.mktemp("healed")
    file = directory / "jwt"
    file.write_text(sandbox.issue_jwt(600, "another-org"))
    with ThreadedAgent(sandbox, directory, {"JWT": None, "JWT_FILE": str(file)}) as agent:
        agent.wait_log("platform-failed")
        file.write_text(sandbox.jwt)
        yield agent


# --- before anything is sent ---


def start_failed(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """Everything that `run` wrote: one line of the log."""
    (line,) = done.stdout.splitlines()
    failed: dict[str, Any] = json.loads(line)
    assert (failed["event"], failed["level"], done.stderr) == ("start-failed", "error", b"")
    return failed


def test_an_invalid_configuration_exits_2_at_once_and_names_every_variable(sandbox: Sandbox, tmp_path: Path) -> None:
    wrong = {"API_TARGET": "ftp://x", "ORG_SLUG": "<your-org>", "AGENT_ID": None, "JWT": "s3cret-not-a-token", "RELAY_WORKERS": "many"}
    environment = agent_environment(sandbox, "", tmp_path, wrong)
    done = run_once(["run"], tmp_path, environment)
    failed = start_failed(done)
    assert done.returncode == failed["code"] == 2
    assert [problem.split(":")[0] for problem in failed["problems"]] == list(wrong)
    assert "s3cret" not in done.stdout.decode()


def test_a_token_that_has_expired_exits_1_and_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    agent_id = sandbox.add_agent()
    environment = agent_environment(sandbox, agent_id, tmp_path, {"JWT": sandbox.issue_jwt(-60)})
    done = run_once(["run"], tmp_path, environment)
    assert done.returncode == 1
    assert "expired" in start_failed(done)["cause"]
    assert rest_calls(sandbox, agent_id) == []


def test_a_second_agent_on_the_same_state_directory_exits_2(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        done = run_once(["run"], tmp_path, agent_environment(sandbox, agent.agent_id, tmp_path))
    assert done.returncode == 2
    assert "another agent or `relay-agent retire` uses" in start_failed(done)["cause"]
    assert "RELAY_STATE_DIR" in start_failed(done)["cure"]


# --- failing at the start ---

UNWELL = {
    "503": Fault("rest", CONFIG, status=503, body="busy", count=2),
    "429": Fault("rest", CONFIG, status=429, headers={"Retry-After": "1"}, body="{}"),
    "html": Fault("rest", CONFIG, status=200, headers={"content-type": "text/html"}, body="<html>Log in</html>"),
    "no answer": Fault("rest", CONFIG, close=True),
    "no credentials": Fault("rest", "POST /v1/data-acquisition/agent/credentials", status=500),
    "status fails": Fault("rest", "PUT /v1/data-acquisition/agent/status", status=502),
    "wrong types": Fault("rest", CONFIG, status=200, body='{"region": 7, "rpcSourceQueueUrl": []}'),
}


@pytest.fixture(scope="module")
def unwell(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ThreadedAgent]]:
    """One agent for each of these, side by side."""
    with contextlib.ExitStack() as stack:
        agents: dict[str, ThreadedAgent] = {}
        for name, fault in UNWELL.items():
            agent_id = sandbox.add_agent()
            stack.enter_context(sandbox.inject(replace(fault, contains=agent_id)))
            directory = tmp_path_factory.mktemp("unwell")
            agents[name] = stack.enter_context(ThreadedAgent(sandbox, directory, {"RELAY_WORKERS": "2"}, agent_id))
        yield agents
        for agent in agents.values():
            agent.send_signal()


@pytest.mark.parametrize("name", UNWELL)
def test_a_failing_platform_is_retried_until_it_works(unwell: dict[str, ThreadedAgent], target: ByteTarget, name: str) -> None:
    agent = unwell[name]
    failed = agent.wait_log("platform-failed")
    assert failed["cause"]
    assert failed["cure"]
    agent.wait_log("agent-ready")
    agent.wait_log("platform-recovered")
    assert agent.get(target.url("/")).status == "SUCCESS"


def test_retry_after_is_respected(unwell: dict[str, ThreadedAgent]) -> None:
    agent = unwell["429"]
    agent.wait_log("agent-ready")
    first, second = [call for call in rest_calls(agent.sandbox, agent.agent_id) if call.path.endswith("config")][:2]
    assert (second.at - first.at).total_seconds() >= 0.95


def test_a_port_that_refuses_is_tried_again_until_somebody_listens(tmp_path: Path, target: ByteTarget) -> None:
    rest, aws = closed_port(), closed_port()
    late = Sandbox(ports=(rest, aws))
    addresses: dict[str, str | None] = {"API_TARGET": f"http://127.0.0.1:{rest}", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws}"}
    with ThreadedAgent(late, tmp_path, addresses, agent_id=late.agent_id) as agent:
        failed = agent.wait_log("platform-failed")
        assert "ECONNREFUSED" in failed["reason"]
        assert "API_TARGET" in failed["cure"]
        with late:
            agent.wait_log("agent-ready")
            assert agent.get(target.url("/")).status == "SUCCESS"
            assert agent.stop() == 0


# --- disabled ---


def test_a_disabled_agent_stays_up_beats_and_polls_when_enabled(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent_id = sandbox.add_agent()
    sandbox.enable_agent(agent_id, False)
    with ThreadedAgent(sandbox, tmp_path, QUICK, agent_id) as agent:
        assert "enable the agent's connection" in agent.wait_log("agent-disabled")["cure"]
        command = agent.create({"url": target.url("/")})
        wait_until(sandbox, lambda: len(sandbox.heartbeats(agent_id)) >= 2)
        assert command.status == "PENDING"
        sandbox.enable_agent(agent_id, True)
        agent.wait_log("agent-ready")
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        assert sandbox.settings(agent_id) == ["STARTED"]
        assert len(agent.events("agent-disabled")) == 1


def test_an_agent_disabled_in_service_keeps_its_heartbeat_and_resumes_when_enabled(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, QUICK)) as agent:
        sandbox.enable_agent(agent.agent_id, False)
        assert "enable the agent's connection" in agent.wait_log("agent-disabled")["cure"]
        beats = len(sandbox.heartbeats(agent.agent_id))
        wait_until(sandbox, lambda: len(sandbox.heartbeats(agent.agent_id)) > beats)
        sandbox.enable_agent(agent.agent_id, True)
        agent.wait_log("agent-enabled")
        assert agent.get(target.url("/")).status == "SUCCESS"


def test_check_status_and_page_agree_on_a_disabled_agent_within_a_heartbeat(sandbox: Sandbox, tmp_path: Path) -> None:
    """Although the configuration is read every five minutes only."""
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_HEARTBEAT_SECONDS": "1", "RELAY_CONFIG_REFRESH_SECONDS": "300"})) as agent:

        def state() -> str:
            return str(json.loads(page(agent, "/status.json")[1])["state"])

        def checked(name: str) -> str:
            done = run_once(["check", "--json"], tmp_path, agent.environment)
            return next(str(check["status"]) for check in json.loads(done.stdout)["checks"] if check["id"] == name)

        sandbox.enable_agent(agent.agent_id, False)
        agent.wait_log("agent-disabled", timeout=10)
        assert (state(), checked("enabled"), "Disabled" in page(agent, "/")[1]) == ("disabled", "error", True)
        sandbox.enable_agent(agent.agent_id, True)
        agent.wait_log("agent-enabled", timeout=10)
        assert checked("enabled") == "ok"
        sandbox.enable_queue(agent.agent_id, False)
        agent.wait_log("queue-disabled", timeout=10)
        assert (state(), checked("queue")) == ("not ready", "error")
        assert json.loads(page(agent, "/status.json")[1])["queue"]["enabled"] is False


def test_a_disabled_queue_is_waited_for_at_the_start_and_in_service(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent_id = sandbox.add_agent()
    sandbox.enable_queue(agent_id, False)
    with ThreadedAgent(sandbox, tmp_path, QUICK, agent_id) as agent:
        assert "enable the agent's queue" in agent.wait_log("queue-disabled")["cure"]
        assert agent.wait_log("agent-ready")["queue"] == "disabled"
        wait_until(sandbox, lambda: len(sandbox.heartbeats(agent_id)) >= 2)
        sandbox.enable_queue(agent_id, True)
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert len(agent.events("queue-disabled")) == 1
        sandbox.enable_queue(agent_id, False)
        agent.wait_log("config-changed", queue="disabled")
        assert len(agent.events("queue-disabled")) == 2
        sandbox.enable_queue(agent_id, True)
        assert agent.get(target.url("/")).status == "SUCCESS"


# --- in service ---


@pytest.fixture(scope="module")
def served(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedAgent]:
    """One agent that lives through all that happens in service."""
    with running(ThreadedAgent(sandbox, tmp_path_factory.mktemp("served"), QUICK)) as agent:
        yield agent
        assert agent.stop() == 0


def test_a_refusal_in_service_is_logged_and_lived_through(sandbox: Sandbox, served: ThreadedAgent, target: ByteTarget) -> None:
    with sandbox.inject(Fault("rest", contains=served.agent_id, status=401, count=None, body='{"message": "no"}')) as handle:
        assert "ORG_SLUG and JWT do not match" in served.wait_log("platform-failed")["cause"]
        wait_until(sandbox, lambda: handle.hits >= 3)
        assert served.get(target.url("/")).status == "SUCCESS"
    served.wait_log("platform-recovered")


@pytest.mark.parametrize("code, status", [("AccessDenied", 403), ("InternalError", 500)])
def test_a_queue_that_cannot_be_read_is_tried_again(
    sandbox: Sandbox, served: ThreadedAgent, target: ByteTarget, code: str, status: int
) -> None:
    recovered = len(served.events("poll-recovered"))
    with sandbox.inject(Fault("sqs", "ReceiveMessage", contains=served.agent_id, status=status, code=code)) as handle:
        # The first message ends the open poll; the next poll meets the fault.
        served.get(target.url("/"))
        wait_until(sandbox, lambda: handle.hits == 1)
        assert served.get(target.url("/")).status == "SUCCESS"
    wait_until(sandbox, lambda: len(served.events("poll-recovered")) > recovered)
    assert sum(code in line["reason"] for line in served.events("poll-failed")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"code": "AccessDenied", "status": 403},
        {"status": 500, "body": "<html>gateway</html>"},
        {"status": 200, "body": "<html>log in</html>"},
        {"status": 200, "body": "{}"},
        {"close": True},
        {"hang_seconds": 0.5},
    ],
)
def test_an_answer_that_cannot_be_sent_is_sent_later_the_same(
    sandbox: Sandbox, served: ThreadedAgent, target: ByteTarget, fault: dict[str, Any]
) -> None:
    before = len(served.events("send-failed"))
    with sandbox.inject(Fault("sqs", "SendMessageBatch", contains=served.agent_id, **fault)) as handle:
        command = served.get(target.url("/"))
    assert handle.hits == 1
    assert (command.status, len(answers(command))) == ("SUCCESS", 1)
    failed = len(served.events("send-failed")) - before
    # Like a kept connection that was closed earlier: the call is repeated, and nothing is logged.
    assert failed <= 1 if "close" in fault else failed == (0 if "hang_seconds" in fault else 1)


def test_a_web_page_in_the_queue_s_place_is_no_empty_queue(sandbox: Sandbox, served: ThreadedAgent, target: ByteTarget) -> None:
    with sandbox.inject(Fault("sqs", "ReceiveMessage", contains=served.agent_id, status=200, body="<html>log in</html>")) as handle:
        served.get(target.url("/"))
        wait_until(sandbox, lambda: handle.hits == 1)
        assert "not from Amazon SQS" in served.wait_log("poll-failed", reason="sqs receive: the answer (200) is not a JSON object")["cause"]
        assert served.get(target.url("/")).status == "SUCCESS"


def test_acknowledgements_that_fail_cause_no_second_run(tmp_path: Path, target: ByteTarget) -> None:
    target.on("/acknowledge", reply(body="once"))
    with Sandbox(visibility_timeout=1) as other, running(ThreadedAgent(other, tmp_path)) as agent:
        with other.inject(Fault("sqs", "DeleteMessageBatch", status=500, code="InternalError", count=1)) as handle:
            command = agent.get(target.url("/acknowledge"))
            assert handle.hits == 1
            later = agent.get(target.url("/"))
        assert (command.status, later.status) == ("SUCCESS", "SUCCESS")
        assert len(finals(command)) == 1
    assert sum(request.target == "/acknowledge" for request in target.requests) == 1


def test_an_acknowledgement_that_failed_is_made_again_and_holds_up_nothing(
    sandbox: Sandbox, served: ThreadedAgent, target: ByteTarget
) -> None:
    """The sandbox hides what it handed out, and its whole group, for ten minutes."""
    target.on("/held-up", reply(body="once"))
    with sandbox.inject(Fault("sqs", "DeleteMessageBatch", contains=served.agent_id, status=503, count=2)) as handle:
        commands = [served.create({"url": target.url("/held-up")}) for _ in range(12)]
        assert {sandbox.wait_final(command.id, 30).status for command in commands} == {"SUCCESS"}
        assert handle.hits == 2
    served.wait_log("ack-recovered")
    wait_until(sandbox, lambda: sandbox.queue_depth(served.agent_id) == (0, 0))
    assert sum(request.target == "/held-up" for request in target.requests) == 12


# --- refused or failing at the start: checked last ---


def test_a_token_put_right_in_its_file_heals_a_refusal(healed: ThreadedAgent, target: ByteTarget) -> None:
    healed.wait_log("agent-ready")
    assert healed.get(target.url("/")).status == "SUCCESS"


def test_a_platform_that_is_never_well_costs_three_lines_at_first(never_well: tuple[ThreadedAgent, FaultHandle]) -> None:
    agent, handle = never_well
    wait_until(agent.sandbox, lambda: handle.hits >= 4)
    assert json.loads(page(agent, "/status.json")[1])["sentence"].startswith("Offline: ")
    assert "Offline" in page(agent, "/")[1]
    assert len(agent.events("platform-failed")) == 3
    assert agent.stop() == 0
    assert agent.sandbox.settings(agent.agent_id) == []


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_at_the_start_gets_three_tries_within_15_s_and_exits_3(refused: dict[int, RunningAgent], status: int) -> None:
    agent = refused[status]
    assert agent.wait() == 3
    tries = [call for call in rest_calls(agent.sandbox, agent.agent_id) if call.path.endswith("config")]
    assert [call.status for call in tries] == [status] * 3
    assert (tries[-1].at - tries[0].at).total_seconds() < 15
    assert agent.calls() == [("POST", "config")] * 3


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_explained_in_the_guides_words(refused: dict[int, RunningAgent], status: int) -> None:
    agent = refused[status]
    agent.wait()
    assert REFUSALS[status] in agent.wait_log("agent-giving-up")["reason"]
    assert agent.wait_log("agent-giving-up")["code"] == 3
    assert REFUSALS[status] in agent.wait_log("platform-failed")["cause"]
