"""How the agent grows: with workers, with hosts, with the age of its journal, and over many commands in a row."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from tests.bench.charts import Lines, lines
from tests.bench.comparison import measure, settle, warm_up
from tests.bench.contenders import AGENT, Run
from tests.bench.processes import Target, bare_sqs, target
from tests.bench.results import Say
from tests.bench.works import Load, Maker, Work, gets

WORKERS = (1, 2, 4, 8, 16, 32, 64)
TARGET_MS = (0, 50, 500)
HOSTS = (1, 10, 100, 1000)
COMMANDS = 1000
"""How many one measurement has at most."""
LONGEST_SECONDS = 3.0
"""How long one measurement takes about at most, where targets are slow."""
JOURNAL_ROWS = 1_000_000
KEPT_ROWS = 50_000
"""How many ids of delivered commands the agent keeps; the others it forgets while it works."""
FORGETTING_SECONDS = 180.0
ROW_COMMANDS = 20_000
ROW_STEP = 2_000


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: `x` is what grows, `series` which line it belongs to."""

    curve: str
    series: str
    x: float
    rate: float
    cpu_ms: float
    memory_mb: float
    p50_ms: float
    p99_ms: float
    note: str = ""


def grow(place: Path, curves: list[str], rounds: int, commands: int | None, say: Say) -> list[Point]:
    """Measure the chosen curves so many times, and return the medians; `commands` is how many the long row has."""
    points: list[Point] = []
    with target(place, max(HOSTS)) as peer:
        for curve in curves * rounds:
            for point in CURVES[curve](place, peer, commands or ROW_COMMANDS):
                points.append(point)
                say(
                    f"  {curve} {point.series} {point.x:,.0f}: {point.rate:.1f}/s, {point.cpu_ms:.2f} ms CPU, {point.memory_mb:.0f} MB,"
                    f" p50 {point.p50_ms:.1f}, p99 {point.p99_ms:.1f} ms {point.note}"
                )
    return medians(points)


def medians(points: list[Point]) -> list[Point]:
    """Return one point for all that were measured at the same place, with the medians of its figures."""
    places: dict[tuple[str, str, float], list[Point]] = {}
    for point in points:
        places.setdefault((point.curve, point.series, point.x), []).append(point)
    figures = ("rate", "cpu_ms", "memory_mb", "p50_ms", "p99_ms")
    return [replace(same[-1], **{name: median(getattr(point, name) for point in same) for name in figures}) for same in places.values()]


@contextlib.contextmanager
def _agent(place: Path, peer: Target, **settings: str) -> Iterator[tuple[Maker, Run, float]]:
    """A warm agent; the last value is its time from start to first poll."""
    with bare_sqs() as sqs, AGENT.running(place, sqs, peer, **settings) as run:
        maker = Maker(sqs, peer)
        first_poll = settle(run, AGENT, 0, sqs, 0.0).first_poll_seconds
        warm_up(maker, AGENT)
        yield maker, run, first_poll


def _point(
    curve: str, series: str, x: float, maker: Maker, run: Run, make: Callable[[Maker, int], Load], commands: int, note: str = ""
) -> Point:
    found = measure(maker, run, AGENT, Work(curve, curve, make, commands, 0), commands)
    memory = run.process.resident_bytes() / 1e6
    return Point(curve, series, x, found.rate, found.cpu_ms, memory, found.p50_ms, found.p99_ms, note)


def _workers(place: Path, peer: Target, _commands: int) -> Iterator[Point]:
    """Over a hundred hosts, so that no host's share of the workers counts."""
    for workers in WORKERS:
        settings = {"RELAY_WORKERS": str(workers)}
        with tempfile.TemporaryDirectory(dir=place) as directory, _agent(Path(directory), peer, **settings) as (maker, run, _):
            for ms in TARGET_MS:
                commands = min(COMMANDS, max(2 * workers, int(workers * LONGEST_SECONDS * 1000 / ms))) if ms else COMMANDS
                yield _point("workers", f"{ms} ms", workers, maker, run, _spread(100, ms), commands)


def _spread(hosts: int, ms: int) -> Callable[[Maker, int], Load]:
    path = f"/1k?ms={ms}" if ms else "/1k"
    return lambda maker, commands: gets(maker, commands, path, 1000, host=lambda number: number % hosts)


def _hosts(place: Path, peer: Target, _commands: int) -> Iterator[Point]:
    for hosts in HOSTS:
        with tempfile.TemporaryDirectory(dir=place) as directory, _agent(Path(directory), peer) as (maker, run, _):
            for series, commands in (("first time", COMMANDS), ("again", COMMANDS)):
                yield _point("hosts", series, hosts, maker, run, _spread(hosts, 0), commands)


