"""What becomes of a command of a shared queue whose agent is killed or frozen at each place, as data: the table of docs/durability.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relay_agent.core.failpoints import Point


class Absence(StrEnum):
    """How the agent is away from a point on, while another agent of its id runs."""

    WITHIN = "killed, back within the lease"
    AFTER = "killed, back after the lease"
    ASLEEP = "asleep until after the lease"


class Runner(StrEnum):
    """Which agent runs and answers the command, as the document says it."""

    THIS = "this agent, 1"
    OTHER = "the other, 1"
    EITHER = "whoever receives it then, 1"
    NOBODY = "nobody, 0"
    AS_ALONE = "this agent, as above"
    """As the table for one agent says of this point."""


@dataclass(frozen=True, slots=True)
class SharedRow:
    """One place: its points, what the journal holds there, and who runs the command after each absence.

    `journal` is the command's state (None: not in the journal), `claimed` whether it is not yet this agent's.
    """

    points: tuple[Point, ...]
    when: str
    journal: str | None
    claimed: bool
    runners: dict[Absence, Runner]

    def cells(self) -> list[str]:
        """What the document says of this row."""
        journal = "nothing" if self.journal is None else f"`{self.journal}`" + (", claimed" if self.claimed else "")
        return [self.when, ", ".join(f"`{point}`" for point in self.points), journal, *(self.runners[absence] for absence in Absence)]


def _runners(within: Runner, after: Runner, asleep: Runner) -> dict[Absence, Runner]:
    return {Absence.WITHIN: within, Absence.AFTER: after, Absence.ASLEEP: asleep}


_OWNED = _runners(Runner.AS_ALONE, Runner.AS_ALONE, Runner.THIS)

SHARED_TABLE = (
    SharedRow((Point.RECEIVED, Point.BEFORE_COMMIT), "received", None, False, _runners(Runner.EITHER, Runner.OTHER, Runner.OTHER)),
    SharedRow((Point.AFTER_COMMIT,), "admitted", "admitted", True, _runners(Runner.THIS, Runner.OTHER, Runner.OTHER)),
    SharedRow(
        (Point.BEFORE_ACK,),
        "delete sent, and not carried out",
        "admitted",
        True,
        _runners(Runner.THIS, Runner.OTHER, Runner.OTHER),
    ),
    SharedRow(
        (Point.AFTER_ACK,), "delete carried out, and not recorded", "admitted", True, _runners(Runner.THIS, Runner.NOBODY, Runner.THIS)
    ),
    SharedRow((), "delete refused, so ceded", None, False, _runners(Runner.OTHER, Runner.OTHER, Runner.OTHER)),
    SharedRow((Point.FETCHED, Point.QUEUED), "owned; the lease ends while it is queued", "admitted", False, _OWNED),
    SharedRow(
        (Point.STARTED, Point.SENT, Point.ANSWERED, Point.SPOOLED),
        "owned; the lease ends while it runs",
        "started",
        False,
        _OWNED,
    ),
    SharedRow(
        (Point.RECORDED, Point.UPLOADED, Point.SETTLED, Point.BEFORE_ANSWER, Point.ANSWER_SENT),
        "owned; the lease ends while its answer waits",
        "finished",
        False,
        _OWNED,
    ),
    SharedRow((Point.DELIVERED,), "answered", "delivered", False, _OWNED),
)
"""In the order of a command's way. A command is released to the workers only once it is owned: from then on the lease no longer matters."""

ROWS = {point: row for row in SHARED_TABLE for point in row.points}
