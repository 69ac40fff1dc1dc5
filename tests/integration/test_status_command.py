"""`relay-agent status` and `relay-agent commands`: what they print for a running agent and for one that has ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.diagnostics.platform_causes import QUEUE_DISABLED
from relay_agent.sandbox.server import Sandbox
from tests.agents import EXECUTABLE, RunningAgent, ThreadedAgent, page, run_once, running, wait_until
from tests.targets import ByteTarget, reply

QUICK = {"RELAY_CONFIG_REFRESH_SECONDS": "1"}


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


def ask(directory: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command that needs no more than the state directory."""
    environment = {"PATH": os.environ["PATH"], "RELAY_STATE_DIR": str(directory / "state"), **more}
    done = run_once(list(arguments), directory, environment)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_of_a_ready_agent_status_says_so_and_names_every_kind_of_thread(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)
        reported = ask(tmp_path, "status")
        assert (reported.returncode, reported.stderr) == (0, "")
        for word in (
            "Ready",
            agent.agent_id,
            "poller",
            "sender",
            "heartbeat",
            "config-refresh",
            "upkeep",
            "environment",
            "workers",
            "JWT",
            "journal",
        ):
            assert word in reported.stdout, word
        assert "\x1b" not in reported.stdout
        as_json = ask(tmp_path, "status", "--json")
        assert json.loads(as_json.stdout)["state"] == "ready"


def test_of_an_agent_that_is_not_ready_it_gives_cause_and_cure(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, dict(QUICK))) as agent:
        sandbox.enable_queue(agent.agent_id, False)
        agent.wait_log("queue-disabled")
        reported = ask(tmp_path, "status")
        assert reported.returncode == 1
        assert QUEUE_DISABLED.cause in reported.stdout
        assert QUEUE_DISABLED.cure in reported.stdout
        assert ask(tmp_path, "status", "--json").returncode == 1


def test_without_a_running_agent_it_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    reported = ask(tmp_path, "status")
    assert (reported.returncode, reported.stdout) == (4, "")
    assert "No agent runs" in reported.stderr
    agent = RunningAgent(sandbox, tmp_path)
    with running(agent):
        agent.kill()  # its socket stays
    assert ask(tmp_path, "status").returncode == 4


