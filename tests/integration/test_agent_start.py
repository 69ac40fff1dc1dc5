"""How an agent starts, shows that it is alive, and stops, as the platform sees it (PROTOCOL §1; docs/design.md, "Starting").

The REST side of one healthy agent.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from relay_agent import __version__
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, ThreadedAgent, rest_calls, running, wait_until

START = [("POST", "config"), ("POST", "credentials"), ("PUT", "status"), ("POST", "status")]


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One real agent for the module, with short intervals."""
    environment: dict[str, str | None] = {"RELAY_HEARTBEAT_SECONDS": "1", "RELAY_CONFIG_REFRESH_SECONDS": "1", "RELAY_METRICS_SECONDS": "1"}
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # as on a host that keeps core dumps
    try:
        with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"), environment, whole=True)) as started:
            yield started
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_it_asks_for_config_then_credentials_then_says_started_then_beats(agent: RunningAgent) -> None:
    assert agent.calls()[:4] == START
    assert agent.sandbox.settings(agent.agent_id) == ["STARTED"]


def test_the_first_poll_comes_after_the_first_heartbeat(sandbox: Sandbox, tmp_path: Path) -> None:
    agent_id = sandbox.add_agent()
    with (
        sandbox.inject(Fault("rest", "POST /v1/data-acquisition/agent/status", contains=agent_id, hang_seconds=FOREVER)) as hanging,
        ThreadedAgent(sandbox, tmp_path, agent_id=agent_id) as agent,
    ):
        polls = sum(call.operation == "ReceiveMessage" for call in sandbox.aws_calls)
        wait_until(sandbox, lambda: hanging.hits == 1)
        assert agent.events("agent-ready") == []
        hanging.release()
        agent.wait_log("agent-ready")
        wait_until(sandbox, lambda: sum(call.operation == "ReceiveMessage" for call in sandbox.aws_calls) > polls)


def test_every_call_names_token_and_organisation(agent: RunningAgent) -> None:
    calls = rest_calls(agent.sandbox, agent.agent_id)
    assert {call.headers["x-org-slug"] for call in calls} == {agent.sandbox.org_slug}
    # The sandbox stores no tokens: it answers 401 to a call without a valid one.
    assert {call.status for call in calls if call.status is not None} == {200}


def test_it_dumps_no_core_and_starts_no_other_program(agent: RunningAgent) -> None:
    """A core dump would hold every secret; another program would inherit the environment."""
    process = Path(f"/proc/{agent.pid}")
    (limit,) = [line for line in (process / "limits").read_text().splitlines() if line.startswith("Max core file size")]
    assert limit.split()[4] == "0"
    assert [task.name for task in (process / "task").iterdir() if (task / "children").read_text()] == []


def test_its_threads_share_one_malloc_arena(agent: RunningAgent) -> None:
    """Any other would reserve 64 MB of addresses."""
    reserved = [line.split()[0].split("-") for line in Path(f"/proc/{agent.pid}/maps").read_text().splitlines() if "---p" in line]
    assert [area for area in reserved if int(area[1], 16) - int(area[0], 16) > 60_000_000] == []


def test_every_call_says_the_version_with_a_v(agent: RunningAgent) -> None:
    wait_until(agent.sandbox, lambda: len(agent.sandbox.system_metrics) > 0)
    calls = rest_calls(agent.sandbox, agent.agent_id)
    assert {(call.json or call.fields)["agentVersion"] for call in calls} == {f"v{__version__}"}


def test_a_heartbeat_says_who_and_what_it_is(agent: RunningAgent) -> None:
    beat = next(call for call in rest_calls(agent.sandbox, agent.agent_id) if (call.method, call.path[-6:]) == ("POST", "status"))
    assert beat.json == {"agentId": agent.agent_id, "agentVersion": f"v{__version__}", "agent": "TetraScience.Agent.user-defined"}


def test_started_says_the_same_and_the_setting(agent: RunningAgent) -> None:
    put = next(call for call in rest_calls(agent.sandbox, agent.agent_id) if call.method == "PUT")
    assert put.json == {
        "agentId": agent.agent_id,
        "agentVersion": f"v{__version__}",
        "agent": "TetraScience.Agent.user-defined",
        "statusSetting": "STARTED",
    }


def test_config_and_credentials_are_asked_for_by_id_and_version_alone(agent: RunningAgent) -> None:
    calls = rest_calls(agent.sandbox, agent.agent_id)
    for name in ("config", "credentials"):
        asked = next(call for call in calls if call.path.endswith(name))
        assert asked.json == {"agentId": agent.agent_id, "agentVersion": f"v{__version__}"}


def test_heartbeats_come_as_often_as_configured_and_make_it_online(agent: RunningAgent) -> None:
    wait_until(agent.sandbox, lambda: len(agent.sandbox.heartbeats(agent.agent_id)) >= 4)
    beats = agent.sandbox.heartbeats(agent.agent_id)[:4]
    # A busy machine may delay one; the next is then early.
    assert timedelta(seconds=2) < beats[-1] - beats[0] < timedelta(seconds=5), beats


def test_credentials_are_not_fetched_for_each_call(agent: RunningAgent) -> None:
    wait_until(agent.sandbox, lambda: agent.calls().count(("POST", "config")) >= 3)
    assert agent.calls().count(("POST", "credentials")) == 1


def test_system_metrics_are_lines_of_json_in_a_multipart_form(agent: RunningAgent) -> None:
    def uploads() -> list[list[object]]:
        return [lines for agent_id, lines in agent.sandbox.system_metrics if agent_id == agent.agent_id]

    wait_until(agent.sandbox, lambda: len(uploads()) >= 2)
    assert all(lines and all(isinstance(line, dict) for line in lines) for lines in uploads())
    call = next(call for call in rest_calls(agent.sandbox, agent.agent_id) if call.path.endswith("systemmetric"))
    assert call.headers["content-type"].startswith("multipart/form-data")
    assert call.fields == {"agentId": agent.agent_id, "agentVersion": f"v{__version__}"}


def test_an_idle_agent_logs_nothing(agent: RunningAgent) -> None:
    wait_until(agent.sandbox, lambda: len(agent.sandbox.heartbeats(agent.agent_id)) >= 3)
    assert [line["event"] for line in agent.logs] == ["agent-starting", "agent-ready"]


def test_sigterm_says_stopped_last_and_exits_0(sandbox: Sandbox, tmp_path: Path) -> None:
    with RunningAgent(sandbox, tmp_path, whole=True) as agent:
        agent.ready()
        assert agent.stop() == 0
    assert sandbox.settings(agent.agent_id) == ["STARTED", "STOPPED"]
    assert agent.calls()[-1] == ("PUT", "status")
    assert agent.logs[-1]["event"] == "agent-stopped"
    assert agent.errors == ""
