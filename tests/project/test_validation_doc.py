"""docs/validation.md traces requirements to tests and report lines that exist, and the changelog says the risk of each version."""

from __future__ import annotations

import re

import pytest

from relay_agent.cli.qualification.checksums import MANIFEST
from relay_agent.cli.qualification.lines import REQUIREMENTS, Result
from tests.pages import ROOT, names, rows, section
from tests.project.test_rule_index import defined

PAGE = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
TABLE = rows(section(PAGE, "Requirements, tests and report lines"), "no.")
NUMBER = re.compile(r"(?:IQ|OQ)-\d\d")


def test_every_requirement_has_a_number_of_its_own_a_text_and_a_test() -> None:
    assert len(TABLE) > 20
    assert [row for row in TABLE if len(row) != 4 or not re.fullmatch(r"[GA]-\d\d", row[0]) or not row[1] or not names(row[2])] == []
    assert len({row[0] for row in TABLE}) == len(TABLE)


def test_every_named_test_exists_exactly_once() -> None:
    named = [name for row in TABLE for name in names(row[2])]
    assert {name: defined()[name] for name in named if defined()[name] != 1} == {}


def test_every_line_of_the_report_has_a_requirement_and_every_named_line_exists() -> None:
    assert {number for row in TABLE for number in NUMBER.findall(row[3])} == set(REQUIREMENTS)
    assert set(NUMBER.findall(PAGE)) <= set(REQUIREMENTS)


def test_every_result_is_explained() -> None:
    assert [names(row[0])[0] for row in rows(section(PAGE, "Read and sign it"), "result")] == list(Result)


def test_the_image_s_manifest_has_the_name_that_the_command_looks_for() -> None:
    assert f'MANIFEST = "{MANIFEST}"' in (ROOT / "docker" / "tools" / "rootfs.py").read_text(encoding="utf-8")
    assert str(MANIFEST) in (ROOT / "docker" / "tools" / "dist.sh").read_text(encoding="utf-8")


VERSIONS = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_in_the_changelog_begins_with_its_risk_and_what_to_repeat(version: str) -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition(f"## [{version}]")[2].partition("\n## [")[0]
    risk = text.partition("\n### Risk\n")[2].partition("\n### ")[0]
    assert text.index("\n### ") == text.index("\n### Risk\n")
    found = re.match(r"\n\*\*(High|Medium|Low)\*\*: .+", risk)
    assert found is not None and "epeat" in risk
    levels = [row[0] for row in rows(section(PAGE, "When to qualify again"), "risk")]
    assert found[1].lower() in levels and levels == ["high", "medium", "low"]
