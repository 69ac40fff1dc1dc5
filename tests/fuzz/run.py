"""Runs one harness in a process of its own, and reads from libFuzzer's output what came of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.harness import Harness

LONGEST_INPUT_SECONDS = 10
"""After which one input counts as a hang. Each takes milliseconds."""
MOST_MEMORY_MB = 1024
_GRACE_SECONDS = 120
_PROGRESS = re.compile(r"^#\d+\s+[A-Z]+\s+cov: (\d+)", re.MULTILINE)
_EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s+(\d+)", re.MULTILINE)
_ADDED = re.compile(r"^stat::new_units_added:\s+(\d+)", re.MULTILINE)
_NOISE = re.compile(r"#\d|INFO|NEW_FUNC|stat::|MS: |0x|WARNING: Failed|artifact_prefix|Base64:|Dictionary|SUMMARY|\d+ [\d.]+s")
_TAIL = 4000


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one harness. `coverage` counts branches, with the seeds alone and at the end; `data` is the input that fails."""

    name: str
    executions: int
    coverage: tuple[int, int]
    added: int
    failed: bool
    data: bytes | None = None
    output: str = ""

    @property
    def line(self) -> str:
        """The run in one line."""
        before, after = self.coverage
        verdict = "a finding" if self.failed else "nothing found"
        return f"{self.name}: {self.executions:,} executions, coverage {before} to {after}, {self.added} new inputs: {verdict}"

    @property
    def finding(self) -> str:
        """How it failed, and the input as a line of `found.py`."""
        literal = "" if self.data is None else f"\n    ({self.name!r}, {self.data!r}),"
        return f"--- {self.name}\n{self.output[-_TAIL:].strip()}{literal}"


def fuzz(harness: Harness, seconds: int, seed: int, corpus: Path) -> Run:
    """Fuzz a harness for so many seconds, beside what it takes to load it."""
    kept = corpus / harness.name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        seeds, crashes = Path(place) / "seeds", Path(place) / "crashes"
        seeds.mkdir()
        crashes.mkdir()
        for number, data in enumerate(harness.seeds()):
            (seeds / str(number)).write_bytes(data)
        limits = [f"-timeout={LONGEST_INPUT_SECONDS}", f"-rss_limit_mb={MOST_MEMORY_MB}", f"-max_len={harness.longest}"]
        options = [f"-max_total_time={seconds}", f"-seed={seed}", *limits, f"-artifact_prefix={crashes}/", "-print_final_stats=1"]
        command = [sys.executable, "-m", "tests.fuzz.process", harness.run.__module__, harness.name, *options, str(kept), str(seeds)]
        status, output = _called(command, seconds + _GRACE_SECONDS)
        inputs = [path.read_bytes() for path in sorted(crashes.iterdir())]
    return read(harness.name, status, output, inputs[0] if inputs else None)


def _called(command: list[str], seconds: int) -> tuple[int, str]:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as hung:
        return 1, f"it did not end\n{(hung.stderr or b'').decode(errors='replace')}"
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def read(name: str, status: int, output: str, data: bytes | None) -> Run:
    """Read libFuzzer's output."""
    covered = [int(each) for each in _PROGRESS.findall(output)] or [0]
    executions, added = (int(found[1]) if (found := pattern.search(output)) else 0 for pattern in (_EXECUTIONS, _ADDED))
    shown = "\n".join(line for line in output.splitlines() if line.strip() and not _NOISE.match(line.strip()))
    return Run(name, executions, (covered[0], covered[-1]), added, status != 0, data, shown)