def _journal(place: Path, peer: Target, _commands: int) -> Iterator[Point]:
    """A new journal, and one to which a million delivered commands were added, which the agent then forgets but for 50,000."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        directory = Path(name)
        with _agent(directory, peer) as (maker, run, first_poll):
            yield _point("journal", "at the start", 0, maker, run, _spread(1, 0), COMMANDS, f"first poll {first_poll:.2f} s")
        journal = directory / "state" / "journal.db"
        _fill(journal, JOURNAL_ROWS)
        note = f"{journal.stat().st_size / 1e6:.0f} MB"
        with _agent(directory, peer) as (maker, run, first_poll):
            note = f"first poll {first_poll:.2f} s, {note}"
            yield _point("journal", "at the start", JOURNAL_ROWS, maker, run, _spread(1, 0), COMMANDS, note)
            began = time.monotonic()
            while _rows(journal) > KEPT_ROWS + COMMANDS and time.monotonic() - began < FORGETTING_SECONDS:
                threading.Event().wait(1.0)
            note = f"{_rows(journal):,} rows, {journal.stat().st_size / 1e6:.0f} MB"
            yield _point("journal", "later", JOURNAL_ROWS, maker, run, _spread(1, 0), COMMANDS, note)


def _fill(journal: Path, rows: int) -> None:
    """Add rows like that of the last delivered command, with ids of their own, while no agent runs."""
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        columns = [str(row[1]) for row in connection.execute("PRAGMA table_info(commands)")]
        chosen = ", ".join({"id": "'old-' || number", "seq": "seq + number"}.get(name, name) for name in columns)
        connection.execute(
            f"INSERT INTO commands WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers LIMIT {rows})"
            f" SELECT {chosen} FROM (SELECT * FROM commands ORDER BY seq DESC LIMIT 1), numbers"
        )


def _rows(journal: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=30)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM commands").fetchone()[0])


def _row(place: Path, peer: Target, commands: int) -> Iterator[Point]:
    """Many commands in a row, with the memory after each step."""
    with tempfile.TemporaryDirectory(dir=place) as directory, _agent(Path(directory), peer) as (maker, run, _):
        for done in range(ROW_STEP, commands + 1, ROW_STEP):
            yield _point("row", "in a row", done, maker, run, _spread(1, 0), ROW_STEP)


CURVES: dict[str, Callable[[Path, Target, int], Iterator[Point]]] = {
    "workers": _workers,
    "hosts": _hosts,
    "journal": _journal,
    "row": _row,
}
"""By name: what grows."""


# --- the page and the plot ---


def table(points: list[Point]) -> list[str]:
    """All points, in Markdown."""
    rows = ["| what grows | | | commands/s | CPU ms | memory MB | p50 ms | p99 ms | |", "|---|---|---|---|---|---|---|---|---|"]
    for point in points:
        figures = f"{point.rate:,.1f} | {point.cpu_ms:.2f} | {point.memory_mb:.0f} | {point.p50_ms:,.1f} | {point.p99_ms:,.1f}"
        rows.append(f"| {point.curve} | {point.series} | {point.x:,.0f} | {figures} | {point.note} |")
    return rows


def plot(points: list[Point]) -> str:
    """A panel of lines for each curve."""
    panels = []
    for curve, title, x, log, value in (
        ("workers", "Commands in a second, by workers and a target's time", "workers", True, lambda point: point.rate),
        ("hosts", "Commands in a second, by hosts (a target that answers at once)", "hosts", True, lambda point: point.rate),
        ("journal", "Commands in a second, by commands in the journal", "commands", False, lambda point: point.rate),
        ("row", "Memory in MB, by commands in a row", "commands", False, lambda point: point.memory_mb),
    ):
        series: dict[str, list[tuple[float, float]]] = {}
        for point in points:
            if point.curve == curve:
                series.setdefault(point.series, []).append((point.x, value(point)))
        if series:
            panels.append(Lines(title, x, series, log))
    return lines("How it grows", panels)


def write(into: Path, points: list[Point], machine: dict[str, str]) -> list[Path]:
    """Write `growth.json`, `.md` and `.svg`; return their paths."""
    paths = [into / f"growth.{kind}" for kind in ("json", "md", "svg")]
    paths[0].write_text(json.dumps({"machine": machine, "points": [asdict(point) for point in points]}, indent=1) + "\n")
    paths[1].write_text("\n".join([*table(points), "", *(f"- {name}: {value}" for name, value in machine.items())]) + "\n")
    paths[2].write_text(plot(points))
    return paths
