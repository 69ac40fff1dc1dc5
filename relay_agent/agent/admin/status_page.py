"""The status page for people: the state, what is wrong and how to cure it, what the agent is doing.

Owns the page's look. The page loads nothing from elsewhere and works without scripts (`static/status.js` only updates it in place), in
dark and light mode, on a phone and with a screen reader. It must not determine anything itself: it renders `status.json`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

from relay_agent.agent.admin.folding import fold_warnings, stands_for, thread_rows
from relay_agent.agent.admin.words import ago, byte_size, described_policy, dropped, duration, queue_words, span, until
from relay_agent.diagnostics.command_history import FAILED, Listed

REFRESH_SECONDS = 10


def _static(name: str) -> str:
    return resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")


STYLE = _static("status.css")
SCRIPT = _static("status.js").replace("REFRESH_MS", str(REFRESH_SECONDS * 1000))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY_WITHOUT_SCRIPTS = f"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src {_hash(STYLE)}"
"""The Content-Security-Policy of the page without updates: its own style, and nothing else."""
POLICY = f"{POLICY_WITHOUT_SCRIPTS}; script-src {_hash(SCRIPT)}; connect-src 'self'"
"""The Content-Security-Policy of the page with updates: also its own script, which requests the page again."""

_TONES = {"ready": "good", "starting": "wait", "stopping": "wait", "disabled": "wait"}
"""The colour of each state; all others are bad."""
_BAR, _GAP, _HEIGHT = 9, 3, 300
LATEST = 10
"""How many commands are shown before the earlier ones are folded."""


def render(status: dict[str, Any], recent: Sequence[Listed], *, refresh: bool) -> str:
    """Render the whole page."""
    state, agent = status["state"].capitalize(), status["agent"]
    name = agent["name"] or agent["id"]
    again = f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"></noscript>' if refresh else ""
    away, script = ('<p id="away" role="alert" hidden></p>\n', f"<script>{SCRIPT}</script>\n") if refresh else ("", "")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">{again}
<title>{escape(state)}: {escape(name)} - Relay Agent</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the state</a>
{away}<header>
<p class="who"><strong>{escape(name)}</strong> <span class="dim">in</span> {escape(agent["organisation"])}</p>
<p class="dim">{_freshness(status["time"], refresh)}</p>
<p class="dim">Relay Agent {escape(status["version"])}</p>
</header>
<main id="main" tabindex="-1">
<section class="state {_TONES.get(status["state"], "bad")}" aria-labelledby="state">
<h1 id="state" aria-live="polite"><span class="dot" aria-hidden="true"></span>{escape(state)}</h1>
{_problems(status["problems"]) or f'<p class="summary">{escape(status["summary"])}.</p>'}
</section>
{_warnings(status["warnings"])}
<div class="columns">
{_hour(status["lastHour"])}
{_numbers(status)}
</div>
{_commands(recent, status["time"])}
{_threads(status["threads"])}
</main>
<footer><p>Agent <code>{escape(agent["id"])}</code> at {escape(agent["apiTarget"])}</p>
<p><a href="/status.json">status.json</a> · <a href="/metrics">metrics</a></p></footer>
{script}</body>
</html>
"""


def _freshness(now: str, refresh: bool) -> str:
    date, _, time = now.removesuffix("Z").partition("T")
    if refresh:
        return f'Updated <time id="updated" datetime="{now}" title="{date}">{time} UTC</time> · <a href="/?refresh=off">Pause</a>'
    return f'Paused at <time id="updated" datetime="{now}">{date} {time} UTC</time> · <a href="/">Resume</a>'


# --- what is wrong ---


def _problems(problems: Sequence[dict[str, Any]], kind: str = "problems") -> str:
    items = "".join(f"<li><dl>{_problem(problem)}</dl></li>" for problem in problems)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def _problem(problem: dict[str, Any]) -> str:
    """Render the cure first, then the cause, then what was observed if the cause does not say it already."""
    seen = "" if problem["reason"] == problem["cause"] else f'<dt>Seen</dt><dd class="seen">{escape(problem["reason"])}</dd>'
    return f'<dt>What to do</dt><dd class="cure">{_prose(problem["cure"])}</dd><dt>Why</dt><dd>{_prose(problem["cause"])}</dd>{seen}'


def _prose(text: str) -> str:
    """Render a text with what it has in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _warnings(warnings: list[dict[str, Any]]) -> str:
    if not warnings:
        return ""
    shown, folded = fold_warnings(warnings)
    more = ""
    if folded:
        more = f'<details id="targets"><summary>{stands_for(folded)} more about targets</summary>{_problems(folded, "warnings")}</details>'
    return f'<section aria-labelledby="warnings"><h2 id="warnings">Warnings</h2>{_problems(shown, "warnings")}{more}</section>'


# --- what it is doing ---


def _hour(minutes: list[list[int]]) -> str:
    """Render the commands per minute as bars, with the failed ones in another colour at the bottom; nothing if there were none."""
    most = max((done for done, _ in minutes), default=0)
    if not most:
        return ""
    total, failed = sum(done for done, _ in minutes), sum(failed for _, failed in minutes)
    width = len(minutes) * (_BAR + _GAP)
    bars = []
    for place, (done, bad) in enumerate(minutes):
        if not done:
            continue
        x, full = place * (_BAR + _GAP), max(2.0, done / most * _HEIGHT)
        low = full * bad / done
        if bad < done:
            bars.append(f'<rect class="ok" x="{x}" y="{_HEIGHT - full:.1f}" width="{_BAR}" height="{full - low:.1f}"/>')
        if bad:
            bars.append(f'<rect class="failed" x="{x}" y="{_HEIGHT - low:.1f}" width="{_BAR}" height="{low:.1f}"/>')
    summary = f"{total} commands in the last hour, {failed} of them failed; at most {most} in one minute"
    return f"""<section class="card hour" aria-labelledby="hour">
