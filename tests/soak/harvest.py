"""Sends the commands, and collects what was reported to the platform about each.

Runs the threads `soak-feeder` and `soak-harvester`; keeps digests of bodies, not the bodies.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from time import monotonic
from typing import Any

from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.server import Sandbox
from tests.soak.checker import Reported, Sent
from tests.soak.orders import digest, orders

# The sandbox forgets the oldest of 20,000.
MOST_COMMANDS = 18_000
COMMANDS_PER_SECOND = 10.0
# None expires during the day, even with a clock that is 40 minutes ahead.
_EXPIRES_SECONDS = 6 * 3600.0
_PASS_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """How commands are sent: how many a second and in all, how many of them open at a time, and in which message group each."""

    per_second: float
    most: int = MOST_COMMANDS
    most_open: int = MOST_COMMANDS
    group: Callable[[int], str | None] = lambda _: None

    @classmethod
    def for_a_day(cls, seconds: float) -> Pace:
        """The pace at which a day of so many seconds stays within the sandbox's memory."""
        return cls(min(COMMANDS_PER_SECOND, MOST_COMMANDS / max(seconds, 1.0)))


class Commands:
    """Every command of the soak, for instruments at these addresses (`host:port`). Two threads of its own write, any may read."""

    def __init__(self, sandbox: Sandbox, agent_id: str, seed: int, pace: Pace, addresses: list[str]) -> None:
        self.sent: list[Sent] = []
        self.reported: dict[int, Reported] = {}
        self.statuses: Counter[str] = Counter()
        self._sandbox = sandbox
        self._agent_id = agent_id
        self._orders = orders(seed)
        self._addresses = addresses
        self._gap = Random(f"{seed}-gaps")
        self._pace = pace
        self._commands: dict[int, Command] = {}
        self._open: dict[int, Command] = {}
        self._ripe: set[int] = set()
        self._fed, self._over = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._feed, name="soak-feeder"),
            threading.Thread(target=self._harvest, name="soak-harvester"),
        ]

    def start(self) -> None:
        """Begin to send and to gather."""
        for thread in self._threads:
            thread.start()

    def stop_sending(self) -> None:
        """Send no more, but for one last command that shows whether the agent still works."""
        self._fed.set()
        self._threads[0].join()
        self._send()

    def finish(self) -> None:
        """Gather what has come last, later repeats too, and end the threads."""
        self._fed.set()
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._pass()
        self._pass()
        for number, reported in self.reported.items():
            self.reported[number] = replace(reported, texts=_finals(self._commands[number]))

    @property
    def open(self) -> int:
        """How many have no final status yet."""
        return len(self._open)

    def open_ids(self) -> set[str]:
        """Which have no final status yet."""
        return {command.id for command in list(self._open.values())}

    @property
    def all_sent(self) -> bool:
        """Whether no more are sent, but for the last."""
        return len(self.sent) >= self._pace.most

    # -- soak-feeder -------------------------------------------------------------------------------

    def _feed(self) -> None:
        while not self.all_sent and not self._fed.wait(self._gap.expovariate(self._pace.per_second)):
            if self.open < self._pace.most_open:
                self._send()

    def _send(self) -> None:
        order = next(self._orders)
        delivery = "referenced" if order.referenced else None
        at = monotonic()
        payload, group = order.payload(self._addresses[order.instrument]), self._pace.group(order.number)
        command_id = self._sandbox.create_command(self._agent_id, payload, expires_in=_EXPIRES_SECONDS, delivery=delivery, group=group)
        command = self._sandbox.command(command_id)
        sent = Sent(
            number=order.number,
            id=command_id,
            method=order.method,
            repeatable=order.repeatable,
            digest=digest(order.body.encode()),
            at=at,
            referenced=command.delivery == "referenced",
            instrument=str(order.instrument),
        )
        # Its bodies are in the queue; here they would only use memory.
        command.payload = {}
        self._commands[order.number] = self._open[order.number] = command
        self.sent.append(sent)

    # -- soak-harvester ----------------------------------------------------------------------------

    def _harvest(self) -> None:
        while not self._over.wait(_PASS_SECONDS):
            self._pass()

    def _pass(self) -> None:
        for number, command in list(self._open.items()):
            if not command.final:
                continue
            # The status is set shortly before the body: read again.
            if number in self._ripe:
                self.reported[number] = _reported(command)
                self.statuses[self.reported[number].code or self.reported[number].status] += 1
                self._ripe.discard(number)
                del self._open[number]
            else:
                self._ripe.add(number)


def wait_for(predicate: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds, looked at every quarter of a second; whether it does."""
    waiting, end = threading.Event(), monotonic() + seconds
    while not predicate():
        if monotonic() >= end:
            return False
        waiting.wait(0.25)
    return True


def _reported(command: Command) -> Reported:
    body: Any = command.response_body if isinstance(command.response_body, dict) else {}
    command.response_body = None
    text = body.get("body")
    known = digest(text.encode()) if isinstance(text, str) else None
    return Reported(command.status, monotonic(), body.get("statusCode"), known, body.get("code"))


def _finals(command: Command) -> tuple[str, ...]:
    return tuple(text for text in list(command.updates) if json.loads(text)["status"] != "PROCESSING")
