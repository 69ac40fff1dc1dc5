"""An environment in which `run` can start."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.agent.signals import STOP
from relay_agent.core import failpoints
from tests.unit.config.scenes import REQUIRED


@pytest.fixture
def configured(environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Everything that `run` needs, and no trace of it afterwards."""
    for name, value in {**REQUIRED, "RELAY_STATE_DIR": str(tmp_path / "state"), "RELAY_ADMIN_ADDR": "off"}.items():
        environment.setenv(name, value)
    before = {number: signal.getsignal(number) for number in STOP}
    yield environment
    failpoints.arm(None)
    for number, handler in before.items():
        signal.signal(number, handler)
