"""Fixtures for every kind of test.

The sandbox is started once per test run: tests share it, and stay independent by making agents of their own (`add_agent`).
"""

from __future__ import annotations

import faulthandler
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from tests import agents, botocore_data
from tests.examples import USUAL, examples
from tests.forked import Nursery

# The time of an example depends on the machine only.
settings.register_profile("relay-agent", deadline=None, max_examples=examples(USUAL))
settings.load_profile("relay-agent")

agents.nursery = Nursery()
botocore_data.share()

IN_MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 * 1024**3
SPARE_SECONDS = 20.0
"""How much longer than its timeout a test may take to end, at least half of it."""


def _keep_files_in_memory() -> None:
    """Make temporary files where a commit does not wait for a disk, if there is room; processes that tests start inherit the place."""
    if "TMPDIR" in os.environ or not os.access(IN_MEMORY, os.W_OK):
        return
    place = os.statvfs(IN_MEMORY)
    if place.f_bavail * place.f_frsize >= ENOUGH_BYTES and not place.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(IN_MEMORY)
        tempfile.tempdir = None


_keep_files_in_memory()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the image's tests alone unless they are asked for: they need a built image and an engine (`make test-image`)."""
    asked = any("tests/image" in str(argument) for argument in config.invocation_params.args)
    return True if collection_path == Path(__file__).with_name("image") and not asked else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the directories whose files take longest, so that short ones fill the end."""
    order = {name: place for place, name in enumerate(("e2e", "integration", "contract", "project", "unit"))}
    items.sort(key=lambda item: order.get(item.nodeid.split("/")[1], len(order)))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the thousands of tests that have been collected: they stay to the end."""
    gc.freeze()


class _Hangs:
    """Ends the process, and shows each thread's stack, where a test does not end at its timeout: the exception may wait for a thread."""

    def __init__(self, stderr: int) -> None:
        self._stderr = stderr
        self._armed = (0.0, 0.0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        marker, config = item.get_closest_marker("timeout"), item.config
        # Where pytest-timeout looks, in its order; 0 is no limit.
        given = (marker and marker.args[0], config.getoption("timeout"), os.environ.get("PYTEST_TIMEOUT"), config.getini("timeout"))
        seconds = float(next(each for each in given if each is not None))
        if not seconds:
            self._disarm()
            return
        limit, now = seconds + SPARE_SECONDS, time.monotonic()
        # Arming starts a thread: that is not worth its time for each of the short tests.
        if self._armed[0] != limit or now - self._armed[1] > SPARE_SECONDS / 2:
            faulthandler.dump_traceback_later(limit, exit=True, file=self._stderr)
            self._armed = (limit, now)

    def pytest_enter_pdb(self) -> None:
        self._disarm()

    def pytest_unconfigure(self) -> None:
        self._disarm()

    def _disarm(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._armed = (0.0, 0.0)


def pytest_configure(config: pytest.Config) -> None:
    """Begin to watch for hanging tests."""
    config.pluginmanager.register(_Hangs(os.dup(2)))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A platform, for the whole run."""
    with Sandbox(min_ttl_seconds=1) as running:
        yield running


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Sandbox]:
    """A platform whose queue soon hands out again what was not acknowledged."""
    with Sandbox(visibility_timeout=2) as running_sandbox:
        yield running_sandbox


@pytest.fixture(scope="session")
def demo_target() -> Iterator[DemoTarget]:
    """A target, for the whole run."""
    with DemoTarget() as running:
        yield running


@pytest.fixture
def agent_id(sandbox: Sandbox, request: pytest.FixtureRequest) -> str:
    """An agent of the test's own."""
    return sandbox.add_agent(request.node.name[:60])
