"""Debian's Chromium as the tests of the pages drive it: which of its programs, and how it starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

# The one without windows takes half the processor time.
_PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_CHROMIUM = next((path for name in _PROGRAMS if (path := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium-headless-shell")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, until the end of the block."""
    # Chromium's own sandbox needs a user that is not root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=[*arguments, "--disable-dev-shm-usage"])
        yield browser
        browser.close()
