"""Fixtures that the tests of `config` share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relay_agent.config.loading import load_settings
from relay_agent.config.settings import Settings
from relay_agent.core.errors import ConfigurationError
from tests.unit.config.scenes import REQUIRED, Load


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, env_file: Path) -> Load:
    """Load settings from these variables alone (None takes a required one away), and `.env` where it was written."""
    for name in list(os.environ):
        monkeypatch.delenv(name)

    def loaded(**given: str | None) -> Settings:
        for name, value in {**REQUIRED, **given}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return load_settings(env_file)

    return loaded


@pytest.fixture
def problems(load: Load) -> Callable[..., list[str]]:
    def found(**given: str | None) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            load(**given)
        return caught.value.problems

    return found
