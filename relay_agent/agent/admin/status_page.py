"""The status page for people: the state in one sentence, what is wrong and how to cure it, what the agent is doing.

Owns the page's look. The page loads nothing from elsewhere and works without scripts (`static/status.js` only updates it in place), in
dark and light mode, on a phone and with a screen reader. It must not determine anything itself: it renders `status.json`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib import resources
from typing import Any

from relay_agent.diagnostics.command_history import FAILED, Listed

REFRESH_SECONDS = 10


def _static(name: str) -> str:
    return resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")


STYLE = _static("status.css")
SCRIPT = _static("status.js").replace("REFRESH_MS", str(REFRESH_SECONDS * 1000))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


STILL = f"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src {_hash(STYLE)}"
"""The Content-Security-Policy of the page without updates: its own style, and nothing else."""
POLICY = f"{STILL}; script-src {_hash(SCRIPT)}; connect-src 'self'"
"""The Content-Security-Policy of the page with updates: also its own script, which requests the page again."""

_BADGES = {
    "ready": ("good", "Ready"),
    "not ready": ("bad", "Not ready"),
    "starting": ("wait", "Starting"),
    "stopping": ("wait", "Stopping"),
    "disabled": ("wait", "Disabled"),
}
_BAR, _GAP, _HEIGHT = 9, 3, 330


def render(status: dict[str, Any], recent: Sequence[Listed], *, refresh: bool) -> str:
    """Render the whole page."""
    kind, badge = _BADGES[status["state"]]
    agent = status["agent"]
    name = agent["name"] or agent["id"]
    again = f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"></noscript>' if refresh else ""
    away, script = ('<p id="away" role="alert" hidden></p>\n', f"<script>{SCRIPT}</script>\n") if refresh else ("", "")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">{again}
<title>{badge}: {escape(name)} - Relay Agent</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the state</a>
{away}<header>
<p class="product">Relay Agent</p>
<p class="who"><strong>{escape(name)}</strong> <span class="dim">in</span> {escape(agent["organisation"])}</p>
</header>
<main id="main" tabindex="-1">
<section class="state {kind}" aria-labelledby="state">
<h1 id="state" aria-live="polite"><span class="badge"><span class="dot" aria-hidden="true"></span>{badge}</span></h1>
<p class="sentence">{escape(status["sentence"])}</p>
</section>
{_problems(status["problems"], "What is wrong", "problem")}
{_problems(status["warnings"], "What else to look at", "warning")}
<div class="columns">
{_hour(status["lastHour"])}
{_numbers(status)}
</div>
{_commands(recent, status["time"])}
{_threads(status["threads"])}
</main>
{_footer(status, refresh)}
{script}</body>
</html>
"""


def _problems(problems: list[dict[str, str]], title: str, kind: str) -> str:
    if not problems:
        return ""
    cards = "".join(
        f'<li class="{kind}"><p class="reason">{escape(problem["reason"])}</p><dl>'
        f"<dt>Cause</dt><dd>{escape(problem['cause'])}</dd><dt>Cure</dt><dd>{escape(problem['cure'])}</dd></dl></li>"
        for problem in problems
    )
    return f'<section aria-labelledby="{kind}s"><h2 id="{kind}s">{title}</h2><ul class="cards">{cards}</ul></section>'


def _hour(minutes: list[list[int]]) -> str:
    """Render the commands per minute as bars, with the failed ones in another colour at the bottom."""
    most = max((done for done, _ in minutes), default=0)
    total, failed = sum(done for done, _ in minutes), sum(failed for _, failed in minutes)
    width = len(minutes) * (_BAR + _GAP)
    bars = []
    for place, (done, bad) in enumerate(minutes):
        if not done:
            continue
        x, full = place * (_BAR + _GAP), max(2.0, done / most * _HEIGHT)
        low = full * bad / done
        if bad < done:
            bars.append(f'<rect class="ok" x="{x}" y="{_HEIGHT - full:.1f}" width="{_BAR}" height="{full - low:.1f}" rx="1.5"/>')
        if bad:
            bars.append(f'<rect class="failed" x="{x}" y="{_HEIGHT - low:.1f}" width="{_BAR}" height="{low:.1f}" rx="1.5"/>')
    said = f"{total} commands in the last hour, {failed} of them failed; at most {most} in one minute"
    return f"""<section class="card hour" aria-labelledby="hour">
<h2 id="hour">The last hour</h2>
<p class="figure"><strong>{total}</strong> commands{f', <span class="failed-text">{failed} failed</span>' if failed else ""}</p>
<svg viewBox="0 0 {width} {_HEIGHT + 1}" role="img" aria-label="{said}">
<line class="axis" x1="0" x2="{width}" y1="{_HEIGHT + 0.5}" y2="{_HEIGHT + 0.5}"/>{"".join(bars)}
</svg>
<p class="ends dim small" aria-hidden="true"><span>60 minutes ago</span><span>now</span></p>
<p class="dim small">{f"Most in one minute: {most}." if most else "No command has ended in the last hour."}</p>
</section>"""


