"""Tables of `status` and `commands`, as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from relay_agent.agent.admin.folding import fold_warnings, stands_for, thread_rows
from relay_agent.agent.admin.words import ago, described_policy, queue_words, span
from relay_agent.diagnostics.command_history import FAILED, Listed
from relay_agent.storage.journal import State

_WIDE = 100_000
"""Columns if the output is not a terminal: no line is wrapped or cut."""
_NARROWEST = 70
"""On a narrower terminal the id is left out."""
_SHORT_ID = 8
"""How much of an id a narrow terminal shows; `commands show` accepts it."""


def print_status(found: dict[str, Any]) -> None:
    """Print `status.json` for a person."""
    console = _console()
    good = found["state"] == "ready"
    console.print(Text(found["sentence"], style="bold green" if good else "bold red"))
    shown, folded = fold_warnings(found["warnings"])
    for problem in found["problems"] + shown:
        console.print(Text(f"\n{problem['reason']}", style="red" if problem in found["problems"] else "yellow"))
        console.print(Text(f"  cause  {problem['cause']}\n  cure   {problem['cure']}"))
    if folded:
        console.print(Text(f"\n{stands_for(folded)} more about targets; the status page shows them, and so does --json", style="yellow"))
    agent, now = found["agent"], found["time"]
    workers, queue, journal = found["workers"], found["queue"], found["journal"]
    states = ", ".join(f"{journal[state]} {state}" for state in State if state in journal)
    rows = [
        ("agent", f"{agent['name'] or agent['id']} ({agent['id']}) in {agent['organisation']}, {found['version']}"),
        ("running for", span(found["uptimeSeconds"])),
        (
            "queue",
            f"{queue_words(queue)}; {queue['waiting']} of {queue['capacity']} commands waiting for a worker;"
            f" last receive {_moment(found['lastReceive'], now)}",
        ),
        ("workers", f"{workers['busy']} of {workers['total']} busy, {found['untold']} answers waiting to be sent"),
        *([("policy", described_policy(found["policy"]))] if found.get("policy") else []),
        ("journal", f"{states}; {journal['bytes'] / 1e6:.1f} MB"),
        ("last heartbeat", _moment(found["lastHeartbeat"], now)),
        ("last answer sent", _moment(found["lastAnswer"], now)),
        ("configuration", f"read {_moment(found['lastConfiguration'], now)}" if found["lastConfiguration"] else "not read yet"),
        ("JWT", f"expires {found['tokenEnds']}" if found["tokenEnds"] else "never expires"),
        ("AWS credentials", f"expire {found['credentialsEnd']}" if found["credentialsEnd"] else "none yet"),
        ("log lines", f"{found['logLines']['waiting']} waiting to be delivered, {found['logLines']['dropped']} dropped"),
    ]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(value))
    console.print()
    console.print(table)
    console.print()
    threads = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for one in thread_rows(found["threads"]):
        life = Text("running", style="green") if one.alive else Text("dead", style="red")
        threads.add_row(Text(one.name), life, Text(": ".join(part for part in (one.activity, one.problem) if part)))
    console.print(threads)


def print_commands(found: Sequence[Listed]) -> None:
    """Print as many columns as fit, with nothing cut off: if even the fewest are too wide, cells are wrapped."""
    console = _console()
    columns = next((columns for columns in (_ALL, _SOME) if _width(console, _table(found, columns)) <= console.width), _NARROW)
    console.print(_table(found, columns[:-1] if console.width < _NARROWEST else columns))


def _width(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(max_width=_WIDE)).maximum


def _table(found: Sequence[Listed], columns: Sequence[_Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column.name, justify=column.justify, no_wrap=not column.folds, overflow="fold")
    for one in found:
        table.add_row(*(column.cell(one) for column in columns))
    return table


def _state(one: Listed) -> Text:
    style = "red" if one.status in FAILED else "green" if one.status else ""
    return Text(one.status if one.status and one.state == State.DELIVERED else f"{one.status or ''} {one.state}".strip(), style=style)


def _code(one: Listed) -> Text:
    if one.would_refuse is None:
        return Text(one.code or "-")
    return Text(f"{one.code or '-'} ({one.would_refuse} would refuse)", style="yellow")


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    cell: Callable[[Listed], Text]
    folds: bool = False
    justify: JustifyMethod = "left"


def _stage(name: str, value: Callable[[Listed], int | None]) -> _Column:
    return _Column(name, lambda one: Text(_milliseconds(value(one))), justify="right")


_WHEN = _Column("when (UTC)", lambda one: Text(one.when[:19].replace("T", " ")))
_OUTCOME = (
    _Column("state", _state, folds=True),
    _Column("code", _code, folds=True),
    _Column("method", lambda one: Text(one.method or "-")),
    _Column("host", lambda one: Text(one.where), folds=True),
)
_ID = _Column("id", lambda one: Text(one.id))
_SOME = (_WHEN, *_OUTCOME, _ID)
_ALL = (
    *_SOME,
    _Column("action", lambda one: Text((one.action or "-").rpartition(".")[2])),
    _stage("queued", lambda one: one.queued_ms),
    _stage("target", lambda one: one.target_ms),
    _stage("delivered", lambda one: one.delivered_ms),
)
_NARROW = (
    _Column(_WHEN.name, lambda one: Text(one.when[5:19].replace("T", " "))),
    *_OUTCOME,
    _Column("id", lambda one: Text(one.id[:_SHORT_ID])),
)


def command_details(one: Listed) -> list[tuple[str, str]]:
    """Return the lines of `commands show`, each a name and a value."""
    return [
        ("id", one.id),
        ("action", one.action or "-"),
        ("method", one.method or "-"),
        ("host", one.where),
        ("state", one.state),
        ("status", one.status or "-"),
        ("code", one.code or "-"),
        *([("policy", f"{one.would_refuse} would refuse such a command in the mode enforce")] if one.would_refuse else []),
        ("admitted", one.admitted),
        ("started", f"{one.started or '-'}  {_after(one.queued_ms) if one.started else ''}".rstrip()),
        ("finished", f"{one.finished or '-'}  {_after(one.target_ms)}".rstrip()),
        ("delivered", f"{one.delivered or '-'}  {_after(one.delivered_ms)}".rstrip()),
    ]


def _milliseconds(value: int | None) -> str:
    return "-" if value is None else f"{value} ms"


def _after(value: int | None) -> str:
    return "" if value is None else f"(after {value} ms)"


def _moment(moment: str | None, now: str) -> str:
    return "never" if moment is None else f"{ago(moment, now)} ({moment})"


def _console() -> Console:
    """Make a console as wide as the terminal, or wide enough for every line if the output is not a terminal."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)
