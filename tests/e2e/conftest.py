"""A browser for the tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for a file's tests: while it runs, nothing else in this process can have an event loop."""
    with chromium() as running:
        yield running
