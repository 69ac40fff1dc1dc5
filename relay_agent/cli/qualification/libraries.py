"""Which libraries the agent needs, in which versions: the image's bill of materials pins each, a package's metadata gives the lowest.

Owns how both are read. It must not decide what a difference means.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "tdp-relay-agent"
BILL = Path("/usr/share/relay-agent/sbom.cdx.json")
"""The image's bill of materials (docker/tools/packages.py)."""
EXTRAS = ("agent", "windows-auth")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*\(?>=\s*([0-9][0-9.]*)\)?\s*(?:;(.*))?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([a-z-]+)['\"]")
_PYTHON = re.compile(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]")
_PYPI = re.compile(r"pkg:pypi/([^@]+)@(.+)")
FindVersion = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Library:
    """A library that is needed: `exactly` in this version, or in `lowest` or a later one."""

    name: str
    lowest: str | None = None
    exactly: str | None = None
    optional: bool = False
    """Whether the agent works without it: it comes with an extra that is not always installed."""

    @property
    def expected(self) -> str:
        """The version that is expected, for people."""
        return f"{self.exactly}, as in the bill of materials" if self.exactly else f"{self.lowest} or later"

    def accepts(self, version: str | None) -> bool:
        """Return whether an installed version is as expected; None is one that is not installed."""
        if version is None:
            return False
        return version == self.exactly if self.exactly else release(version) >= release(self.lowest or "0")


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pinned(bill: Path = BILL) -> list[Library]:
    """Return the Python packages of the image's bill of materials, but for the agent's own.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    components = json.loads(bill.read_text(encoding="utf-8"))["components"]
    found = (_PYPI.fullmatch(str(component.get("purl", ""))) for component in components)
    return [Library(match[1], exactly=match[2]) for match in found if match]


def required(requirements: Sequence[str], python: tuple[int, int] | None = None) -> list[Library]:
    """Return the libraries of the agent's own requirements (`Requires-Dist`), those of an optional extra marked.

    Raises:
        ValueError: a requirement is in a form that this cannot read.
    """
    python = python or (sys.version_info[0], sys.version_info[1])
    found: dict[str, Library] = {}
    for text in requirements:
        if re.match(rf"{DISTRIBUTION}\s*\[", text):
            continue  # Another extra of the agent.
        extra = _EXTRA.search(text)
        if extra is not None and extra[1] not in EXTRAS:
            continue
        match = _REQUIREMENT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"the requirement {text!r} cannot be read")
        below = _PYTHON.search(match[3] or "")
        if below is None or python < (int(below[1]), int(below[2])):
            found.setdefault(match[1], Library(match[1], match[2], optional=extra is not None and extra[1] != EXTRAS[0]))
    return list(found.values())


def needed(libraries: Sequence[Library], version: FindVersion = installed_version) -> list[Library]:
    """Return the libraries without optional ones that are not installed, in the order of their names."""
    return sorted((one for one in libraries if not one.optional or version(one.name) is not None), key=lambda one: one.name.lower())


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version's release, without zeros at the end: `2.0rc1` is as `2`."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else [0]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
