"""Fixtures of the contract tests: a relay, closed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.relaying import Relay


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """Run commands: `relay(payload, **options)` gives the body of PROTOCOL §4 and `status`."""
    runner = Relay(tmp_path)
    yield runner
    runner.close()
