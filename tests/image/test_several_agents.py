"""Two containers of one agent on one queue: a rolling upgrade, and the end of a machine, as docs/several-agents.md types them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from tests.agents import body
from tests.image.administrator import Administrator
from tests.image.engine import MARK, Container, docker, fresh_name, inspect, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "several-agents.md"
SHARED = {"RELAY_SHARED_QUEUE": "true", "RELAY_LEASE_SECONDS": "10"}
"""A receive that a stop breaks off may have taken messages, which come back when the lease ends: sooner than a test waits for them."""


@pytest.fixture
def machines(administrator: Administrator, settings: dict[str, str], sandbox: Sandbox) -> Iterator[tuple[Administrator, Administrator]]:
    """Two machines with the same settings, each with its own container and state."""
    first = administrator
    container = Container(sandbox, fresh_name("second"), first.container.agent_id)
    docker("volume", "create", "--label", MARK, f"{container.name}-state")
    second = Administrator(first.delivery, first.environment, container)
    first.fill_in({**settings, **SHARED})
    yield first, second
    for name in (container.name, f"{container.name}-previous"):
        docker("rm", "--force", "--volumes", name, check=False)


def test_each_of_two_is_upgraded_in_turn_while_the_other_works(
    machines: tuple[Administrator, Administrator], sandbox: Sandbox, demo_target: DemoTarget
) -> None:
    first, _ = machines
    for machine in machines:
        machine.run()
    agent_id = first.container.agent_id
    commands = []
    for machine in machines:
        gate = demo_target.gate(machine.container.name)
        before = inspect(machine.container.name)["Id"]
        held = first.container.create(f"{demo_target.http_url}/gate/{machine.container.name}")
        assert gate.entered.wait(20)
        script = machine.begin("run.sh")
        script.wait_for(f"Stopping the container {machine.container.name}")
        fresh = [first.container.create(f"{demo_target.http_url}/json") for _ in range(5)]
        gate.release()
        assert script.wait() == 0, script.reported
        assert inspect(machine.container.name)["Id"] != before
        assert machine.call("verify.sh").returncode == 0
        commands += [held, *fresh]
    assert {sandbox.wait_final(command.id, 30).status for command in commands} == {"SUCCESS"}
    assert "STOPPED" not in sandbox.settings(agent_id)


def test_what_a_machine_holds_that_goes_away_for_good_is_answered(
    machines: tuple[Administrator, Administrator], sandbox: Sandbox, demo_target: DemoTarget, tmp_path: Path
) -> None:
    machine, _ = machines
    machine.run()
    container = machine.container
    gate = demo_target.gate(container.name)
    held = container.create(f"{demo_target.http_url}/gate/{container.name}")
    assert gate.entered.wait(20)
    wait_until(lambda: held.status == "PROCESSING", "the start of a GET is recorded before that is told")
    docker("kill", "--signal", "KILL", container.name)
    gate.release()
    text = PAGE.read_text(encoding="utf-8").partition("## When a machine goes away for good")[2]
    (block,) = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)[:1]
    script = block.replace("ts-agent-http-relay", container.name)
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=machine.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every answer was sent, and the journal is empty." in done.stdout
    assert body(sandbox.wait_final(held.id, 10))["code"] == "EINTERRUPTED"
    assert not (tmp_path / "retire.env").exists()
