"""run.sh replaces a container: what it undoes if it is interrupted or the new one does not stay, and two runs at once."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget, Gate
from tests.image.administrator import Administrator, Begun
from tests.image.engine import MARK, Container, docker, inspect, wait_until
from tests.image.test_guide import guides_command

STATUS = "PUT /v1/data-acquisition/agent/status"
"""A call of a starting agent that `check` does not make."""
Begin = Callable[..., Begun]
SIGNALS = [(signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGTERM, False)]
"""As Ctrl-C, a terminal that closes, and `kill` send them."""


@pytest.fixture
def begin(administrator: Administrator) -> Iterator[Begin]:
    """Start run.sh, and go on while it works."""
    begun: list[Begun] = []

    def start(**environment: str) -> Begun:
        begun.append(administrator.begin("run.sh", **environment))
        return begun[-1]

    yield start
    for script in begun:
        script.end()


def present(container: Container) -> list[str]:
    """The containers of that name, and of those that run.sh derives from it."""
    return docker("ps", "-a", "--filter", f"name={container.name}", "--format", "{{.Names}}").stdout.split()


def running(container: Container) -> bool:
    """Whether a container of exactly that name runs."""
    return bool(docker("ps", "-q", "--filter", f"name=^/?{container.name}$").stdout)


def at_work(administrator: Administrator, target: DemoTarget) -> tuple[Container, str, Gate, Command]:
    """An agent in the midst of a request: its container, that one's id, and what holds the request."""
    administrator.run()
    container = administrator.container
    gate = target.gate(container.name)
    held = container.create(f"{target.http_url}/gate/{container.name}")
    assert gate.entered.wait(20)
    return container, inspect(container.name)["Id"], gate, held


@pytest.mark.parametrize(("number", "group"), SIGNALS)
def test_cut_off_while_the_old_one_stops_it_lets_that_finish_and_starts_it_again(
    administrator: Administrator, begin: Begin, demo_target: DemoTarget, number: signal.Signals, group: bool
) -> None:
    container, before, gate, held = at_work(administrator, demo_target)
    script = begin()
    script.wait_for(f"Stopping the container {container.name}")
    container.wait_log("agent-stopping")
    script.signal(number, group)
    if group:
        script.wait_for("waiting until")
    gate.release()
    assert (script.wait(), "interrupted" in script.reported, "runs again" in script.reported) == (1, True, True), script.reported
    assert (inspect(container.name)["Id"], present(container)) == (before, [container.name])
    container.wait_log("agent-ready", count=2)
    assert container.sandbox.wait_final(held.id, 20).status == "SUCCESS"


@pytest.mark.parametrize(("number", "group"), SIGNALS)
def test_cut_off_while_the_settings_are_checked_it_leaves_the_old_one_alone(
    administrator: Administrator, begin: Begin, sandbox: Sandbox, number: signal.Signals, group: bool
) -> None:
    administrator.run()
    container = administrator.container
    before = inspect(container.name)["State"]["StartedAt"]

    def mine(which: str = "-q") -> set[str]:
        return set(docker("ps", which, "--filter", f"label={MARK}", "--filter", f"volume={container.name}-state").stdout.split())

    everyone = mine()
    with sandbox.inject(Fault(service="rest", contains=container.agent_id, hang_seconds=FOREVER, count=None)):
        script = begin()
        wait_until(lambda: mine() - everyone, "the check runs")
        script.signal(number, group)
        assert (script.wait(), "interrupted" in script.reported, "runs again" in script.reported) == (1, True, False), script.reported
    assert (inspect(container.name)["State"]["StartedAt"], present(container)) == (before, [container.name])
    assert mine("-aq") == {inspect(container.name)["Id"][:12]}


@pytest.mark.parametrize(("number", "group"), SIGNALS)
def test_cut_off_while_the_new_one_starts_it_puts_the_old_one_back(
    administrator: Administrator, begin: Begin, sandbox: Sandbox, number: signal.Signals, group: bool
) -> None:
    administrator.run()
    container = administrator.container
    before = inspect(container.name)["Id"]
    with sandbox.inject(Fault("rest", STATUS, contains=container.agent_id, hang_seconds=FOREVER, count=None)):
        script = begin()
        wait_until(lambda: len(present(container)) == 2 and running(container), "the new one is there, the old one aside")
        script.signal(number, group)
        assert (script.wait(), "interrupted" in script.reported, "runs again" in script.reported) == (1, True, True), script.reported
    assert (inspect(container.name)["Id"], present(container)) == (before, [container.name])
    container.wait_log("agent-ready", count=2)


def test_cut_off_at_the_first_start_it_leaves_nothing(administrator: Administrator, begin: Begin, sandbox: Sandbox) -> None:
    container = administrator.container
    with sandbox.inject(Fault("rest", STATUS, contains=container.agent_id, hang_seconds=FOREVER, count=None)):
        script = begin()
        wait_until(lambda: present(container) == [container.name] and running(container), "it is started")
        script.signal(signal.SIGTERM, group=False)
        assert (script.wait(), present(container)) == (1, []), script.reported


def test_a_token_of_another_organisation_is_found_before_anything_is_stopped(
    administrator: Administrator, settings: dict[str, str], sandbox: Sandbox
) -> None:
    container = administrator.container
    foreign = sandbox.issue_jwt(org_slug="another-organisation")
    administrator.fill_in({**settings, "JWT": foreign})
    first = administrator.call("run.sh")
    assert (first.returncode, "  access: " in first.stderr, "take ORG_SLUG, JWT" in first.stderr) == (2, True, True), first.stderr
    assert present(container) == []
    administrator.fill_in(settings)
    administrator.run()
    before = inspect(container.name)["State"]["StartedAt"]
    administrator.fill_in({**settings, "JWT": foreign})
    second = administrator.call("run.sh")
    assert (second.returncode, "still runs with its previous settings" in second.stderr) == (2, True), second.stderr
    assert "Correct them, and run this script again" in second.stderr and "docker stop" not in second.stderr
    assert foreign not in first.stdout + first.stderr + second.stdout + second.stderr
    assert foreign not in "".join(file.read_text(encoding="utf-8") for file in administrator.delivery.glob("failed-start-*.log"))
    assert (inspect(container.name)["State"]["StartedAt"], present(container)) == (before, [container.name])


