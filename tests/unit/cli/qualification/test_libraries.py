"""Which libraries the agent needs, in which versions."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from relay_agent.cli.qualification.libraries import DISTRIBUTION, Library, needed, pinned, release, required

REQUIREMENTS = [
    "requests>=2.32.5",
    'brotli>=1.2.0; extra == "agent"',
    'backports.zstd>=1.0.0; python_version < "3.14" and extra == "agent"',
    "tdp-relay-agent[agent]; extra == 'windows-auth'",
    "pyspnego>=0.12.0; extra == 'windows-auth'",
    "pytest>=8.3.0; extra == 'test'",
    "older (>=1.0) ; (python_version < '3.12') and extra == 'agent'",
]


def test_the_agents_own_libraries_are_those_of_its_extras_for_this_python() -> None:
    found = required(REQUIREMENTS, (3, 13))
    assert [(one.name, one.lowest, one.optional) for one in found] == [
        ("requests", "2.32.5", False),
        ("brotli", "1.2.0", False),
        ("backports.zstd", "1.0.0", False),
        ("pyspnego", "0.12.0", True),
    ]
    assert "older" in [one.name for one in required(REQUIREMENTS, (3, 11))]
    assert "backports.zstd" not in [one.name for one in required(REQUIREMENTS, (3, 14))]


def test_an_optional_library_is_needed_only_where_it_is_installed() -> None:
    found = required(REQUIREMENTS, (3, 13))
    assert [one.name for one in needed(found, lambda name: None)] == ["backports.zstd", "brotli", "requests"]
    assert "pyspnego" in [one.name for one in needed(found, lambda name: "1")]


def test_a_requirement_in_another_form_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        required(["requests<3"])


def test_every_requirement_of_this_package_can_be_read_and_is_met_here() -> None:
    libraries = needed(required(metadata.requires(DISTRIBUTION) or []))
    assert len(libraries) >= 18
    assert [one.name for one in libraries if not one.accepts(metadata.version(one.name))] == []


def test_a_library_that_is_too_old_or_missing_fails() -> None:
    library = Library("requests", "2.32.5")
    assert [library.accepts(version) for version in ("2.32.5", "2.33", "3.0rc1", "2.32.4", "2.9", None)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert library.expected == "2.32.5 or later"


def test_the_image_s_bill_of_materials_pins_each_python_package(tmp_path: Path) -> None:
    bill = tmp_path / "bill.json"
    components = [{"purl": "pkg:pypi/requests@2.32.5"}, {"purl": "pkg:deb/debian/libc6@2.41?arch=amd64"}, {}]
    bill.write_text(json.dumps({"components": components}), encoding="utf-8")
    (library,) = pinned(bill)
    assert library.expected == "2.32.5, as in the bill of materials"
    assert [library.accepts(version) for version in ("2.32.5", "2.32.6", None)] == [True, False, False]


def test_releases_are_compared_by_their_numbers() -> None:
    assert release("10.0") > release("9.12") and release("2.0") == release("2") and release("nothing") == (0,)
