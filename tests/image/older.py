"""An older agent, built from this repository's history."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.image.engine import ROOT

SCHEMA = "relay_agent/storage/schema.py"


def git(*arguments: str) -> bytes:
    """What git says."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False).stdout


def schema_of(commit: str) -> int:
    """The version of the journal that the agent of a commit writes."""
    found = re.search(rb"^SCHEMA_VERSION = (\d+)$", git("show", f"{commit}:{SCHEMA}"), flags=re.MULTILINE)
    return int(found[1]) if found else 0


def older_package() -> tuple[Path, int]:
    """The package as it was before the journal's schema last changed, and that schema's version."""
    now = schema_of("HEAD")
    for commit in git("log", "--format=%H", "--", SCHEMA).decode().split():
        before = f"{commit}^"
        if 0 < schema_of(before) < now:
            place = Path(tempfile.mkdtemp(prefix="relay-older-"))
            with tarfile.open(fileobj=io.BytesIO(git("archive", before, "relay_agent"))) as archive:
                archive.extractall(place, filter="data")
            place.chmod(0o755)
            entry = place / "relay_agent" / "cli" / "entry.py"
            if not entry.exists():  # The newer image's console script starts it by this name.
                entry.write_text("from relay_agent.cli.main import main as main\n", encoding="utf-8")
            return place / "relay_agent", schema_of(before)
    pytest.skip("the history of this checkout does not go back to an older schema")
