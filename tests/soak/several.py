"""A soak of several agents on one queue: start them, let misfortunes happen while commands are sent, repair everything, count.

Runs on the main thread (the conductor). `misfortunes` says what happens when, `checker` and `losses` judge, `several_report` prints.
"""

from __future__ import annotations

import heapq
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic

from tests.soak import misfortunes as kinds
from tests.soak.checker import Circumstances, Finding, Kind, Verdict, check
from tests.soak.front import FrontLoop, free_port
from tests.soak.harvest import Commands, Pace, wait_for
from tests.soak.losses import Deleted, Evidence, Loss
from tests.soak.machine import LEASE_SECONDS, TARGET_NAME, Machine
from tests.soak.misfortunes import Misfortune, draw
from tests.soak.plan import INSTRUMENTS
from tests.soak.strikes import Strikes
from tests.soak.target import CountingTarget
from tests.soak.witness import WitnessedSandbox

PER_SECOND = 30.0
MOST_OPEN = 400
MANY_GROUPS = 20
SETTLING_SECONDS = 120.0
_LOST_AT = 0.4
"""How much of the commands is sent when one machine is lost for good."""
_REPLACED_AFTER_SECONDS = 10.0
_STARTING_SECONDS = 60.0
_PROGRESS_SECONDS = 10.0
_LOOK_SECONDS = 0.25


@dataclass(slots=True)
class Result:
    """All that came of the soak of several agents."""

    seed: int
    agents: int
    seconds: float
    verdict: Verdict
    losses: dict[Loss, list[str]]
    happened: Counter[str]
    machines: list[Machine]
    commands: Commands
    target: CountingTarget
    sandbox: WitnessedSandbox
    evidence: Evidence
    settled_seconds: float
    left_on_queue: int


class Site:
    """Used once, with `with`: on leaving, every process, thread and port is closed."""

    def __init__(self, seed: int, agents: int, commands: int, directory: Path, say: Callable[[str], None]) -> None:
        self.seed, self.agents = seed, agents
        self._most = commands
        self._directory = directory / "several"
        self._say = say
        self._stack = ExitStack()
        self._numbers = count(1)
        self._pause = threading.Event()
        self._ending = False
        self._order = count()
        self._upcoming: list[tuple[float, int, Callable[[], object]]] = []

    def __enter__(self) -> Site:
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
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        self._fronts = enter(FrontLoop())
        self._target = enter(CountingTarget())
        self._sandbox = WitnessedSandbox(visibility_timeout=LEASE_SECONDS)
        enter(self._sandbox)
        self._strikes = Strikes(self._sandbox)
        self._target_port = free_port()
        self._machines: list[Machine] = []
        self._places = [self._new_machine() for _ in range(self.agents)]
        pace = Pace(PER_SECOND, self._most - 1, MOST_OPEN, _group)
        addresses = [f"{TARGET_NAME}:{self._target_port}"] * INSTRUMENTS
        self._commands = Commands(self._sandbox, self._sandbox.agent_id, self.seed, pace, addresses)

    def _new_machine(self) -> Machine:
        ports = (self._target_port, self._target.port)
        machine = Machine(next(self._numbers), self._sandbox, self._fronts, self._directory, ports, set)
        self._stack.callback(machine.log.close)
        self._machines.append(machine)
        return machine

    # -- the run ------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Send all commands while things go wrong, let all be well, and judge."""
        for machine in self._places:
            self._start(machine)
        wait_for(lambda: all(machine.supervisor.readies for machine in self._places), _STARTING_SECONDS)
        began = monotonic()
        self._commands.start()
        self._stack.callback(self._commands.finish)
        self._suffer(began)
        self._commands.stop_sending()
        seconds = monotonic() - began
        self._say(f"all is well again; waiting for what is open, at most {SETTLING_SECONDS:g} s")
        wait_for(self._settled, SETTLING_SECONDS)
        settled_seconds = monotonic() - began - seconds
        left = sum(self._sandbox.queue_depth(self._sandbox.agent_id))
        for machine in self._machines:
            machine.supervisor.finish()
        self._commands.finish()
        return self._judged(seconds, settled_seconds, left)

    def _start(self, machine: Machine) -> None:
        machine.supervisor.start()
        self._stack.callback(machine.supervisor.finish)

    def _suffer(self, began: float) -> None:
        drawn, lost = draw(self.seed, self.agents), False
        self._next(drawn, began)
        self._expect(_PROGRESS_SECONDS, lambda: self._progress(began))
        while not self._commands.all_sent:
            self._pause.wait(min(_LOOK_SECONDS, max(0.0, began + self._upcoming[0][0] - monotonic())))
            while self._upcoming[0][0] <= monotonic() - began:
                heapq.heappop(self._upcoming)[2]()
            if not lost and len(self._commands.sent) >= _LOST_AT * self._most:
                lost = True
                self._lose(monotonic() - began)
        # What is still wrong ends now, even if it was to last longer; nothing new begins.
        self._ending = True
        while self._upcoming:
            heapq.heappop(self._upcoming)[2]()

    def _expect(self, at: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._upcoming, (at, next(self._order), act))

    def _next(self, drawn: Iterator[Misfortune], began: float) -> None:
        if self._ending:
            return
        misfortune = next(drawn)

        def begin() -> None:
            machine = None if misfortune.agent is None else self._places[misfortune.agent]
            if not self._ending and not (machine is not None and machine.lost):
                self._expect(misfortune.end, self._strikes.begin(misfortune, machine))
            self._next(drawn, began)

        self._expect(misfortune.start, begin)

    def _lose(self, now: float) -> None:
        """Let the last agent's machine end for good; another takes its place later, with an empty disk."""
        gone = self._places[-1]
        self._strikes.lose(gone)
        held = sum(state != "delivered" for state in gone.journal().values())
        self._say(f"{gone.name}: {kinds.GONE}; its journal held {held} open commands")

        def replace() -> None:
            self._places[-1] = machine = self._new_machine()
            self._start(machine)
            self._say(f"{machine.name} takes its place")

        self._expect(now + _REPLACED_AFTER_SECONDS, replace)

    # -- the end ------------------------------------------------------------------------------------

    def _settled(self) -> bool:
        """Whether nothing more can come: no message waits, and what is open is in no living agent's journal."""
        if sum(self._sandbox.queue_depth(self._sandbox.agent_id)):
            return False
        held = {command_id for machine in self._machines if not machine.lost for command_id in machine.journal()}
        return not self._commands.open_ids() & held

    def _judged(self, seconds: float, settled_seconds: float, left: int) -> Result:
        ends = [end for machine in self._machines for end in machine.supervisor.ends]
        troubles = defaultdict(list, {str(instrument): self._strikes.troubles for instrument in range(INSTRUMENTS)})
        verdict = check(self._commands.sent, self._target.ledger.seen(), self._commands.reported, Circumstances(ends, troubles))
        evidence, losses = self._evidence(), defaultdict(list)
        ids = {command.number: command.id for command in self._commands.sent}
        findings: list[Finding] = []
        for finding in verdict.findings:
            loss = evidence.judge(ids[finding.number]) if finding.kind is Kind.LOST else Loss.FAULT
            if loss is Loss.FAULT:
                findings.append(finding)
            else:
                losses[loss].append(ids[finding.number])
        verdict.findings = findings
        return Result(
            seed=self.seed,
            agents=self.agents,
            seconds=seconds,
            verdict=verdict,
            losses=losses,
            happened=self._strikes.happened,
            machines=self._machines,
            commands=self._commands,
            target=self._target,
            sandbox=self._sandbox,
            evidence=evidence,
            settled_seconds=settled_seconds,
            left_on_queue=left,
        )

    def _evidence(self) -> Evidence:
        names = {machine.sqs.port: machine.name for machine in self._machines}
        witness = self._sandbox.witness
        deleted = {
            command_id: [
                Deleted(
                    names[event.port],
                    event.at,
                    max((out.at for out in witness.handed_out[command_id] if out.port == event.port), default=event.at) + LEASE_SECONDS,
                )
                for event in events
            ]
            for command_id, events in list(witness.deleted.items())
        }
        return Evidence(
            journals={machine.name: set(machine.journal()) for machine in self._machines},
            lost_machines={machine.name for machine in self._machines if machine.lost},
            deleted=deleted,
            struck=self._strikes.struck(),
        )

    def _progress(self, began: float) -> None:
        if self._ending:
            return
        wrong = ", ".join(f"{kind} ({count})" if count > 1 else kind for kind, count in self._strikes.now.items() if count > 0) or "nothing"
        starts = sum(machine.supervisor.starts for machine in self._machines)
        self._say(f"{len(self._commands.sent)} commands, {self._commands.open} open, {starts} starts; wrong now: {wrong}")
        self._expect(monotonic() - began + _PROGRESS_SECONDS, lambda: self._progress(began))


def _group(number: int) -> str | None:
    """Put half of the commands into the one group of the agent, the others into many."""
    return None if number % 2 else f"group {number // 2 % MANY_GROUPS}"
