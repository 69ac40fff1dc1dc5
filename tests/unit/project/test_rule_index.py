"""Each rule of docs/protocol.md, docs/durability.md and docs/threat-model.md names the tests that hold it, and these exist.

Owns the check of those indexes. What a rule says stands on its page, what a test proves in the test.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import relay_agent

ROOT = Path(relay_agent.__file__).resolve().parents[1]
TESTS = ROOT / "tests"
DOCS = ROOT / "docs"
INDEX = "Which test holds which rule"
INDEXED = ["protocol.md", "durability.md"]


@cache
def defined() -> Counter[str]:
    """How often each test function is defined in the suite, in whatever directory."""
    files = TESTS.rglob("test_*.py")
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in files)
    return Counter(
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def named(text: str) -> list[str]:
    """The test functions that a text names; a file's name ends differently."""
    return re.findall(r"`(test_\w+)`", text)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def headings(page: str) -> list[str]:
    """The sections of a page, but for the index itself."""
    outside = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return [heading for heading in re.findall(r"^##+ (.+)$", outside, re.MULTILINE) if heading != INDEX]


def index(page: str) -> list[tuple[str, str, list[str]]]:
    """The rows of a page's index: the section's anchor, the rule, the tests."""
    _, _, section = page.partition(f"\n## {INDEX}\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| [")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row for row in cells if len(row) != 3] == []
    return [(section_of(link), rule, named(tests)) for link, rule, tests in cells]


def section_of(link: str) -> str:
    found = re.fullmatch(r"\[[^]]+\]\(#([^)]+)\)", link)
    assert found is not None, f"not a link to a section: {link}"
    return found[1]


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [*INDEXED, "threat-model.md"])
def test_every_named_test_exists_exactly_once(page: str) -> None:
    tests = named(text_of(page))
    assert len(tests) >= 12
    assert {test: defined()[test] for test in tests if defined()[test] != 1} == {}


@pytest.mark.parametrize("page", INDEXED)
def test_every_section_has_rules_in_the_index_and_the_index_no_other_section(page: str) -> None:
    text = text_of(page)
    assert {section for section, _, _ in index(text)} == {anchor(heading) for heading in headings(text)}


@pytest.mark.parametrize("page", INDEXED)
def test_no_row_of_the_index_is_empty(page: str) -> None:
    assert [(section, rule) for section, rule, tests in index(text_of(page)) if not rule or not tests] == []


def test_every_promise_of_the_threat_model_names_a_test() -> None:
    _, _, table = text_of("threat-model.md").partition("| promise |")
    promises = table.partition("\n\n")[0].splitlines()[2:]
    assert len(promises) >= 8
    assert [line for line in promises if not named(line)] == []
