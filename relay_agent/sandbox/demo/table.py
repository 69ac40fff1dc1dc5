"""The demo's table: live on a terminal, else a plain line for each finished command.

This module owns how a command's progress is shown. It must not judge an answer. A thread of rich redraws the live table; it ends with
the `with` block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from relay_agent.sandbox.demo.rows import Row

WAITING, UNDER_WAY, OK, FAILED, NOT_SENT = "", "...", "ok", "FAILED", "not sent"
_STYLES = {WAITING: "dim", UNDER_WAY: "cyan", OK: "green", FAILED: "bold red", NOT_SENT: "yellow"}
_FRAMES_PER_SECOND = 10
_WIDE = 110
_NARROW = 80  # Below this, a column of notes would be too narrow.
_INDENT = 9
_SLIM = "{:<19} {:<20} {:>6}"
_PLAIN = "{:<8} {:<18} {:<24} {:<21} {:>8}  {}"


@dataclass(slots=True)
class Line:
    """The progress of one command. `seconds` is None until it is known; `note` says what was right or wrong."""

    row: Row
    state: str = WAITING
    result: str = ""
    note: str = ""
    seconds: float | None = None
    started: float = 0.0

    def start(self) -> None:
        """Mark the command as sent."""
        self.state, self.started = UNDER_WAY, time.monotonic()

    @property
    def duration(self) -> str:
        """The time that it took, or has taken so far."""
        seconds = time.monotonic() - self.started if self.state == UNDER_WAY else self.seconds
        if seconds is None:
            return ""
        return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


class Board:
    """The lines of one demo on a console: `with board.shown(): ...`, and `done` for each finished line."""

    def __init__(self, rows: Sequence[Row], console: Console) -> None:
        self.lines = [Line(row) for row in rows]
        self._console = console
        self._live = console.is_terminal

    def shown(self) -> AbstractContextManager[Any]:
        """Return a context that shows the live table; if there is no terminal, print the head of the plain one."""
        if self._live:
            return Live(get_renderable=self._drawn, console=self._console, refresh_per_second=_FRAMES_PER_SECOND)
        self._print("", "command", "request", "result", "time", "check")
        return nullcontext()

    def done(self, line: Line, state: str, note: str) -> None:
        """Finish a line as OK, FAILED or NOT_SENT."""
        line.state, line.note = state, note
        if not self._live:
            self._print(line.state, line.row.name, line.row.request, line.result, line.duration, line.note)

    def _print(self, *cells: str) -> None:
        self._console.print(_PLAIN.format(*cells).rstrip(), markup=False, highlight=False, soft_wrap=True)

    def _drawn(self) -> RenderableType:
        return self._slim() if self._console.width < _NARROW else self._table()

    @property
    def _moving(self) -> bool:
        return any(line.state in (WAITING, UNDER_WAY) for line in self.lines)

    def _slim(self) -> Group:
        """Return the table for a narrow terminal, which shows each note below its row once all commands are finished."""
        parts: list[RenderableType] = [Text(" " * _INDENT + _SLIM.format("command", "result", "time"), "bold", no_wrap=True)]
        for line in self.lines:
            row = Text(f"{line.state:<{_INDENT}}", _STYLES[line.state], no_wrap=True, overflow="ellipsis")
            row.append(_SLIM.format(line.row.name, line.result, line.duration), "dim" if line.state == WAITING else "default")
            parts.append(row)
            if line.note and not self._moving:
                parts.append(Padding(Text(line.note, "dim", overflow="fold"), (0, 0, 0, _INDENT)))
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        wide = self._console.width >= _WIDE
        for name in ("", "command", *(["request"] if wide else []), "result"):
            table.add_column(name, no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("check", overflow="fold")
        # While commands are running, each has one line, so that the table fits a small terminal; then every note is shown in full.
        moving = self._moving
        for line in self.lines:
            style = _STYLES[WAITING] if line.state == WAITING else ""
            asked = [line.row.request] if wide else []
            # As Text, so that markup in an answer is not interpreted.
            cells = [Text(cell, style) for cell in (line.row.name, *asked, line.result, line.duration)]
            note = Text(line.note, no_wrap=moving, overflow="ellipsis" if moving else "fold")
            table.add_row(Text(line.state, _STYLES[line.state]), *cells, note)
        return table
