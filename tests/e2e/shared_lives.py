"""Runs pairs of agents on one queue, one of which is killed or frozen at a fault point, and collects what is then seen of their commands.

How a point is reached is in `kill_scenes`, what is expected in `shared_table`.
"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
import uuid
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from relay_agent.core.failpoints import Point
from relay_agent.sandbox.server import Sandbox
from tests.agents import SHORTEST_LEASE_SECONDS, RunningAgent, page, wait_until
from tests.e2e.kill_lives import KINDS, Kind, Life
from tests.e2e.kill_scenes import SCENES, Scene, batched, plugged, waiting
from tests.e2e.shared_table import ROWS, Absence, Runner

SHARED: dict[str, str | None] = {"RELAY_SHARED_QUEUE": "true", "RELAY_LEASE_SECONDS": str(SHORTEST_LEASE_SECONDS)}
UNARMED: dict[str, str | None] = {"RELAY_FAULT_POINT": None}
LONG_LEASE_SECONDS = 60
MARGIN_SECONDS = 0.3
UNOWNED = tuple(point for point, row in ROWS.items() if row.claimed or row.journal is None)
"""The points before a command is the agent's. In these the agents also get a malformed message that names its command."""


def scene_of(point: Point) -> Scene:
    """How to reach a point: as one agent does, but nothing runs before the delete."""
    return replace(SCENES[point], way=waiting, workers=2) if point in (Point.BEFORE_ACK, Point.AFTER_ACK) else SCENES[point]


class SharedLife(Life):
    """Two agents of one id and their commands: the one that is away, and the other. `runner` is who should run the commands."""

    def __init__(self, sandbox: Sandbox, directory: Path, point: Point, absence: Absence) -> None:
        scene = scene_of(point)
        armed = f"{point}:{scene.times}" + (":stop" if absence is Absence.ASLEEP else "")
        super().__init__(sandbox, directory / "one", armed, scene.workers, SHARED)
        self.absence, self.runner = absence, ROWS[point].runners[absence]
        self.lease_seconds = SHORTEST_LEASE_SECONDS
        if absence is Absence.WITHIN and self.runner is Runner.THIS:  # However slow this machine is.
            self.agent.environment["RELAY_LEASE_SECONDS"] = str(LONG_LEASE_SECONDS)
        self.other = RunningAgent(sandbox, directory / "two", {**SHARED, "RELAY_WORKERS": "2"}, self.agent.agent_id)
        self.malformed: str | None = None
        self.claimed: set[str] = set()
        self.lines: list[str] = []
        """What the agent that was away logged, in both of its runs."""
        self.ceded = 0
        self._away_since = 0.0

    @property
    def ids(self) -> list[str]:
        """The ids of all commands."""
        return [trace.command.id for trace in self.traces.values()] + ([self.malformed] if self.malformed else [])

    def create_malformed(self) -> None:
        """Put a message on the queue that is no command but names one."""
        self.malformed = str(uuid.uuid4())
        self.sandbox.send_raw(self.agent.agent_id, json.dumps({"commandId": self.malformed}))

    def leaves(self) -> None:
        """Wait until the agent is killed or frozen, and look at what its journal holds."""
        if self.absence is Absence.ASLEEP:
            wait_until(self.sandbox, lambda: _state(self.agent.pid) == "T")
            rows = self._rows()
            for trace in self.traces.values():
                trace.journal = rows.get(trace.command.id)
        else:
            self.dies()
        self._away_since = time.monotonic()
        with closing(sqlite3.connect(self.agent.directory / "aside" / "journal.db")) as journal:
            self.claimed = {row[0] for row in journal.execute("SELECT id FROM commands WHERE lease_until IS NOT NULL")}

    def returns(self) -> None:
        """Let the other agent work, then the one that was away, and let both end their work."""
        for trace in self.traces.values():
            trace.asked_then = self.asked(trace.path)
        self.gate.release()
        self.other.start().ready()
        if self.absence is not Absence.WITHIN:
            after = self._away_since + self.lease_seconds + MARGIN_SECONDS
            wait_until(self.sandbox, lambda: time.monotonic() > after and (self.runner is not Runner.OTHER or self._all_final()))
        if self.absence is Absence.ASLEEP:
            self.agent.send_signal(signal.SIGCONT)
        else:
            self.lines += self.agent.lines.raw
            self.agent.start(UNARMED)
        self.agent.ready()
        if self.runner is not Runner.NOBODY:
            wait_until(self.sandbox, self._all_final, 30.0)
        wait_until(self.sandbox, lambda: self.sandbox.queue_depth(self.agent.agent_id) == (0, 0))
        expected = len(self.ids) if self.claimed and self.runner in (Runner.OTHER, Runner.NOBODY) else 0
        wait_until(self.sandbox, lambda: self._ceded() >= expected)
        self.ceded = self._ceded()
        self.exit_codes += [self.agent.stop(), self.other.stop()]
        self.lines += self.agent.lines.raw
        self.left_over = [str(entry) for one in (self.agent, self.other) for entry in (one.directory / "state" / "spool").iterdir()]
        self.target.close()

    def answered_by(self, agent: RunningAgent) -> set[str]:
        """The ids of the commands whose outcome an agent logged; of the one that was away in both runs."""
        lines = self.lines if agent is self.agent else agent.lines.raw
        return {line["id"] for line in map(json.loads, lines) if line["event"] == "command"}

    def remembered(self) -> set[str]:
        """The ids that the agent which was away mentions anywhere: in its log, its journal or another of its files."""
        files = [path.read_bytes() for path in self.state.rglob("*") if path.is_file()]
        text = "\n".join(self.lines).encode()
        return {one for one in self.ids if one.encode() in text or any(one.encode() in data for data in files)}

    def close(self) -> None:
        """End what may be left of it after an error."""
        self.other.__exit__()
        super().close()

    def _all_final(self) -> bool:
        done = self.malformed is None or self.malformed in self.answered_by(self.other) | _finished(self.agent)
        return done and all(trace.command.final for trace in self.traces.values()) and (self.plug is None or self.plug.final)

    def _ceded(self) -> int:
        found = re.search(r"^relay_agent_commands_ceded_total ([0-9.]+)", page(self.agent, "/metrics")[1], re.MULTILINE)
        assert found is not None
        return int(float(found[1]))


def _finished(agent: RunningAgent) -> set[str]:
    return {line["id"] for line in agent.events("command")}


def _state(pid: int) -> str:
    """The state of a process in Linux' letters: T if it is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def kinds_of(point: Point) -> list[tuple[Kind, ...]]:
    """The kinds of commands, life by life."""
    few = [kind for kind in KINDS if kind.name in ("get", "post")]
    return [(kind,) for kind in few] if SCENES[point].alone else [KINDS]


def live(sandbox: Sandbox, directory: Path, point: Point, absence: Absence, kinds: tuple[Kind, ...], reported: int) -> SharedLife:
    """Live one life to the point, leave there, return and live on to the end."""
    scene = scene_of(point)
    life = SharedLife(sandbox, directory, point, absence)
    try:
        if scene.way is plugged:
            life.create_plug("/plug")
        if scene.way is not batched:
            for size in scene.sizes:
                for kind in kinds:
                    life.create(kind, size, **({"delivery": "referenced"} if point is Point.FETCHED else {}))
        if point in UNOWNED:
            life.create_malformed()
        with ExitStack() as stack:
            scene.way(life, stack)
            life.leaves()
        life.returns()
        life.look(0 if life.runner is Runner.NOBODY else reported)
        return life
    finally:
        life.close()
