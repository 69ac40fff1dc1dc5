"""The command `qualify`: its files, output and exit code. What it tests is in tests/unit/cli/qualification and tests/integration."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay_agent.cli import qualify as module
from relay_agent.cli.main import main
from relay_agent.cli.qualification.lines import Line, judged
from relay_agent.cli.qualification.report import Report
from tests.unit.cli.qualification.scenes import SUBJECT

GOOD = judged("IQ-01", "1", "1", good=True)
BAD = judged("IQ-02", "3.11 or later", "3.9", good=False, remark="update it")


@pytest.fixture
def qualified(environment: pytest.MonkeyPatch) -> list[Line]:
    """The lines that the next qualification finds."""
    lines: list[Line] = []
    environment.setattr(module, "run_qualification", lambda *_args, **_more: Report(SUBJECT, tuple(lines)))
    return lines


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["qualify", *arguments])


def test_it_exits_with_0_if_all_is_as_expected_and_with_1_otherwise(qualified: list[Line]) -> None:
    qualified.append(GOOD)
    done = run()
    assert done.exit_code == 0
    assert "1 lines: 1 pass. The installation is as expected." in done.output
    qualified.append(BAD)
    done = run()
    assert done.exit_code == 1
    for text in ("IQ-02", "3.11 or later", "3.9", "update it", "not as expected"):
        assert text in done.output
    assert "IQ-01" not in done.output


def test_it_writes_both_files_for_their_owner_only_and_the_page_shows_the_sha256_of_the_json(qualified: list[Line], tmp_path: Path) -> None:
    qualified.append(GOOD)
    assert run("-o", "new/reports").exit_code == 0
    page, data = sorted((tmp_path / "new/reports").iterdir())
    assert (page.suffix, data.suffix) == (".html", ".json")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (page, data)} == {0o600}
    assert hashlib.sha256(data.read_bytes()).hexdigest() in page.read_text(encoding="utf-8")
    assert data.name in page.read_text(encoding="utf-8")


def test_json_prints_what_the_file_holds(qualified: list[Line], tmp_path: Path) -> None:
    qualified += [GOOD, BAD]
    done = run("--json")
    (data,) = tmp_path.glob("*.json")
    assert done.exit_code == 1
    assert json.loads(done.output) == json.loads(data.read_text(encoding="utf-8"))


def test_a_report_that_cannot_be_written_ends_with_1_and_says_what_to_do(qualified: list[Line], tmp_path: Path) -> None:
    qualified.append(GOOD)
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = run("-o", "file/below")
    assert (done.exit_code, "choose another directory with -o" in done.output) == (1, True)
