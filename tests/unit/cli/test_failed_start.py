"""Why `run` does not start: one log line, or words on a terminal, and its exit code.

That the line also reaches the syslog receiver is tested with whole agents (`tests/integration/test_agent_syslog.py`).
"""

from __future__ import annotations

import io
import json
import os
import socket
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay_agent.agent.agent import Agent
from relay_agent.cli.main import main
from relay_agent.config.loading import load_settings
from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalError
from relay_agent.storage.journal import Journal
from relay_agent.storage.state_directory import StateDirectory
from tests.targets import closed_port
from tests.unit.config.scenes import signed_token


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def failed(found: Result) -> dict[str, Any]:
    """The one line that says why there was no start: in the log, and nowhere else."""
    (line,) = found.stdout.splitlines()
    event: dict[str, Any] = json.loads(line)
    assert (list(event)[:3], event["event"], event["code"], found.stderr) == (
        ["event", "timestamp", "level"],
        "start-failed",
        found.exit_code,
        "",
    )
    return event


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_agent.cli.failed_start._terminal", lambda: True)


def test_an_invalid_configuration_ends_with_2_and_every_mistake(configured: pytest.MonkeyPatch) -> None:
    configured.delenv("JWT")
    configured.setenv("RELAY_WORKERS", "many")
    found = run("run")
    event = failed(found)
    assert (found.exit_code, event["level"], event["reason"]) == (2, "error", "The configuration is invalid")
    assert [problem.split(":")[0] for problem in event["problems"]] == ["JWT", "RELAY_WORKERS"]
    assert event["cause"] == "; ".join(event["problems"]) and "agent.env" in event["cure"]


def test_on_a_terminal_an_invalid_configuration_is_said_in_words(configured: pytest.MonkeyPatch) -> None:
    on_a_terminal(configured)
    configured.delenv("JWT")
    configured.setenv("RELAY_WORKERS", "many")
    found = run("run")
    lines = found.stderr.splitlines()
    assert (found.exit_code, found.stdout, lines[0]) == (2, "", "The configuration is invalid:")
    assert [line.split(":")[0].strip() for line in lines[1:3]] == ["JWT", "RELAY_WORKERS"]
    assert lines[-1].endswith("from .env, which does not exist here.")


def test_with_a_file_of_settings_its_absence_is_not_mentioned(configured: pytest.MonkeyPatch) -> None:
    on_a_terminal(configured)
    Path(".env").write_text("RELAY_WORKERS=many\n")
    found = run("run")
    assert (found.exit_code, "does not exist" in found.stderr) == (2, False)


def test_a_file_of_settings_that_was_named_and_is_missing_ends_with_2(configured: pytest.MonkeyPatch) -> None:
    found = run("run", "--env-file", "nowhere.env")
    assert (found.exit_code, failed(found)["problems"][0].startswith("--env-file: there is no file nowhere.env")) == (2, True)


def test_a_fault_point_that_does_not_exist_ends_with_2_since_the_variable_is_for_tests(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("RELAY_FAULT_POINT", "nowhere")
    found = run("run")
    assert (found.exit_code, "this variable is for the agent's own tests: unset it" in failed(found)["cause"]) == (2, True)


@pytest.mark.parametrize("terminal", [False, True])
def test_an_expired_token_ends_with_1_and_is_not_repeated(configured: pytest.MonkeyPatch, terminal: bool) -> None:
    token = signed_token(exp=1)
    configured.setenv("JWT", token)
    if terminal:
        on_a_terminal(configured)
    found = run("run")
    reason = found.stderr if terminal else failed(found)["reason"]
    assert (found.exit_code, "the JWT expired on 1970-01-01" in reason, token in found.output) == (1, True, False)
    assert terminal or failed(found)["cure"].startswith("create a new token")


def test_a_state_directory_of_another_agent_ends_with_2(configured: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = StateDirectory(tmp_path / "state")
    found = run("run")
    other.close()
    event = failed(found)
    assert (found.exit_code, event["cause"]) == (2, f"the agent, another agent or `relay-agent retire` uses {tmp_path / 'state'}")
    assert event["cure"].startswith("stop the agent, or wait until `retire` has ended; or give this agent a RELAY_STATE_DIR")


def test_a_journal_of_a_newer_agent_ends_with_1(configured: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    Journal(tmp_path / "state" / "journal.db", Clock()).close()
    with closing(sqlite3.connect(tmp_path / "state" / "journal.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    found = run("run")
    assert (found.exit_code, "newer agent" in failed(found)["reason"]) == (1, True)


def test_the_lines_of_a_start_that_fails_come_before_the_one_that_says_why(configured: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    Journal(tmp_path / "state" / "journal.db", Clock()).close()
    with closing(sqlite3.connect(tmp_path / "state" / "journal.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = os.write(writing, b"x" * 1024 * 1024)
    os.set_blocking(writing, True)
    begun = threading.Event()
    reader = threading.Timer(0.2, lambda: (begun.set(), os.read(reading, filled)))
    with socket.create_server(("127.0.0.1", 0)) as taken, os.fdopen(reading, "rb") as read, os.fdopen(writing, "w") as stream:
        configured.setenv("RELAY_ADMIN_ADDR", f"127.0.0.1:{taken.getsockname()[1]}")
        reader.start()
        with pytest.raises(JournalError):
            Agent(load_settings(Path(".env")), stream=stream)
        waited = begun.is_set()
        reader.join()
        assert (json.loads(read.readline())["event"], waited) == ("admin-unavailable", True)


def test_a_start_that_fails_while_the_pages_are_built_says_why_itself(configured: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    configured.setattr("relay_agent.agent.agent.StatusPages.__init__", broken)
    configured.setenv("RELAY_LOG_SYSLOG", f"tcp://127.0.0.1:{closed_port()}")
    with pytest.raises(RuntimeError, match="a bug"):
        Agent(load_settings(Path(".env")), stream=io.StringIO())


@pytest.mark.parametrize("terminal", [False, True])
def test_an_unexpected_error_while_the_agent_is_built_is_one_line_without_its_text(configured: pytest.MonkeyPatch, terminal: bool) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("with a secret in it")

    configured.setattr(Agent, "__init__", broken)
    if terminal:
        on_a_terminal(configured)
    found = run("run")
    said = found.stderr if terminal else failed(found)["reason"] + failed(found)["cure"]
    assert (found.exit_code, "an unexpected RuntimeError." in said, "report it to the vendor" in said.lower()) == (1, True, True)
    assert "secret" not in found.output
