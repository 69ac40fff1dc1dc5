"""The fixture that comes with the package, in a test run of somebody else's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEST = """
import pytest, requests

def test_through(relay_session):
    with pytest.raises(requests.ConnectionError, match="^ECONNREFUSED: "):
        relay_session.get("http://127.0.0.1:9/")

def test_nothing_of_the_agent_is_loaded_without_it():
    import sys
    assert "relay_agent.pipelines.pytest_plugin" in sys.modules
"""


def test_the_fixture_is_a_session_through_an_agent_of_this_process(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST)
    arguments = ["-p", "no:cacheprovider", "-q", "-W", "error"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout
