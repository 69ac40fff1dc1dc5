"""The guide's own commands, word for word; starting, stopping, killing; and the resources of an agent."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relay_agent.core.models import ACTION_HTTP
from relay_agent.protocol.jwe import generate_key, seal_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from tests.agents import SECURE_REQUEST, body
from tests.image.conftest import Start
from tests.image.engine import MARK, STATE, Container, Json, docker, fresh_name, image, inspect, volume, wait_until
from tests.image.older import older_package

MEMORY_BYTES = 95_000_000
MODULES_OF_A_START = 800
KILLED = 128 + 9
NOT_FOR_RUN = {"rich", "pygments", "charset_normalizer", "chardet", "boto3", "s3transfer", "flask", "ministack", "pip", "setuptools"}


def guides_command(name: str, settings: dict[str, str]) -> list[str]:
    """The command as the guide has it: what is not needed stands there empty."""
    parts = ["run", "-d", "--name", name, "--restart=always", "--net=host"]
    wanted = {name: settings.get(name, "") for name in ("AGENT_ID", "API_TARGET", "JWT", "ORG_SLUG", "AWS_ENDPOINT_URL", "no_proxy")}
    for variable, value in {**wanted, "SECURE_COMMAND_KEY": "", "http_proxy": "", "https_proxy": ""}.items():
        parts += ["-e", f"{variable}={value}"]
    return [*parts, "--label", MARK, image()]


def test_the_guides_command_comes_online_relays_and_keeps_its_state_in_a_volume_without_a_name(
    sandbox: Sandbox, agent_id: str, settings: dict[str, str], demo_target: DemoTarget
) -> None:
    container = Container(sandbox, fresh_name("guide"), agent_id)
    try:
        docker(*guides_command(container.name, settings))
        container.ready()
        wait_until(lambda: sandbox.agents.get(agent_id).online(sandbox.now()), "Online")
        command = container.get(f"{demo_target.http_url}/json")
        assert (command.status, body(command)["statusCode"]) == ("SUCCESS", 200)
        (mount,) = inspect(container.name)["Mounts"]
        assert (mount["Type"], mount["Destination"], mount["RW"]) == ("volume", STATE, True)
        assert settings["JWT"] not in container.output()
    finally:
        docker("rm", "--force", "--volumes", container.name, check=False)


def test_a_stop_during_a_request_lets_it_finish_and_exits_with_0(started: Start, demo_target: DemoTarget) -> None:
    container = started("--restart=always").ready()
    gate = demo_target.gate("image-stop")
    command = container.create(f"{demo_target.http_url}/gate/image-stop")
    assert gate.entered.wait(20)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(container.stop)
        container.wait_log("agent-stopping")
        gate.release()
        assert stopping.result(60) == 0
    assert container.sandbox.wait_final(command.id, 5).status == "SUCCESS"
    assert not container.state()["Running"], "a stopped container must not be started again by --restart=always"


def test_a_stop_of_an_idle_agent_does_not_wait_for_the_end_of_its_poll(started: Start, sandbox: Sandbox) -> None:
    """A poll lasts 20 seconds; the one that is under way here began after the agent was ready."""
    container = started().ready()
    polls = len(receives(sandbox))
    assert container.get("http://127.0.0.1:1/").status == "FAILURE"
    wait_until(lambda: len(receives(sandbox)) > polls, "the poll after it")
    begun = time.monotonic()
    assert container.stop() == 0
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_a_stop_right_after_the_start_is_not_waited_out(started: Start, delay: float) -> None:
    """The first process of a container ignores a signal that it does not handle; Docker would kill it after the whole time."""
    container = started()
    wait_until(lambda: handles_signals(container.state()["Pid"]), "the kernel hands signals to the first process")
    time.sleep(delay)
    assert container.stop(60) != KILLED


def handles_signals(pid: int) -> bool:
    """Whether tini waits for signals, as it does once it has a child: before, the kernel drops those to a first process."""
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().strip())


def test_a_kill_with_commands_under_way_loses_and_doubles_nothing(started: Start, demo_target: DemoTarget) -> None:
    state = volume()
    container = started("--restart=always", "--volume", f"{state}:{STATE}").ready()
    gate = demo_target.gate("image-kill")
    held = [container.create(f"{demo_target.http_url}/gate/image-kill") for _ in range(4)]
    posted = container.create(f"{demo_target.http_url}/gate/image-kill", "POST")
    wait_until(lambda: demo_target.count("/gate/image-kill") == 5, "five at the gate")
    waiting = [container.create(f"{demo_target.http_url}/json?n={n}", "POST") for n in range(6)]
    for command in waiting:
        container.sandbox.wait_final(command.id, 20)
    seen = demo_target.count("/json")
    container.kill()
    wait_until(lambda: inspect(container.name)["RestartCount"] == 1, "Docker starts it again")
    container.wait_log("agent-ready", count=2)
    gate.release()
    assert [container.sandbox.wait_final(command.id, 30).status for command in held] == ["SUCCESS"] * 4
    interrupted = container.sandbox.wait_final(posted.id, 30)
    assert (interrupted.status, body(interrupted)["code"]) == ("FAILURE", "EINTERRUPTED")
    assert demo_target.count("/json") == seen


def test_the_state_survives_the_container_and_a_new_one_goes_on(started: Start, demo_target: DemoTarget) -> None:
    state = volume()
    first = started("--volume", f"{state}:{STATE}").ready()
    command = first.get(f"{demo_target.http_url}/json")
    docker("rm", "--force", "--volumes", first.name)
    second = started("--volume", f"{state}:{STATE}").ready()
    assert command.id in second.exec("relay-agent", "commands", "--json").stdout


def test_it_polls_after_a_start_that_loads_few_modules_and_compiles_none(started: Start, sandbox: Sandbox) -> None:
    """What makes a start slow, counted; how long it takes is measured by `make bench`."""
    polls = len(receives(sandbox))
    container = started(environment={"PYTHONVERBOSE": "1"})
    wait_until(lambda: len(receives(sandbox)) > polls, "the first poll")
    reported = wait_until(
        lambda: "import 'relay_agent.agent.agent'" in (said := docker("logs", container.name).stderr) and said, "what it loads"
    )
    modules = set(re.findall(r"^import '?([\w.]+)'? #", reported, flags=re.MULTILINE))
    assert [name for name in modules if name in NOT_FOR_RUN or re.search(r"^relay_agent\.(.*\.)?(checks|sandbox)$", name)] == []
    assert re.findall(r"^# code object from '?(\S+\.py)'?$", reported, flags=re.MULTILINE) == [], "compiled at the start"
    assert len(modules) <= MODULES_OF_A_START
    print(f"{len(modules)} modules")


def receives(sandbox: Sandbox) -> list[str]:
    """The polls that the sandbox has seen, of this test's agent and those before it."""
    return [call.operation for call in list(sandbox.aws_calls) if call.operation == "ReceiveMessage"]


def test_it_needs_at_most_95_mb_under_load(started: Start, sandbox: Sandbox, demo_target: DemoTarget) -> None:
    """Small commands, large answers, large requests, and answers that wait for a platform that takes none."""
    key = generate_key()
    container = started(environment={"SECURE_COMMAND_KEY": key}).ready()

    def post(size: int, path: str = "/status/200") -> Json:
        return {"method": "POST", "url": f"{demo_target.http_url}{path}", "body": {"mode": "raw", "raw": "0123456789" * (size // 10)}}

    def secure(size: int) -> Json:
        plaintext = json.dumps(post(size)).encode()
        exp = int(time.time()) + 300
        return {"jwe": seal_command(plaintext, Keyring.from_text(key), aud=container.agent_id, exp=exp, jti=str(uuid.uuid4()))}

    def load(what: str, count: int, payload: Callable[[], Json], action: str = ACTION_HTTP) -> None:
        commands = [sandbox.create_command(container.agent_id, payload(), action) for _ in range(count)]
        assert {sandbox.wait_final(command, 60).status for command in commands} == {"SUCCESS"}
        print(f"{what}: a peak of {container.peak_bytes() / 1e6:.1f} MB until now")

    load("300 GETs", 300, lambda: {"url": f"{demo_target.http_url}/json"})
    load("24 answers of 5 MB", 24, lambda: {"url": f"{demo_target.http_url}/big"})
    load("100 POSTs of 180 KB, echoed", 100, lambda: post(180_000, "/echo"))
    load("48 POSTs of 1 MB", 48, lambda: post(1_000_000))
    load("20 POSTs of 9 MB", 20, lambda: post(9_000_000))
    load("4 secure POSTs of 7 MB", 4, lambda: secure(7_000_000), SECURE_REQUEST)
    done = len(container.lines("command"))
    with sandbox.inject(Fault("sqs", "SendMessageBatch", contains=container.agent_id, status=503, count=None)):
        waiting = [sandbox.create_command(container.agent_id, post(180_000, "/echo")) for _ in range(100)]
        wait_until(lambda: len(container.lines("command")) >= done + len(waiting), "a hundred answers that wait")
        print(f"100 answers of 180 KB that wait: {container.peak_bytes() / 1e6:.1f} MB")
    assert {sandbox.wait_final(command, 60).status for command in waiting} == {"SUCCESS"}
    assert container.peak_bytes() <= MEMORY_BYTES
    assert not container.state()["OOMKilled"]


def test_docker_calls_it_healthy_and_the_check_asks_this_agent_only(started: Start, sandbox: Sandbox) -> None:
    container = started("--health-interval=1s", "--health-start-period=1s").ready()
    wait_until(lambda: container.state()["Health"]["Status"] == "healthy", "healthy")
    check = ("python3", "-ISs", "/opt/relay-agent/bin/healthcheck.py")
    assert container.exec(*check).returncode == 0
    nobody = container.exec("env", "RELAY_STATE_DIR=/tmp", *check, check=False)
    assert (nobody.returncode, "no agent answers" in nobody.stdout) == (1, True)


def test_an_older_images_journal_is_opened_by_a_newer_one(started: Start, demo_target: DemoTarget) -> None:
    """The package of the commit before the journal's last change of schema runs in the image's place, with the real thing's volume."""
    state = volume()
    package, schema = older_package()
    site = "/opt/relay-agent/lib"
    version = docker("run", "--rm", "--label", MARK, "--entrypoint", "ls", image(), site).stdout.strip()
    older = started(
        "--restart=always", "--volume", f"{state}:{STATE}", "--volume", f"{package}:{site}/{version}/site-packages/relay_agent:ro"
    )
    older.ready()
    delivered = older.get(f"{demo_target.http_url}/json")
    gate = demo_target.gate("image-older")
    held = older.create(f"{demo_target.http_url}/gate/image-older")
    assert gate.entered.wait(20)
    docker("kill", older.name)
    newer = started("--volume", f"{state}:{STATE}").ready()
    gate.release()
    assert newer.sandbox.wait_final(held.id, 30).status == "SUCCESS"
    listed = newer.exec("relay-agent", "commands", "--json").stdout
    assert delivered.id in listed and held.id in listed
    newer.stop()
    reported = docker(
        "run", "--rm", "--label", MARK, "--volume", f"{state}:{STATE}", "--entrypoint", "python3", image(), "-c",
        f"import sqlite3; print(sqlite3.connect('file:{STATE}/journal.db?mode=ro', uri=True).execute('PRAGMA user_version').fetchone()[0])",
    ).stdout  # fmt: skip
    assert int(reported) > schema