<h2 id="hour">The last hour</h2>
<p class="figure"><strong>{total}</strong> commands{f', <span class="failed-text">{failed} failed</span>' if failed else ""}</p>
<svg viewBox="0 0 {width} {_HEIGHT + 1}" preserveAspectRatio="none" role="img" aria-label="{summary}">
<line class="axis" x1="0" x2="{width}" y1="{_HEIGHT + 0.5}" y2="{_HEIGHT + 0.5}"/>{"".join(bars)}
</svg>
<p class="ends dim small" aria-hidden="true"><span>60 minutes ago</span><span>at most {most} in a minute</span><span>now</span></p>
</section>"""


def _numbers(status: dict[str, Any]) -> str:
    workers, queue, journal = status["workers"], status["queue"], status["journal"]
    now = status["time"]
    rows = [
        *([] if any(done for done, _ in status["lastHour"]) else [("Commands in the last hour", "none")]),
        ("Workers", f"{workers['busy']} of {workers['total']} busy"),
        ("Waiting for a worker", f"{queue['waiting']} of {queue['capacity']}"),
        ("Queue", queue_words(queue)),
        ("Answers waiting to be sent", str(status["untold"])),
        *([("Policy", escape(described_policy(status["policy"])))] if status["policy"] else []),
        ("Last receive", ago(status["lastReceive"], now)),
        ("Last heartbeat", ago(status["lastHeartbeat"], now)),
        ("Configuration read", ago(status["lastConfiguration"], now)),
        ("AWS credentials expire", until(status["credentialsEnd"], now)),
        ("JWT expires", until(status["tokenEnds"], now) if status["tokenEnds"] else "never"),
        ("Journal", f"{byte_size(journal['bytes'])}, {journal.get('delivered', 0)} delivered commands kept"),
        ("Log lines waiting", f"{status['logLines']['waiting']}{dropped(status['logLines']['dropped'])}"),
        ("Running for", span(status["uptimeSeconds"])),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<section class="card" aria-labelledby="numbers"><h2 id="numbers">In numbers</h2><dl class="numbers">{items}</dl></section>'


_COLUMNS = ("When", "Method", "Host", "State", "Code", "Queued", "Target", "Id")


def _commands(recent: Sequence[Listed], now: str) -> str:
    if not recent:
        body = '<p class="dim">No commands yet. Commands are listed here with their target and outcome.</p>'
    else:
        body, earlier = _table(recent[:LATEST], now, "Latest commands"), recent[LATEST:]
        if earlier:
            table = _table(earlier, now, "Earlier commands")
            body += f'<details id="earlier"><summary>{len(earlier)} earlier</summary>{table}</details>'
    return f'<section class="card" aria-labelledby="commands"><h2 id="commands">Recent commands</h2>{body}</section>'


def _table(commands: Sequence[Listed], now: str, label: str) -> str:
    # The roles keep it a table where the style sheet makes cards of its rows.
    heads = "".join(f'<th role="columnheader" scope="col" class="c-{name.lower()}">{name}</th>' for name in _COLUMNS)
    return (
        f'<table class="commands" role="table" aria-label="{label}"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(_command(one, now) for one in commands)}</tbody></table>'
    )


def _command(one: Listed, now: str) -> str:
    tone = "failed-text" if one.status in FAILED else "ok-text" if one.status else "dim"
    state = one.status if one.status and one.state == "delivered" else f"{one.status}, not sent yet" if one.status else one.state
    where = escape(one.where)
    cells = {
        "when": f'<time datetime="{one.when}">{ago(one.when, now)}</time>',
        "method": escape(one.method or "-"),
        "host": f'<div class="cut" title="{where}">{where}</div>',
        "state": f'<span class="{tone}">{escape(state)}</span>',
        "code": escape(one.code or "-"),
        "queued": duration(one.queued_ms),
        "target": duration(one.target_ms),
        "id": f'<code title="{escape(one.id)}">{escape(one.id)}</code>',
    }
    made = (f'<td role="cell" class="c-{name}{" none" if cell == "-" else ""}">{cell}</td>' for name, cell in cells.items())
    return f'<tr role="row">{"".join(made)}</tr>'


def _threads(threads: list[dict[str, Any]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(one.name)}</th><td class="{"ok-text" if one.alive else "failed-text"}">'
        f"{'running' if one.alive else 'dead'}</td><td>{escape(one.activity)}"
        + (f' <span class="failed-text">{escape(one.problem)}</span>' if one.problem else "")
        + "</td></tr>"
        for one in thread_rows(threads)
    )
    return (
        '<section class="card" aria-labelledby="threads"><h2 id="threads">Threads</h2><table class="threads"><thead><tr>'
        '<th scope="col">Name</th><th scope="col">State</th><th scope="col">Activity</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )
