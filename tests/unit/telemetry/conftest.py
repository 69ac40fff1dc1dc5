"""Fixtures that the tests of `telemetry` share."""

from __future__ import annotations

import pytest

from tests.unit.telemetry.scenes import Written


@pytest.fixture
def written() -> Written:
    return Written()
