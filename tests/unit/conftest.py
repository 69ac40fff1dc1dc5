"""Fixtures that unit tests of several packages share."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.config.settings import variables


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which nothing of ours is set, in a directory without `.env`."""
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
        monkeypatch.delenv(variable.name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch
