"""One soak from start to end: start everything, carry out the plan, repair everything, count.

Runs on the main thread (the conductor). `checker` judges the result, `report` prints it.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.agents import agent_environment
from tests.soak.checker import Circumstances, Verdict, check
from tests.soak.front import Front, FrontLoop
from tests.soak.ground import Ground
from tests.soak.harvest import Commands, Pace, wait_for
from tests.soak.plan import DISK, INSTRUMENTS, Episode, draw
from tests.soak.platform import Outages, SoakSandbox
from tests.soak.supervisor import DRAIN_SECONDS, AgentLog, Supervisor
from tests.soak.target import CountingTarget

SETTLING_SECONDS = 90.0
_PROGRESS_SECONDS = 10.0
# An agent that was refused may end some time later, after its last attempt.
_EXCUSES = {"token refused": (3, 20.0)}


@dataclass(slots=True)
class Result:
    """All that came of a soak."""

    seed: int
    seconds: float
    verdict: Verdict
    outages: Counter[str]
    supervisor: Supervisor
    commands: Commands
    target: CountingTarget
    sandbox: SoakSandbox
    log: AgentLog
    settled_seconds: float
    left_on_queue: int
    lost_answers: int
    notes: list[str] = field(default_factory=list)


class Day:
    """Used once, with `with`: on leaving, every process, thread and port is closed."""

    def __init__(self, seed: int, seconds: float, directory: Path, own_mounts: bool, say: Callable[[str], None]) -> None:
        self.seed = seed
        self._plan = draw(seed, seconds)
        self._directory = directory
        self._own_mounts = own_mounts
        self._say = say
        self._stack = ExitStack()
        self._outages_seen: Counter[str] = Counter()
        self._ended: dict[str, float] = {}
        self._running: Counter[str] = Counter()
        self._troubles: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self._full: list[tuple[float, float]] = []
        self._pause = threading.Event()

    def __enter__(self) -> Day:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        enter = self._stack.enter_context
        self._directory.mkdir(parents=True, exist_ok=True)
        self.ground = Ground(self._directory, self._own_mounts)
        self._stack.callback(self.ground.close)
        fronts = enter(FrontLoop())
        self._target = enter(CountingTarget())
        self._instruments = [Front(fronts, self._target.port) for _ in range(INSTRUMENTS)]
        self._sandbox = SoakSandbox(fronts, self.ground)
        enter(self._sandbox)
        self._outages = Outages(self._sandbox, self.ground)
        self._log = AgentLog(self._directory / "agent.log")
        self._stack.callback(self._log.close)
        self._supervisor = Supervisor(self._environment(), self._directory, self._log, self._excused)
        addresses = [f"{front.host}:{front.port}" for front in self._instruments]
        self._commands = Commands(self._sandbox, self._sandbox.agent_id, self.seed, Pace.for_a_day(self._plan.seconds), addresses)

    def _environment(self) -> dict[str, str]:
        ours: dict[str, str | None] = {
            "RELAY_STATE_DIR": str(self.ground.disk / "state"),
            "RELAY_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}",
            "RELAY_LEASE_SECONDS": "5",
            "RELAY_HEARTBEAT_SECONDS": "5",
            "RELAY_CONFIG_REFRESH_SECONDS": "10",
            "RELAY_METRICS_SECONDS": "10",
            "no_proxy": "*",
        }
        return agent_environment(self._sandbox, self._sandbox.agent_id, self._directory, ours)

    # -- the run ------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Carry the plan out, let all be well, and judge."""
        began = monotonic()
        self._supervisor.start()
        self._stack.callback(self._supervisor.finish)
        self._commands.start()
        self._stack.callback(self._commands.finish)
        for at, act in self._timeline():
            self._pause.wait(max(0.0, began + at - monotonic()))
            act()
        self._commands.stop_sending()
        self._say(f"all is well again; waiting for what is open, at most {SETTLING_SECONDS:g} s")
        settling = monotonic()
        wait_for(self._settled, SETTLING_SECONDS)
        settled_seconds = monotonic() - settling
        left = sum(self._sandbox.queue_depth(self._sandbox.agent_id))
        self._supervisor.finish()
        self._commands.finish()
        circumstances = Circumstances(self._supervisor.ends, self._troubles, self._full)
        verdict = check(self._commands.sent, self._target.ledger.seen(), self._commands.reported, circumstances)
        return Result(
            seed=self.seed,
            seconds=self._plan.seconds,
            verdict=verdict,
            outages=self._outages_seen,
            supervisor=self._supervisor,
            commands=self._commands,
            target=self._target,
            sandbox=self._sandbox,
            log=self._log,
            settled_seconds=settled_seconds,
            left_on_queue=left,
            lost_answers=self._sandbox.aws.lost_answers,
            notes=self.ground.notes,
        )

    def _settled(self) -> bool:
        return self._commands.open == 0 and sum(self._sandbox.queue_depth(self._sandbox.agent_id)) == 0

    def _timeline(self) -> list[tuple[float, Callable[[], None]]]:
        events: list[tuple[float, Callable[[], None]]] = []
        for episode in self._plan.episodes:
            events.append((episode.start, lambda episode=episode: self._begin(episode)))  # type: ignore[misc]
            if episode.kind == DISK:
                # The space that the agent frees is filled again.
                events += [(episode.start + second, self.ground.fill) for second in range(1, int(episode.seconds) + 1)]
            events.append((episode.end, lambda episode=episode: self._end(episode)))  # type: ignore[misc]
        events += [(blow.start, lambda kind=blow.kind: self._supervisor.blow(kind)) for blow in self._plan.blows]  # type: ignore[misc]
        ticks = int(self._plan.seconds // _PROGRESS_SECONDS)
        events += [(tick * _PROGRESS_SECONDS, self._progress) for tick in range(1, ticks + 1)]
        return sorted([*events, (self._plan.seconds, lambda: None)], key=lambda event: event[0])

    def _begin(self, episode: Episode) -> None:
        self._log.write(f"soak: {episode.kind} {episode.where} begins\n")
        self._outages_seen[episode.kind] += {DISK: self.ground.has_disk, "dns gone": self.ground.has_name}.get(episode.kind, True)
        self._running[episode.kind] += 1
        if episode.kind == DISK:
            self.ground.fill()
        elif not episode.kind.startswith("target"):
            self._outages.begin(episode)
        elif episode.kind == "target refused":
            self._instruments[int(episode.where)].refuse()
        else:
            self._target.moods[episode.where] = (episode.kind, episode.amount)

    def _end(self, episode: Episode) -> None:
        self._log.write(f"soak: {episode.kind} {episode.where} ends\n")
        if episode.kind == DISK:
            self.ground.free()
            self._full.append((monotonic() - episode.seconds, monotonic()))
        elif not episode.kind.startswith("target"):
            self._outages.end(episode)
        elif episode.kind == "target refused":
            self._instruments[int(episode.where)].restore()
        else:
            self._target.moods.pop(episode.where, None)
        if episode.kind.startswith("target"):
            self._troubles[episode.where].append((monotonic() - episode.seconds, monotonic()))
        self._running[episode.kind] -= 1
        self._ended[episode.kind] = monotonic()

    def _excused(self) -> set[int]:
        """Exit codes that what is wrong just now, or was a moment ago, is a reason for. The supervisor's thread."""
        now = monotonic()
        return {
            code
            for kind, (code, seconds) in _EXCUSES.items()
            if self._running[kind] or now - self._ended.get(kind, now - seconds - 1) <= seconds
        }

    def _progress(self) -> None:
        wrong = ", ".join(kind for kind, count in self._running.items() if count) or "nothing"
        blows = self._supervisor.blows
        self._say(
            f"{len(self._commands.sent)} commands, {self._commands.open} open, {blows['kill']} kills, "
            f"{self._supervisor.starts} starts; wrong now: {wrong}"
        )
