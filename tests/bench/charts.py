"""Two kinds of chart as SVG, drawn by hand so that the bench needs no plotting library: bars in groups, and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f77b4", "#d95f02", "#2ca02c", "#8a8f98", "#9467bd")
_TEXT, _GRID = "#333333", "#e3e5e8"
_LEFT, _WIDTH, _LABEL, _BAR = 200, 460, 250, 12
_PLOT_HEIGHT, _PLOT_WIDTH = 220, 420


@dataclass(frozen=True)
class Bars:
    """One panel of bars: a group for each label, a bar in it for each series; None has no bar."""

    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Lines:
    """One panel of lines: a line of (x, y) for each series. `log` spaces x by its logarithm."""

    title: str
    x: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    log: bool = False


def bars(title: str, panels: Sequence[Bars], line: float | None = None, most_shown: float = math.inf) -> str:
    """Return horizontal bars, the panels below each other; `line` marks a value, and a bar over `most_shown` is cut."""
    parts: list[str] = []
    y = 46.0
    for panel in panels:
        values = [value for found in panel.series.values() for value in found if value is not None]
        most = min(most_shown, max([*values, line or 0.0, 1e-9])) * 1.12
        parts.append(_text(10, y, panel.title, bold=True))
        y += 12
        top = y
        for place, label in enumerate(panel.labels):
            group = [(number, found[place]) for number, found in enumerate(panel.series.values()) if found[place] is not None]
            if not group:
                continue
            parts.append(_text(_LEFT + 40, y + len(group) * _BAR / 2 + 4, label, anchor="end"))
            for number, value in group:
                width = min(value or 0.0, most_shown) / most * _WIDTH
                parts.append(f'<rect x="{_LEFT + 50}" y="{y:.1f}" width="{width:.1f}" height="{_BAR - 2}" fill="{COLOURS[number % 5]}"/>')
                parts.append(_text(_LEFT + 54 + width, y + 9, f"{value:.2f}{' »' if value > most_shown else ''}", size=10))
                y += _BAR
            y += 8
        if line is not None:
            x = _LEFT + 50 + line / most * _WIDTH
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y - 6:.1f}" stroke="#555555" stroke-dasharray="4 4"/>')
        y += 22
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    parts += _legend(names, 10, y)
    return _svg(title, _LEFT + _WIDTH + 110, y + 18 * len(names) + 10, parts)


def lines(title: str, panels: Sequence[Lines]) -> str:
    """Return lines, the panels below each other."""
    parts: list[str] = []
    y = 46.0
    for panel in panels:
        parts.append(_text(10, y, panel.title, bold=True))
        parts += _panel(panel, y + 14)
        parts += _legend(list(panel.series), _PLOT_WIDTH + 90, y + 30)
        y += _PLOT_HEIGHT + 84
    return _svg(title, _PLOT_WIDTH + 300, y, parts)


def _panel(panel: Lines, top: float) -> list[str]:
    points = [point for found in panel.series.values() for point in found]
    if not points:
        return []
    xs = sorted({x for x, _ in points})
    step = _step(max(y for _, y in points))
    most = (int(max(y for _, y in points) / step) + 1) * step
    bottom = top + _PLOT_HEIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        low, high = (math.log(xs[0] or 1), math.log(xs[-1] or 1)) if panel.log else (xs[0], xs[-1])
        share = ((math.log(x or 1) if panel.log else x) - low) / ((high - low) or 1)
        return 70 + share * (_PLOT_WIDTH - 20), bottom - y / most * _PLOT_HEIGHT

    parts = []
    for number in range(round(most / step) + 1):
        _, y = at(xs[0], number * step)
        parts.append(f'<line x1="60" x2="{60 + _PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(54, y + 4, _number(number * step), anchor="end", size=11))
    shown = xs if len(xs) <= 8 else xs[:: math.ceil(len(xs) / 8)]
    parts += [_text(at(x, 0)[0], bottom + 18, _number(x), anchor="middle", size=11) for x in shown]
    parts.append(_text(60 + _PLOT_WIDTH / 2, bottom + 38, panel.x, anchor="middle"))
    for number, found in enumerate(panel.series.values()):
        path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in found)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[number % 5]}" stroke-width="2"/>')
        if len(found) <= 20:
            parts += ['<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>'.format(*at(x, y), COLOURS[number % 5]) for x, y in found]
    return parts


def _step(most: float) -> float:
    """A round distance between grid lines, of which there are at most six or so."""
    power = 10 ** math.floor(math.log10(max(most, 1e-9) / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= 6)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _legend(names: Sequence[str], x: float, y: float) -> list[str]:
    parts = []
    for number, name in enumerate(names):
        parts.append(f'<rect x="{x}" y="{y + number * 18 - 9:.1f}" width="11" height="11" fill="{COLOURS[number % 5]}"/>')
        parts.append(_text(x + 18, y + number * 18, name))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{_TEXT}"{weight}>{escape(text)}</text>'


def _svg(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="13">'
    frame = f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", frame, _text(10, 22, title, size=15, bold=True), *parts, "</svg>", ""])
