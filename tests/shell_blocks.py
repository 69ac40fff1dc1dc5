"""The `sh` blocks of a page: the commands that an administrator is to type, and which of them are the reader's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

OWN = "# yours"
"""Ends a line that needs the reader's hand or decision."""
SYSTEMD = re.compile(r"\b(systemctl|journalctl|timedatectl)\b")
PLACEHOLDER = re.compile(r"<[a-z][a-z-]*>")


@dataclass(frozen=True, slots=True)
class Block:
    """One block: the heading above it, and its lines, each with those that continue it."""

    section: str
    lines: tuple[str, ...]

    @property
    def of_systemd(self) -> bool:
        """Whether it needs a machine whose first process is systemd."""
        return any(SYSTEMD.search(line) for line in self.lines)


def own(line: str) -> bool:
    """Whether a line is the reader's to type, and no test's."""
    return line.endswith(OWN)


def shell_blocks(text: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    for found in re.finditer(r"^(?:#+ (?P<title>[^\n]+)|```(?P<kind>\w*)\n(?P<body>.*?)^```)$", text, re.MULTILINE | re.DOTALL):
        if found["title"]:
            section = found["title"]
        elif found["kind"] == "sh":
            joined = re.sub(r"(\\|\|)\n\s*", lambda match: "" if match[1] == "\\" else "| ", found["body"])
            yield Block(section, tuple(joined.splitlines()))
