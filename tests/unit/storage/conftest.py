"""Fixtures that the tests of `storage` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay_agent.storage.journal import Journal
from tests.unit.storage.damaged import Layout, layout
from tests.unit.storage.scenes import Time


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def opened(path: Path, time: Time) -> Iterator[Callable[[], Journal]]:
    """Open the journal as often as called; each call closes the one before, and the teardown the last."""
    last: list[Journal] = []

    def again() -> Journal:
        for journal in last:
            journal.close()
        last[:] = [Journal(path, time.clock())]
        return last[0]

    yield again
    for journal in last:
        journal.close()


@pytest.fixture
def journal(opened: Callable[[], Journal]) -> Journal:
    return opened()


@pytest.fixture(scope="session")
def in_file(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Everything in the database, nothing in the log."""
    return layout(tmp_path_factory.mktemp("file"), in_log=False)


@pytest.fixture(scope="session")
def in_log(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The admissions in the database, everything since then in the log."""
    return layout(tmp_path_factory.mktemp("log"), in_log=True)
