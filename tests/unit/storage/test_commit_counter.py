"""A truncated or missing log is detected by the number of commits in the file beside the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.storage import commit_counter
from tests.unit.storage.damaged import Layout, check, layout, start


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_truncated_or_missing_log_is_found_by_the_commit_counter(tmp_path: Path, share: float) -> None:
    source = tmp_path / "source"
    source.mkdir()
    whole = layout(source, in_log=True)
    frame = 24 + 4096
    length = 32 + int((len(whole.wal) - 32) // frame * share) * frame if share else 0
    path = Layout(whole.db, whole.wal[:length]).put(tmp_path)
    commit_counter.counter_path(path).write_bytes(commit_counter.counter_path(source / "journal.db").read_bytes())
    found = start(path)
    check(found)
    assert found.damage is not None
    assert not found.damage.complete
    assert start(path).damage is None
