"""The project's pages, split into sections, tables and blocks, for the tests that compare them with the code."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import click

from relay_agent.cli.main import main


def inline(text: str) -> list[str]:
    """The inline code of a page, its fenced blocks left out; in a table a bar is escaped."""
    return [code.replace("\\|", "|") for code in names(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))]


def parse(args: list[str]) -> None:
    """Parse the words after `relay-agent` as click would, with every option and value; nothing runs."""
    command: click.Command = main
    context = main.make_context("relay-agent", list(args))
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)


ROOT = Path(__file__).resolve().parents[1]


PACKAGE = ROOT / "relay_agent"


README = (ROOT / "README.md").read_text(encoding="utf-8")


PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


DURABILITY = (ROOT / "docs" / "durability.md").read_text(encoding="utf-8")


DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


SENDERS = (ROOT / "docs" / "senders.md").read_text(encoding="utf-8")


OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


LOGS = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def section(text: str, title: str) -> str:
    """What stands under a heading, down to the next of its level or above."""
    found: list[str] = []
    level, fenced = 0, False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        marks = 0 if fenced else len(line) - len(line.lstrip("#"))
        if level and 0 < marks <= level:
            break
        if level:
            found.append(line)
        elif marks and line[marks:].strip() == title:
            level = marks
    assert found, f"no section {title}"
    return "\n".join(found) + "\n"


def rows(text: str, first_heading: str) -> list[list[str]]:
    """The cells of the first table whose first heading is this; an escaped bar does not end a cell."""
    lines = text[text.index(f"| {first_heading} |") :].splitlines()[2:]
    table = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def names(text: str) -> list[str]:
    """What a cell has in backticks."""
    return re.findall(r"`([^`]+)`", text)
