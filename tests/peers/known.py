"""The accepted differences, read from the table in docs/http-truth.md that lists and explains them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tests.peers.compare import Verdict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "http-truth.md"
HEADING = "## Differences from curl and requests"
_FIRST = "| id |"
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Known:
    """One class of differences: peers with one of these traits, for which the agent gives this, in these aspects."""

    id: str
    traits: tuple[str, ...]
    """Patterns; ones joined by `+` must all be found."""
    gives: tuple[str, ...]
    aspects: frozenset[str]
    why: str

    def covers(self, verdict: Verdict, aspect: str) -> bool:
        """Whether it explains that the outcomes of this peer differ in this aspect."""
        return aspect in self.aspects and verdict.gives in self.gives and any(has(verdict.script.traits, each) for each in self.traits)


def has(traits: frozenset[str], pattern: str) -> bool:
    """Whether all parts of a pattern are found among the traits."""
    return all(any(fnmatchcase(trait, part) for trait in traits) for part in pattern.split("+"))


def read(page: Path = PAGE) -> list[Known]:
    """Read the table."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(HEADING))
    first = next(number for number in range(start, len(lines)) if lines[number].startswith(_FIRST))
    found = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        (name,) = _CODE.findall(cells[0])
        traits, gives, aspects = (tuple(_CODE.findall(cell)) for cell in cells[1:4])
        found.append(Known(name, traits, gives, frozenset(aspects), cells[4]))
    return found


def explaining(verdict: Verdict, table: Sequence[Known]) -> list[str] | None:
    """The ids that together explain all aspects; None where one of them is unexplained."""
    found: list[str] = []
    for aspect in sorted(verdict.aspects):
        row = next((row for row in table if row.covers(verdict, aspect)), None)
        if row is None:
            return None
        found.append(row.id)
    return found
