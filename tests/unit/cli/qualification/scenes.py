"""A subject and a distribution: the scenes of the tests of `qualification`."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

from relay_agent.cli.qualification.report import Subject

SUBJECT = Subject(
    report_id="20261129T013000Z-0a1b2c3d",
    made=datetime(2026, 11, 29, 1, 30, tzinfo=UTC),
    host="lab-host",
    agent_version="v9.9.9",
    agent_id="9b9f275c-a60d-454f-8c6c-1ea094e3fd38",
    organisation="acme",
    api_target="https://api.example",
    state_directory="/var/lib/relay-agent",
    user="10001 (relay-agent)",
)


def installed(site: Path, *, editable: bool = False, record: bool = True) -> Distribution:
    """A package of two modules, as pip installs it."""
    files = {"package_a/__init__.py": b"", "package_a/module.py": b"x = 1\n", "package_a-1.0.dist-info/METADATA": b"Name: package-a\n"}
    lines = []
    for name, content in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(content)}")
    info = site / "package_a-1.0.dist-info"
    (info / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": editable}}), encoding="utf-8")
    if record:
        (info / "RECORD").write_text("\n".join([*lines, "package_a-1.0.dist-info/RECORD,,"]) + "\n", encoding="utf-8")
    return PathDistribution(info)
