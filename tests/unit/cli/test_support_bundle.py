"""The file for the vendor's support: it is made whatever is broken, redacted as a whole, and for its owner only."""

from __future__ import annotations

import json
import stat
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from relay_agent.agent.admin.server import Admin
from relay_agent.cli.support_bundle import Part, collect, write
from relay_agent.core.clock import Clock
from relay_agent.storage.journal import Journal
from tests.unit.agent.admin.scenes import Known, looping
from tests.unit.storage.scenes import admitted

CANARY = "canary-4f"
NAMES = [
    "checks.json",
    "status.json",
    "metrics.txt",
    "log.jsonl",
    "malformed.jsonl",
    "configuration.json",
    "commands.json",
    "journal.json",
    "versions.json",
]


def collected(directory: Path, **more: Any) -> dict[str, str]:
    parts = collect(
        directory,
        [{"name": "JWT", "value": CANARY}],
        more.get("checks", lambda: {"checks": [CANARY]}),
        lambda text: text.replace(CANARY, "***"),
    )
    return {part.name: part.text for part in parts}


def test_where_nothing_runs_and_nothing_can_be_read_every_part_says_why(tmp_path: Path) -> None:
    found = collected(tmp_path)
    assert list(found) == NAMES
    assert {found[name] for name in NAMES[1:4]} == {"no agent runs on this state directory\n"}
    assert "error" in json.loads(found["commands.json"]) and "error" in json.loads(found["journal.json"])
    assert json.loads(found["versions.json"])["libraries"]["requests"][0].isdigit()


def test_secrets_are_removed_from_every_part(tmp_path: Path) -> None:
    found = collected(tmp_path)
    assert CANARY not in "".join(found.values())
    assert "***" in found["checks.json"] and "***" in found["configuration.json"]


def test_checks_that_fail_leave_the_other_parts_and_their_error_is_shown_by_its_type(tmp_path: Path) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("with a secret in it")

    found = collected(tmp_path, checks=broken)
    assert json.loads(found["checks.json"]) == {"error": "RuntimeError"}
    assert list(found) == NAMES


def test_commands_and_files_of_the_state_directory_are_listed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", Clock())
    admitted(journal, "a")
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "b.gz").write_bytes(b"xyz")
    found = collected(tmp_path)
    journal.close()
    assert [command["id"] for command in json.loads(found["commands.json"])["commands"]] == ["a"]
    listed = json.loads(found["journal.json"])
    assert (listed["commands"]["admitted"], listed["files"]["spool/b.gz"]) == (1, 3)


def test_a_running_agent_s_pages_are_included(tmp_path: Path) -> None:
    admin = Admin(
        Known(),
        lambda: b"a_metric 1\n",
        None,
        tmp_path / "admin.sock",
        cast("Any", None),
        {"/log": lambda: f"a line with {CANARY}\n", "/malformed": lambda: "odd\n"},
    )
    with looping(admin):
        found = collected(tmp_path)
    admin.close()
    assert (found["metrics.txt"], found["log.jsonl"]) == ("a_metric 1\n", "a line with ***\n")
    assert json.loads(found["status.json"]) == {"commands": []}


def test_the_zip_has_every_part_and_a_list_of_them_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write(path, [Part("a.txt", "about a", "text \u00e4")], datetime(2026, 3, 1, 12, tzinfo=UTC))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["README.txt", "a.txt"]
        assert archive.read("a.txt").decode() == "text \u00e4"
        readme = archive.read("README.txt").decode()
    assert "a.txt" in readme and "about a" in readme and "2026-03-01 12:00:00 UTC" in readme
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_of_that_name_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"x" * 10_000)
    write(path, [], datetime(2026, 3, 1, tzinfo=UTC))
    assert zipfile.is_zipfile(path)
