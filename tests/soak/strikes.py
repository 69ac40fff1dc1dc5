"""Carries out the misfortunes of several agents, and keeps what has to be known of them to judge the result.

Called by the conductor alone. `misfortunes` says what happens when.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from time import monotonic

from relay_agent.core.callbacks import nothing
from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.soak import misfortunes as kinds
from tests.soak.losses import Struck
from tests.soak.machine import Machine
from tests.soak.misfortunes import Misfortune
from tests.soak.supervisor import PAUSE_SECONDS

_DELETES = b"AmazonSQS.DeleteMessageBatch"
_LOST_AT_ONCE = 2
_FREEZES = (kinds.FREEZE, kinds.LONG_FREEZE)
_ENDS = (kinds.KILL, kinds.KILL_AWAY, kinds.STOP)
_TARGETS = (kinds.NO_TARGETS, kinds.HANGING_TARGETS)
_CLOCKS = {kinds.CLOCK_AHEAD: kinds.HOUR_SECONDS, kinds.CLOCK_BEHIND: -kinds.HOUR_SECONDS}
# A cut-off or frozen agent hears nothing of its deletes; a killed one until it is ready again.
_DEAFENING = (*_FREEZES, kinds.NO_SQS, kinds.HANGING_SQS, kinds.LOST_ANSWERS)


class Strikes:
    """What happened, and what is wrong now."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.happened: Counter[str] = Counter()
        self.now: Counter[str] = Counter()
        self.troubles: list[tuple[float, float]] = []
        """When some agent did not reach the targets, from and to."""
        self._sandbox = sandbox
        self._struck: list[Struck] = []
        self._falls: list[tuple[Machine, float]] = []

    def begin(self, misfortune: Misfortune, machine: Machine | None) -> Callable[[], object]:
        """Begin it, for one machine or for the queue, and return what ends it."""
        kind, began = misfortune.kind, monotonic()
        self.happened[kind] += 1
        self.now[kind] += 1
        undo = self._slow_deletes(misfortune) if machine is None else self._strike(machine, misfortune)
        if machine is not None:
            machine.log.write(f"soak: {kind} begins\n")

        def end() -> None:
            undo()
            self.now[kind] -= 1
            if machine is None:
                return
            machine.log.write(f"soak: {kind} ends\n")
            if kind in _TARGETS:
                self.troubles.append((began, monotonic()))
            elif kind in _DEAFENING and undo is not nothing:
                self._struck.append(Struck(machine.name, began, monotonic()))

        return end

    def lose(self, machine: Machine) -> None:
        """Let a machine end for good."""
        self.happened[kinds.GONE] += 1
        self._falls.append((machine, monotonic()))
        machine.lose()

    def struck(self) -> list[Struck]:
        """When which agent could hear nothing from SQS, once all is over."""
        found = list(self._struck)
        for machine, at in self._falls:
            back = next((ready for ready in machine.supervisor.readies if ready > at), float("inf"))
            found.append(Struck(machine.name, at, back))
        return found

    def _strike(self, machine: Machine, misfortune: Misfortune) -> Callable[[], object]:
        kind, supervisor = misfortune.kind, machine.supervisor
        if kind in _ENDS:
            supervisor.pause_seconds = misfortune.seconds
            self._falls.append((machine, monotonic()))
            supervisor.blow("stop" if kind == kinds.STOP else "kill")
            return lambda: setattr(supervisor, "pause_seconds", PAUSE_SECONDS)
        if kind in _FREEZES:
            return partial(supervisor.send_signal, signal.SIGCONT) if supervisor.send_signal(signal.SIGSTOP) else nothing
        if kind in _CLOCKS:
            machine.jump(_CLOCKS[kind])
            return lambda: machine.jump(0.0)
        front = machine.targets if kind in _TARGETS else machine.sqs
        if kind == kinds.LOST_ANSWERS:
            front.lose(_DELETES, _LOST_AT_ONCE)
        elif kind in (kinds.NO_SQS, kinds.NO_TARGETS):
            front.refuse()
        else:
            front.hang()
        return front.restore

    def _slow_deletes(self, misfortune: Misfortune) -> Callable[[], object]:
        fault = Fault("sqs", "DeleteMessageBatch", contains=self._sandbox.agent_id, hang_seconds=misfortune.amount, count=None)
        return self._sandbox.inject(fault).release
