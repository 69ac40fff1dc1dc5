"""Fixtures that the tests of `admin` share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.agent.admin import server
from tests.unit.agent.admin.scenes import Stepped


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    monkeypatch.setattr(server, "LOOP_SECONDS", 0.05)
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    stepped = Stepped(tmp_path)
    yield stepped
    stepped.close()