def _numbers(status: dict[str, Any]) -> str:
    workers, queue, journal = status["workers"], status["queue"], status["journal"]
    now = status["time"]
    rows = [
        ("Workers", f"{workers['busy']} of {workers['total']} busy"),
        ("Waiting for a worker", f"{queue['waiting']} of {queue['capacity']}"),
        ("Answers waiting to be sent", str(status["untold"])),
        ("Last receive", ago(status["lastReceive"], now)),
        ("Last heartbeat", ago(status["lastHeartbeat"], now)),
        ("Configuration read", ago(status["lastConfiguration"], now)),
        ("AWS credentials expire", _until(status["credentialsEnd"], now)),
        ("JWT expires", _until(status["tokenEnds"], now) if status["tokenEnds"] else "never"),
        ("Journal", f"{_bytes(journal['bytes'])}, {journal.get('delivered', 0)} delivered commands kept"),
        ("Log lines waiting", f"{status['logLines']['waiting']}{_dropped(status['logLines']['dropped'])}"),
        ("Running for", span(status["uptimeSeconds"])),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<section class="card" aria-labelledby="numbers"><h2 id="numbers">In numbers</h2><dl class="numbers">{items}</dl></section>'


def _commands(recent: Sequence[Listed], now: str) -> str:
    if not recent:
        body = '<p class="dim">No commands yet. Commands are listed here with their target and outcome.</p>'
    else:
        rows = "".join(_command(one, now) for one in recent)
        body = (
            '<div class="scroll" role="region" aria-label="Recent commands" tabindex="0"><table><thead><tr>'
            + "".join(f'<th scope="col">{name}</th>' for name in ("When", "Method", "Host", "State", "Code"))
            + '<th scope="col" class="number">Waited</th><th scope="col" class="number">Target</th><th scope="col">Id</th></tr></thead>'
            + f"<tbody>{rows}</tbody></table></div>"
        )
    return f'<section class="card" aria-labelledby="commands"><h2 id="commands">Recent commands</h2>{body}</section>'


def _command(one: Listed, now: str) -> str:
    kind = "failed-text" if one.status in FAILED else "ok-text" if one.status else "dim"
    state = one.status if one.status and one.state == "delivered" else f"{one.status}, not sent yet" if one.status else one.state
    where = escape(one.where)
    return (
        f'<tr><td><time datetime="{one.when}">{ago(one.when, now)}</time></td><td>{escape(one.method or "-")}</td>'
        f'<td class="wide" title="{where}"><div class="cut">{where}</div></td>'
        f'<td class="{kind}">{escape(state)}</td><td>{escape(one.code or "-")}</td>'
        f'<td class="number">{_duration(one.queued_ms)}</td><td class="number">{_duration(one.target_ms)}</td>'
        f'<td class="id">{escape(one.id)}</td></tr>'
    )


def _threads(threads: list[dict[str, Any]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(one["name"])}</th><td class="{"ok-text" if one["alive"] else "failed-text"}">'
        f"{'running' if one['alive'] else 'dead'}</td><td>{escape(one['activity'])}"
        + (f' <span class="failed-text">{escape(one["problem"])}</span>' if one["problem"] else "")
        + "</td></tr>"
        for one in threads
    )
    return (
        '<section class="card" aria-labelledby="threads"><h2 id="threads">Threads</h2><div class="scroll" role="region"'
        ' aria-label="Threads" tabindex="0"><table><thead><tr><th scope="col">Name</th><th scope="col">State</th>'
        f'<th scope="col">Activity</th></tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _footer(status: dict[str, Any], refresh: bool) -> str:
    pause = (
        f'This page updates every {REFRESH_SECONDS} s. <a href="/?refresh=off">Stop updating</a>'
        if refresh
        else 'This page does not update. <a href="/">Update automatically</a>'
    )
    made = status["time"].replace("T", " ").replace("Z", " UTC")
    return f"""<footer><p>Updated at <time datetime="{status["time"]}">{made}</time>. {pause}</p>
<p>Version {escape(status["version"])} · <a href="/status.json">status.json</a> · <a href="/metrics">metrics</a> ·
agent <code>{escape(status["agent"]["id"])}</code> at {escape(status["agent"]["apiTarget"])}</p></footer>"""


# --- words for numbers ---


def _seconds(moment: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(moment)).total_seconds()


def ago(moment: str | None, now: str) -> str:
    """Return how long before `now` it was; both are ISO 8601."""
    return "never" if moment is None else f"{span(max(0.0, _seconds(moment, now)))} ago"


def _until(moment: str | None, now: str) -> str:
    if moment is None:
        return "-"
    left = -_seconds(moment, now)
    return f"in {span(left)}" if left >= 0 else f"expired {span(-left)} ago"


def span(seconds: float) -> str:
    """Return a duration in the unit that a person would use."""
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def _duration(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds} ms" if milliseconds < 10_000 else span(milliseconds / 1000)


def _bytes(count: int) -> str:
    for size, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count} bytes"


def _dropped(count: int) -> str:
    return f", {count} dropped" if count else ""
