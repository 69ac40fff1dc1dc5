"""Results as a table, ratios first, and as JSON, Markdown and SVG. A ratio is taken within a round; then the median of the rounds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.charts import Bars, bars
from tests.bench.results import Found, Process, Results

FLOOR = "floor"
NOTHING = "–"
MOST_SHOWN = 4.0
"""A longer bar is cut: one contender of a hundred times the floor's CPU would hide all others."""

Value = Callable[[Any], float | None]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: where its value is, and how it is shown. `work` is None for what a process as a whole has."""

    title: str
    work: str | None
    value: Value
    digits: int
    against: str = "ratio"
    """`ratio`: divided by the floor's; `more`: minus the floor's; `none`."""


ROWS = (
    Row("commands/s, burst", "burst", lambda found: found.rate, 0),
    Row("CPU ms a command, burst", "burst", lambda found: found.cpu_ms, 2),
    Row("received → answered, alone, p50 ms", "alone", lambda found: found.p50_ms, 1, "more"),
    Row("received → answered, alone, p99 ms", "alone", lambda found: found.p99_ms, 1, "more"),
    Row("memory at start, MB", None, lambda process: process.start_bytes / 1e6, 0),
    Row("memory after the burst, MB", None, lambda process: process.after_bytes and process.after_bytes / 1e6, 0),
    Row("most memory, with answers of 50 MB, MB", None, lambda process: process.peak_bytes and process.peak_bytes / 1e6, 0),
    Row("idle CPU, % of a core", None, lambda process: process.idle_cpu_percent, 2, "none"),
    Row("log bytes a command", "burst", lambda found: found.log_bytes, 0, "none"),
    Row("fsyncs a command, burst", "burst", lambda found: found.fsyncs, 2, "none"),
    Row("fsyncs a command, alone", "alone", lambda found: found.fsyncs, 2, "none"),
    Row("SQS calls a command, burst", "burst", lambda found: found.sqs_calls, 2),
    Row("SQS calls a command, alone", "alone", lambda found: found.sqs_calls, 2),
    Row("connections to the target a command, burst", "burst", lambda found: found.connections, 2, "none"),
    Row("start → first poll, s", None, lambda process: process.first_poll_seconds, 2),
)


def spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Return the median, and from least to most if there are several."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return NOTHING
    shown = f"{median(values):{sign},.{digits}f}"
    least, most = f"{min(values):{sign},.{digits}f}", f"{max(values):{sign},.{digits}f}"
    return shown if least == most else f"{shown} ({least}{' to ' if sign else '–'}{most})"


def summary(results: Results, titles: dict[str, str]) -> list[str]:
    """The table in short, in Markdown: the columns of ratios first, then each contender's own figures."""
    names = [name for name in titles if any(process.contender == name for process in results.processes)]
    compared = [name for name in names if name != FLOOR] if FLOOR in names else []
    head = ["", *(f"{name} : {FLOOR}" for name in compared), *(titles[name] for name in names)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in ROWS:
        by_name = {name: _values(results, row, name) for name in names}
        if not any(by_name.values()):
            continue
        ratios = [_against(row, by_name[name], by_name[FLOOR]) for name in compared]
        cells = [row.title, *ratios, *(spread(list(by_name[name].values()), row.digits) for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _values(results: Results, row: Row, name: str) -> dict[int, float]:
    """A row's value in each round."""
    found: Sequence[Found | Process] = results.processes if row.work is None else [each for each in results.works if each.work == row.work]
    values = {each.round: row.value(each) for each in found if each.contender == name}
    return {number: value for number, value in values.items() if value is not None and not math.isnan(value)}


def _against(row: Row, own: dict[int, float], floor: dict[int, float]) -> str:
    rounds = sorted(own.keys() & floor.keys())
    if not rounds or row.against == "none":
        return NOTHING
    if row.against == "more":
        return spread([own[number] - floor[number] for number in rounds], 1, "+") + " ms"
    if not all(floor[number] for number in rounds):
        return NOTHING
    return "× " + spread([own[number] / floor[number] for number in rounds], 2)


def details(results: Results, titles: dict[str, str], works: dict[str, str]) -> list[str]:
    """A row for each work and contender, in Markdown."""
    head = ["work", "who", f"rate : {FLOOR}", f"CPU : {FLOOR}", "p50 − floor", "commands/s", "CPU ms", "p50 ms", "p99 ms"]
    head += ["SQS calls", "connections", "log bytes", "commands"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for work, work_title in works.items():
        for name, title in titles.items():
            mine = [found for found in results.works if (found.work, found.contender) == (work, name)]
            if mine:
                lines.append(f"| {' | '.join([work_title, title, *_detail(results, work, name, mine)])} |")
    return lines


def _detail(results: Results, work: str, name: str, mine: list[Found]) -> list[str]:
    rows = [Row("", work, lambda found: found.rate, 2), Row("", work, lambda found: found.cpu_ms, 2)]
    rows.append(Row("", work, lambda found: found.p50_ms, 1, "more"))
    if name == FLOOR:
        ratios = [NOTHING] * len(rows)
    else:
        ratios = [_against(row, _values(results, row, name), _values(results, row, FLOOR)) for row in rows]
    return [
        *ratios,
        spread([found.rate for found in mine], 1),
        spread([found.cpu_ms for found in mine], 2),
        spread([found.p50_ms for found in mine], 1),
        spread([found.p99_ms for found in mine], 1),
        spread([found.sqs_calls for found in mine], 2),
        spread([found.connections for found in mine if found.connections is not None], 2),
        spread([found.log_bytes for found in mine], 0),
        f"{len(mine)} × {mine[0].commands:,}",
    ]


def text(lines: Sequence[str]) -> list[str]:
    """A Markdown table with its columns aligned, for a terminal."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  " + "  ".join(_cell(cell, widths[place], place) for place, cell in enumerate(row)).rstrip() for row in rows]


def _cell(cell: str, width: int, place: int) -> str:
    return cell.ljust(width) if place == 0 else cell.rjust(width)


def write(
    into: Path, results: Results, machine: dict[str, str], titles: dict[str, str], works: dict[str, str], notes: Sequence[str] = ()
) -> list[Path]:
    """Write `comparison.json`, `.md` and `.svg`; return their paths."""
    raw = {
        "machine": machine,
        "notes": list(notes),
        "processes": [dataclasses.asdict(process) for process in results.processes],
        "works": [dataclasses.asdict(found) | {"rate": found.rate} for found in results.works],
    }
    paths = [into / f"comparison.{kind}" for kind in ("json", "md", "svg")]
    paths[0].write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    paths[1].write_text("\n".join(page(results, machine, titles, works, notes)) + "\n")
    paths[2].write_text(plot(results, titles, works))
    return paths


def page(results: Results, machine: dict[str, str], titles: dict[str, str], works: dict[str, str], notes: Sequence[str] = ()) -> list[str]:
    """The page of Markdown: the machine, the table in short, the works."""
    rounds = max((process.round for process in results.processes), default=0)
    return [
        f"Medians of {rounds} interleaved rounds, from least to most in brackets. Ratios are taken within a round.",
        "",
        *summary(results, titles),
        "",
        *details(results, titles, works),
        "",
        *(f"- {name}: {value}" for name, value in machine.items()),
        *(f"- {note}" for note in notes),
    ]


def plot(results: Results, titles: dict[str, str], works: dict[str, str]) -> str:
    """Bars for each work: commands in a second and CPU, as multiples of the floor in the same round."""
    names = [name for name in titles if name != FLOOR and any(found.contender == name for found in results.works)]
    groups = []
    for title, value in (("commands/s", lambda found: found.rate), ("CPU a command", lambda found: found.cpu_ms)):
        series = {}
        for name in names:
            series[titles[name]] = [_median_ratio(results, Row("", work, value, 2), name) for work in works]
        groups.append(Bars(f"{title}, times the floor's", list(works.values()), series))
    return bars("Beside the floor, by work", groups, line=1.0, most_shown=MOST_SHOWN)


def _median_ratio(results: Results, row: Row, name: str) -> float | None:
    own, floor = _values(results, row, name), _values(results, row, FLOOR)
    ratios = [own[number] / floor[number] for number in own.keys() & floor.keys() if floor[number]]
    return median(ratios) if ratios else None
