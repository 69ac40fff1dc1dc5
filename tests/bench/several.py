"""How several agents on one queue add up: commands in a second with 1, 2 and 4 of them, in one message group and in many.

Targets and calls to SQS take as long as real ones. Rounds are interleaved, so that what else the machine does falls on all cases.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, wait_until
from tests.target_server import Connection, RawRequest
from tests.targets import ByteTarget, reply

AGENTS = (1, 2, 4)
ROUNDS = 5
WORKERS = 4
TARGET_SECONDS = 0.1
SQS_SECONDS = 0.1
"""How long a receive and a delete are on their way; a message group is locked between the two."""
QUEUE_SIZE = "100"
"""Small, since the others cannot have what an agent has taken; but large enough that it always receives ten at a time."""
COMMANDS_EACH = 200
ONE, MANY = "one group", "many groups"
GROUPS = (ONE, MANY)
MANY_GROUPS = 40
PATIENCE_SECONDS = 300.0
# Agents start and end at different times: only what lies between counts.
_FROM, _TO = 0.3, 0.9
Case = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Rates:
    """Commands per second: each round of each case (how many agents, and which groups)."""

    rounds: tuple[Mapping[Case, float], ...]

    def median(self, case: Case) -> float:
        """The median of a case's rounds."""
        return median(found[case] for found in self.rounds)

    def ratio(self, case: Case) -> float:
        """How many times as much as one agent in the same round and groups: the median of the rounds."""
        return median(found[case] / found[1, case[1]] for found in self.rounds)


def measure(place: Path, rounds: int, say: Callable[[str], None]) -> Rates:
    """Measure every case once in each round."""
    cases = [(agents, groups) for agents in AGENTS for groups in GROUPS]
    found = []
    for number in range(1, rounds + 1):
        found.append({case: _rate(place, *case) for case in cases})
        say(f"  round {number}: " + ", ".join(f"{agents} in {groups} {rate:.0f}" for (agents, groups), rate in found[-1].items()))
    return Rates(tuple(found))


def _rate(place: Path, agents: int, groups: str) -> float:
    """Let agents work off commands that wait on their queue."""
    with (
        tempfile.TemporaryDirectory(dir=place) as directory,
        Sandbox(visibility_timeout=60) as sandbox,
        ByteTarget() as target,
        ExitStack() as stack,
    ):
        target.on("/", _slow)
        agent_id = sandbox.agent_id
        payload = {"method": "POST", "url": target.url("/"), "body": "x" * 200}
        names = [None if groups == ONE else f"group {number}" for number in range(MANY_GROUPS)]
        ids = [sandbox.create_command(agent_id, payload, group=names[n % MANY_GROUPS]) for n in range(COMMANDS_EACH * agents)]
        commands = [sandbox.command(command_id) for command_id in ids]
        for operation in ("ReceiveMessage", "DeleteMessageBatch"):
            stack.enter_context(sandbox.inject(Fault("sqs", operation, contains=agent_id, hang_seconds=SQS_SECONDS, count=None)))
        settings: dict[str, str | None] = {"RELAY_SHARED_QUEUE": "true", "RELAY_WORKERS": str(WORKERS), "RELAY_QUEUE_SIZE": QUEUE_SIZE}
        places = [Path(directory) / f"agent-{number}" for number in range(agents)]
        running = [stack.enter_context(RunningAgent(sandbox, path, settings, agent_id)) for path in places]
        wait_until(sandbox, lambda: all(command.final for command in commands), PATIENCE_SECONDS)
        assert {command.status for command in commands} == {"SUCCESS"}
        assert len(target.requests) == len(commands)
        for agent in running:
            agent.stop()
        return _between([command.updated_at for command in commands])


def _slow(conn: Connection, request: RawRequest) -> None:
    threading.Event().wait(TARGET_SECONDS)
    reply(body="done")(conn, request)


def _between(ends: list[datetime]) -> float:
    ends = sorted(ends)
    first, last = int(len(ends) * _FROM), int(len(ends) * _TO)
    return (last - first) / (ends[last] - ends[first]).total_seconds()


# --- the table and the plot of docs/several-agents.md ---


def table(rates: Rates) -> list[str]:
    """The table, in Markdown."""
    lines = ["| agents | proportional | many groups | one group |", "|---|---|---|---|"]
    for agents in AGENTS:
        cells = [f"{rates.median((agents, groups)):.0f} ({rates.ratio((agents, groups)):.1f} times)" for groups in (MANY, ONE)]
        lines.append(f"| {agents} | {proportional(rates, agents):.0f} | {cells[0]} | {cells[1]} |")
    return lines


def proportional(rates: Rates, agents: int) -> float:
    """What so many agents would do if each did as much as one that is alone."""
    return agents * rates.median((1, MANY))


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 560, 320, 60, 270, 30, 400
_LINES = (("proportional", "#8a8f98", "4 4"), (MANY, "#1f77b4", ""), (ONE, "#d95f02", ""))


def plot(rates: Rates) -> str:
    """The plot, as SVG: commands in a second by the number of agents."""
    values = {name: [proportional(rates, n) if name not in GROUPS else rates.median((n, name)) for n in AGENTS] for name, _, _ in _LINES}
    most = max(max(found) for found in values.values())
    step = 20 if most <= 200 else 100
    top = (int(most) // step + 1) * step
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        "<title>Commands per second with 1, 2 and 4 agents on one queue</title>",
        f'<text x="{_LEFT - 45}" y="18" fill="#333333">commands in a second</text>',
    ]
    for value in range(0, top + 1, step):
        y = _y(value, top)
        parts.append(f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e5e8"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{value}</text>')
    parts += [f'<text x="{_x(n):.1f}" y="{_BOTTOM + 20}" text-anchor="middle" fill="#555555">{n}</text>' for n in AGENTS]
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 40}" text-anchor="middle" fill="#333333">agents</text>')
    for place, (name, colour, dashes) in enumerate(_LINES):
        points = [(_x(n), _y(value, top)) for n, value in zip(AGENTS, values[name], strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points if not dashes]
        y = _TOP + 20 + place * 22
        parts.append(f'<line x1="{_RIGHT + 12}" x2="{_RIGHT + 36}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"')
        parts[-1] += f' stroke-dasharray="{dashes}"/>'
        parts.append(f'<text x="{_RIGHT + 42}" y="{y + 4}" fill="#333333" font-size="11">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(agents: int) -> float:
    return _LEFT + 30 + (agents - 1) / (AGENTS[-1] - 1) * (_RIGHT - _LEFT - 60)


def _y(value: float, top: float) -> float:
    return _BOTTOM - value / top * (_BOTTOM - _TOP)