def test_an_agent_that_does_not_answer_is_distinguished_from_no_agent(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "state" / "admin.sock"))
        deaf.listen(1)
        asking = subprocess.Popen(
            [Path(os.sys.executable).with_name("relay-agent"), "status"],  # type: ignore[attr-defined]
            env={"PATH": os.environ["PATH"], "RELAY_STATE_DIR": str(tmp_path / "state")},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = deaf.accept()
        connection.close()
        _, errors = asking.communicate(timeout=20)
    assert (asking.returncode, "does not answer" in errors) == (1, True)


def test_commands_are_listed_while_the_agent_runs_and_after_it_was_killed(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent = RunningAgent(sandbox, tmp_path)
    with running(agent):
        done = agent.get(target.url("/"))
        refused = agent.get("http://127.0.0.1:9/")
        wait_until(sandbox, lambda: json.loads(page(agent, "/status.json")[1])["journal"]["delivered"] == 2)
        alive = json.loads(ask(tmp_path, "commands", "--json").stdout)["commands"]
        agent.kill()
    assert [one["id"] for one in alive] == [refused.id, done.id]
    assert json.loads(ask(tmp_path, "commands", "--json").stdout)["commands"] == alive
    assert [one["id"] for one in json.loads(ask(tmp_path, "commands", "--failed", "--json").stdout)["commands"]] == [refused.id]
    assert json.loads(ask(tmp_path, "commands", "--host", "nowhere", "--json").stdout) == {"commands": []}
    assert len(json.loads(ask(tmp_path, "commands", "--limit", "1", "--json").stdout)["commands"]) == 1
    reported = ask(tmp_path, "commands")
    assert reported.returncode == 0
    for word in (done.id, refused.id, "SUCCESS", "ECONNREFUSED", "127.0.0.1:9", "GET"):
        assert word in reported.stdout, word


def on_terminal(directory: Path, columns: int, *arguments: str) -> str:
    """What a command prints on a terminal of that width, without its colours."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {"PATH": os.environ["PATH"], "RELAY_STATE_DIR": str(directory / "state"), "TERM": "xterm"}
        asking = subprocess.Popen([EXECUTABLE, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=theirs)
        os.close(theirs)
        reported = b""
        with contextlib.suppress(OSError):  # EIO: the last writer has closed it
            while chunk := os.read(ours, 65536):
                reported += chunk
        assert asking.wait(20) == 0
    finally:
        os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", reported.decode().replace("\r", ""))


def test_commands_fit_a_terminal_of_80_columns_with_all_that_is_needed_at_night(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    """When, status, code, method, host and port are whole; an id is as long as `commands show` needs it."""
    host = "chromatography-data-system.building-7.basel.pharma.invalid"
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        failed = agent.ask({"method": "DELETE", "url": f"https://{host}:58443/"})
        done = agent.get(target.url("/"))
        wait_until(sandbox, lambda: json.loads(page(agent, "/status.json")[1])["journal"]["delivered"] == 2)
        narrow, wide = on_terminal(tmp_path, 80, "commands"), on_terminal(tmp_path, 250, "commands")
        piped = ask(tmp_path, "commands").stdout
        when = json.loads(ask(tmp_path, "commands", "show", done.id, "--json").stdout)["when"]
        assert done.id in on_terminal(tmp_path, 80, "commands", "show", done.id[:8])
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    of_done = next(line for line in narrow.splitlines() if done.id[:8] in line)
    for word in (when[5:19].replace("T", " "), "SUCCESS", "200", "GET", f"127.0.0.1:{target.port}"):
        assert word in of_done, (word, narrow)
    for word in ("FAILURE", "ENOTFOUND", "DELETE"):
        assert word in narrow, (word, narrow)
    at = narrow.splitlines()[0].index("host")
    column = "".join(line[at : at + 80].split("  ")[0].strip() for line in narrow.splitlines()[2:])
    assert f"{host}:58443" in column, narrow
    for text in (wide, piped):
        for word in (done.id, failed.id, f"{host}:58443", "ENOTFOUND", "queued", "Request", when[:19].replace("T", " ")):
            assert word in text, (word, text)


def test_without_a_terminal_no_line_of_commands_is_cut(sandbox: Sandbox, tmp_path: Path) -> None:
    host = ".".join(["long" * 15] * 3)
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        failed = agent.ask({"method": "M" * 32, "url": f"http://{host}.invalid:8443/", "headers": {}})
        (line,) = [line for line in ask(tmp_path, "commands").stdout.splitlines() if failed.id in line]
        method = json.loads(ask(tmp_path, "commands", "show", failed.id, "--json").stdout)["method"]
    for word in (f"{host}.invalid:8443", method, "FAILURE"):
        assert word in line, (word, line)


def test_one_command_is_shown_by_the_beginning_of_its_id_and_an_unknown_one_is_exit_1(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        done = agent.get(target.url("/"))
        reported = ask(tmp_path, "commands", "show", done.id[:13])
        assert reported.returncode == 0
        assert done.id in reported.stdout
        assert "SUCCESS" in reported.stdout
        assert json.loads(ask(tmp_path, "commands", "show", done.id, "--json").stdout)["id"] == done.id
        unknown = ask(tmp_path, "commands", "show", "no-such-command")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert "no-such-command" in unknown.stderr


def test_without_a_journal_commands_say_where_they_looked(tmp_path: Path) -> None:
    reported = ask(tmp_path, "commands")
    assert (reported.returncode, reported.stdout) == (1, "")
    assert "RELAY_STATE_DIR" in reported.stderr
    assert str(tmp_path / "state") in reported.stderr


@pytest.mark.parametrize(
    "command", [["run"], ["check"], ["status"], ["commands"], ["commands", "show", "9b9f"], ["support-bundle"]], ids=" ".join
)
@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_missing_env_file_is_refused_with_exit_code_2(tmp_path: Path, command: list[str], kind: str) -> None:
    """It would mean another state directory, and so "no agent runs" beside one that does."""
    name = tmp_path / "agent.env"
    if kind == "directory":
        name.mkdir()
    reported = ask(tmp_path, command[0], "--env-file", str(name), *command[1:])
    assert reported.returncode == 2, reported
    assert "--env-file" in reported.stdout + reported.stderr
    assert str(name) in reported.stdout + reported.stderr
    assert [path for path in tmp_path.iterdir() if path != name] == []


@pytest.mark.parametrize("command", ["status", "commands"])
def test_the_help_shows_an_example_and_needs_no_configuration(tmp_path: Path, command: str) -> None:
    reported = ask(tmp_path, command, "--help")
    assert reported.returncode == 0
    assert "Example" in reported.stdout


def test_what_was_secret_in_a_command_is_in_no_output(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    canary = "canary-93ac"
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        secret = {"method": "POST", "headers": {"Authorization": canary, "Cookie": canary}, "body": canary}
        command = agent.ask({**secret, "url": target.url(f"/?key={canary}")})
        for arguments in (["status"], ["status", "--json"], ["commands"], ["commands", "--json"], ["commands", "show", command.id]):
            reported = ask(tmp_path, *arguments)
            assert canary not in reported.stdout + reported.stderr
            assert agent.environment["JWT"] not in reported.stdout + reported.stderr
