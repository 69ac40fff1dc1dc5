"""The commands that show what an agent does: their exit codes, and what each says if there is nothing to show.

Beside a whole agent they are tested in `tests/integration/test_status_command.py` and `test_support_bundle.py`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from relay_agent.agent.admin.server import Admin
from relay_agent.cli.status import commands, status, support_bundle
from relay_agent.core.clock import Clock
from relay_agent.storage.journal import Journal
from tests.unit.agent.admin.scenes import Known, looping
from tests.unit.agent.admin.statuses import starting
from tests.unit.storage.scenes import admitted, outcome

CANARY = "canary-no-token"


@pytest.fixture
def state(environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The state directory that the settings name."""
    environment.setenv("RELAY_STATE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def journal(state: Path) -> Iterator[Journal]:
    made = Journal(state / "journal.db", Clock())
    yield made
    made.close()


def run(command: Any, *args: str) -> Result:
    return CliRunner().invoke(command, args)


class Telling(Known):
    """An agent with this status."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def status(self) -> dict[str, Any]:
        return self._status


def beside(directory: Path, found: dict[str, Any], *args: str) -> Result:
    """Run `status` beside an agent with this status."""
    admin = Admin(Telling(found), lambda: b"", None, directory / "admin.sock", cast("Any", None), {})
    try:
        with looping(admin):
            return run(status, *args)
    finally:
        admin.close()


# --- status ---


@pytest.mark.parametrize(("state_of_it", "code"), [("ready", 0), ("not ready", 1), ("starting", 1), ("stopping", 1)])
def test_status_ends_with_0_only_for_an_agent_that_is_ready(state: Path, state_of_it: str, code: int) -> None:
    found = starting(state).status() | {"state": state_of_it}
    assert beside(state, found).exit_code == code
    as_json = beside(state, found, "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["state"]) == (code, state_of_it)


def test_without_an_agent_status_ends_with_4_and_says_what_to_do(state: Path) -> None:
    found = run(status)
    assert (found.exit_code, found.stdout, f"No agent runs on {state}" in found.stderr) == (4, "", True)


def test_an_agent_of_another_version_is_reported_as_an_error(state: Path) -> None:
    found = beside(state, {"state": "ready"})
    assert (found.exit_code, "an agent of another version answers" in found.stderr) == (1, True)


@pytest.mark.parametrize("command", [status, commands, support_bundle])
def test_a_file_of_settings_that_was_named_and_is_missing_ends_with_2(state: Path, command: Any) -> None:
    found = run(command, "--env-file", "nowhere.env")
    assert (found.exit_code, "--env-file: there is no file nowhere.env" in found.stderr) == (2, True)


# --- commands ---


def test_commands_are_listed_from_the_journal_whether_or_not_an_agent_runs(journal: Journal) -> None:
    admitted(journal, "a", "b")
    journal.finish(outcome("b"))
    found = json.loads(run(commands, "--json").stdout)["commands"]
    assert {one["id"]: one["state"] for one in found} == {"a": "admitted", "b": "finished"}
    only = json.loads(run(commands, "--json", "--state", "admitted").stdout)["commands"]
    assert [one["id"] for one in only] == ["a"]
    assert len(json.loads(run(commands, "--json", "--limit", "1").stdout)["commands"]) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [((), "The journal has no commands yet."), (("--failed",), "No command matches."), (("--host", "h"), "No command matches.")],
)
def test_an_empty_list_says_whether_the_filter_or_the_journal_is_why(journal: Journal, args: tuple[str, ...], words: str) -> None:
    assert run(commands, *args).stdout == f"{words}\n"


def test_one_command_is_shown_by_the_beginning_of_its_id_and_not_if_several_begin_so(journal: Journal) -> None:
    admitted(journal, "abc-1", "abd-2")
    assert json.loads(run(commands, "show", "abc", "--json").stdout)["id"] == "abc-1"
    assert "id           abc-1" in run(commands, "show", "abc-1").stdout
    for unclear in ("ab", "x"):
        found = run(commands, "show", unclear)
        assert (found.exit_code, f"no command with the id '{unclear}'" in found.stderr) == (1, True)


@pytest.mark.parametrize("args", [(), ("show", "a")])
def test_without_a_journal_the_state_directory_is_named_as_the_cure(state: Path, args: tuple[str, ...]) -> None:
    found = run(commands, *args)
    assert (found.exit_code, "Set RELAY_STATE_DIR to the agent's state directory." in found.stderr) == (1, True)


# --- support-bundle ---


def test_a_bundle_is_made_without_a_valid_setting_and_has_no_secret(state: Path, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("JWT", CANARY)
    environment.setenv("https_proxy", f"http://user:{CANARY}@gate.lab.example:3128")
    found = run(support_bundle, "-o", "a.zip", "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["file"] == "a.zip"
    with zipfile.ZipFile("a.zip") as archive:
        assert CANARY.encode() not in b"".join(archive.read(name) for name in archive.namelist())
        assert {one["name"] for one in json.loads(found.stdout)["inside"]} == set(archive.namelist()) - {"README.txt"}


def test_a_bundle_that_cannot_be_written_names_the_option(state: Path) -> None:
    found = run(support_bundle, "-o", "missing/a.zip")
    assert (found.exit_code, "choose another file with -o" in found.stderr) == (1, True)
