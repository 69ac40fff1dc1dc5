"""Fixtures that unit tests of several packages share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.config.settings import variables
from tests.sender_side import Platform, serving


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which nothing of ours is set, in a directory without `.env`."""
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
        monkeypatch.delenv(variable.name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.fixture
def served() -> Iterator[tuple[Platform, str]]:
    """A platform for a sender, and its address."""
    platform = Platform()
    with serving(platform) as port:
        yield platform, f"http://127.0.0.1:{port}"


@pytest.fixture
def platform(served: tuple[Platform, str]) -> Platform:
    return served[0]
