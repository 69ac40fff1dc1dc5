"""Each rule of docs/protocol.md, docs/durability.md and docs/threat-model.md names the tests that hold it, and these exist.

Owns the check of those indexes. What a rule says stands on its page, what a test proves in the test.
"""

from __future__ import annotations

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
    texts = (path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    return Counter(name for text in texts for name in re.findall(r"^ *def (test_\w+)\(", text, re.MULTILINE))


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


# --- the threat model: a section for each who, with a table of promises ---


def adversaries() -> dict[str, str]:
    """The sections of the threat model that are about somebody, by their headings: all but that of foreign text, which comes last."""
    sections = re.split(r"^## (.+)\n", text_of("threat-model.md"), flags=re.MULTILINE)[1:]
    found = dict(zip(sections[::2], sections[1::2], strict=True))
    assert list(found)[-1] == "Foreign text and its bounds"
    return dict(list(found.items())[:-1])


def table(text: str, head: str) -> list[list[str]]:
    """The cells of a section's one table that begins with these words."""
    before, *after = text.split(f"\n| {head} |")
    assert len(after) == 1, f"{len(after)} tables of {head} in: {before[:200]}"
    lines = after[0].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines]


def test_the_first_table_of_the_threat_model_leads_to_each_section_in_order() -> None:
    first = text_of("threat-model.md").partition("\n## ")[0]
    rows = table(first, "who")
    assert [row for row in rows if len(row) != 3 or not all(row)] == []
    leads = [re.findall(r"\]\(#([^)]+)\)", row[0])[0] for row in rows]
    assert leads == [anchor(heading) for heading in adversaries()]


@pytest.mark.parametrize("who", adversaries())
def test_every_promise_of_the_threat_model_names_how_it_is_kept_and_a_test(who: str) -> None:
    rows = table(adversaries()[who], "promise")
    assert len(rows) >= 5
    assert [row for row in rows if len(row) != 3 or not all(row) or not named(row[2])] == []


@pytest.mark.parametrize("who", adversaries())
def test_every_section_of_the_threat_model_says_what_somebody_can_do_and_what_is_not_promised(who: str) -> None:
    parts = re.findall(r"^### (What .+)$", adversaries()[who], re.MULTILINE)
    assert [part.startswith(words) for part, words in zip(parts, ("What", "What is promised", "What is not promised"), strict=True)] == [
        True
    ] * 3