def test_an_agent_that_ends_in_spite_of_the_check_is_undone_its_log_is_kept_and_the_old_one_runs_again(
    administrator: Administrator, settings: dict[str, str], sandbox: Sandbox
) -> None:
    container = administrator.container
    refused = Fault("rest", STATUS, contains=container.agent_id, status=403, count=None)
    with sandbox.inject(refused):
        first = administrator.call("run.sh")
    assert (first.returncode, "ended at once (exit code 3)" in first.stderr, "the role" in first.stderr) == (1, True, True), first.stderr
    assert first.stderr.count("answered 403") == 1 and '"event"' not in first.stderr, "in words, and once"
    (kept,) = administrator.delivery.glob("failed-start-*.log")
    assert (str(kept) in first.stderr, kept.stat().st_mode & 0o777) == (True, 0o600)
    assert '"event":"agent-giving-up"' in kept.read_text(encoding="utf-8")
    assert present(container) == []
    administrator.run()
    before = inspect(container.name)["Id"]
    changed = {"RELAY_WORKERS": "7", "LOG_DRIVER": "json-file", "DOCKER_OPTIONS": "--label relay-test.more=x"}
    administrator.fill_in({**settings, **changed})
    with sandbox.inject(refused):
        second = administrator.call("run.sh")
    assert (second.returncode, "ended at once" in second.stderr, "runs again" in second.stderr) == (1, True, True), second.stderr
    assert (inspect(container.name)["Id"], present(container)) == (before, [container.name])
    container.wait_log("agent-ready", count=2)
    looked = wait_until(lambda: [done for done in [administrator.call("verify.sh")] if done.returncode == 0], "it is Online again")[0]
    said = f"the settings in {administrator.delivery}/agent.env differ from those of the running container: {' '.join(changed)}."
    assert said in looked.stdout, looked.stdout
    assert looked.stdout.splitlines()[-1].endswith(f"but not with the settings in {administrator.delivery}/agent.env.")
    administrator.run()
    assert "differ from those of the running container" not in administrator.call("verify.sh").stdout


def test_a_second_run_waits_for_the_first_and_reacts_to_signals(
    administrator: Administrator, begin: Begin, demo_target: DemoTarget
) -> None:
    container, before, gate, held = at_work(administrator, demo_target)
    first = begin()
    first.wait_for("Stopping the container")
    container.wait_log("agent-stopping")
    second, third = begin(), begin()
    for script in (second, third):
        script.wait_for("Another run.sh is working")
    second.signal(signal.SIGTERM, group=False)
    assert (second.wait(), inspect(container.name)["Id"]) == (1, before), second.reported
    gate.release()
    assert (first.wait(), third.wait()) == (0, 0), first.reported + third.reported
    assert first.reported.count("The agent is ready") == third.reported.count("The agent is ready") == 1
    assert present(container) == [container.name]
    assert container.sandbox.wait_final(held.id, 20).status == "SUCCESS"


def test_without_flock_it_runs_without_a_lock(administrator: Administrator, tmp_path: Path) -> None:
    """And its output says what it needs of a machine."""
    tools = "sh sha256sum awk basename cat chmod cut dirname grep id mktemp od readlink rm sed sleep sort stat tail tr date"
    place = tmp_path / "tools"
    place.mkdir()
    for tool in tools.split():
        found = shutil.which(tool)
        assert found, tool
        (place / tool).symlink_to(found)
    shim = administrator.environment["PATH"].partition(":")[0]
    assert shutil.which("flock", path=f"{shim}:{place}") is None
    administrator.run(PATH=f"{shim}:{place}")
    administrator.run(PATH=f"{shim}:{place}")
    assert present(administrator.container) == [administrator.container.name]


def test_after_one_that_was_killed_between_two_steps_the_next_takes_the_old_container_and_its_state_over(
    administrator: Administrator, settings: dict[str, str], demo_target: DemoTarget
) -> None:
    container = administrator.container
    docker(*guides_command(container.name, settings))  # Its state has no name that could be guessed.
    container.ready()
    command = container.get(f"{demo_target.http_url}/json")
    (mount,) = inspect(container.name)["Mounts"]
    container.stop()
    docker("rename", container.name, f"{container.name}-previous")
    done = administrator.call("run.sh")
    assert (done.returncode, "An earlier run.sh was interrupted" in done.stdout) == (0, True), done.stdout + done.stderr
    assert command.id in container.exec("relay-agent", "commands", "--json").stdout
    assert present(container) == [container.name]
    docker("rm", "--force", container.name)
    docker("volume", "rm", mount["Name"])


@pytest.mark.parametrize("script", ["run.sh", "verify.sh"])
def test_a_link_to_a_script_finds_what_lies_beside_the_script(administrator: Administrator, tmp_path: Path, script: str) -> None:
    administrator.run()
    links = tmp_path / "sbin"
    links.mkdir()
    (links / "relay-second").symlink_to(os.path.relpath(administrator.delivery / script, links))
    (links / "relay").symlink_to("relay-second")
    done = administrator.call(str(links / "relay"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"is ready: container|as delivered", done.stdout)
