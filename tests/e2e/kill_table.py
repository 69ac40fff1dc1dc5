"""The outcome of a command whose agent is killed at each fault point, as data: the table of docs/durability.md."""

from __future__ import annotations

from dataclasses import dataclass

from relay_agent.core.failpoints import Point


@dataclass(frozen=True, slots=True)
class Fate:
    """The final status at the platform, and how often the target was called in all."""

    status: str
    code: int | str
    asked: int


@dataclass(frozen=True, slots=True)
class Row:
    """One place to die: what had happened by then, and what comes of it after the next start.

    `journal` is the command's state at the death (None: not in the journal), `asked` how many requests the target had
    read by then, `reported` how often the one final answer reaches the platform in all. `repeatable` is for GET, HEAD, OPTIONS,
    TRACE, PUT, DELETE and whatever carries an Idempotency-Key, `once` for everything else.
    """

    when: str
    journal: str | None
    asked: int
    repeatable: Fate
    once: Fate
    reported: int = 1
    or_later: bool = False
    """Whether the workers have the command by then: a free one may have brought it further."""

    def cells(self) -> list[str]:
        """What the document says of this row."""
        journal = "nothing" if self.journal is None else f"`{self.journal}`"
        if self.or_later:
            return [self.when, f"{journal} or later", "as its state says", "as its state says"]
        return [self.when, journal, *(self._cell(fate) for fate in (self.repeatable, self.once))]

    def _cell(self, fate: Fate) -> str:
        answer = "the target's" if fate.status == "SUCCESS" else f"`{fate.code}`"
        return f"{answer}, {fate.asked}" + ("; the answer sent twice, identical" if self.reported == 2 else "")


def states_of(kind: str, recorded: str | None) -> set[str | None]:
    """The states in which the journal may have a command: what a GET has done until its outcome is recorded with the next commit."""
    return {recorded, "admitted", None} if kind == "get" and recorded in ("admitted", "started") else {recorded}


RAN = Fate("SUCCESS", 200, 1)
RAN_AGAIN = Fate("SUCCESS", 200, 2)
UNKNOWN_NOT_SENT = Fate("FAILURE", "EINTERRUPTED", 0)
UNKNOWN = Fate("FAILURE", "EINTERRUPTED", 1)

TABLE: dict[Point, Row] = {
    Point.RECEIVED: Row("after receive", None, 0, RAN, RAN),
    Point.BEFORE_COMMIT: Row("decoded, before the commit", None, 0, RAN, RAN),
    Point.AFTER_COMMIT: Row("after the commit", "admitted", 0, RAN, RAN),
    Point.BEFORE_ACK: Row("queued, before the ack", "admitted", 0, RAN, RAN, or_later=True),
    Point.AFTER_ACK: Row("after the ack, which is not recorded", "admitted", 0, RAN, RAN, or_later=True),
    Point.FETCHED: Row("its body downloaded from S3, not queued", "admitted", 0, RAN, RAN),
    Point.QUEUED: Row("with a worker, nothing sent", "admitted", 0, RAN, RAN),
    Point.STARTED: Row("connected, `started` recorded, nothing sent", "started", 0, RAN, UNKNOWN_NOT_SENT),
    Point.SENT: Row("the request sent, not answered", "started", 1, RAN_AGAIN, UNKNOWN),
    Point.ANSWERED: Row("the answer read, not recorded", "started", 1, RAN_AGAIN, UNKNOWN),
    Point.SPOOLED: Row("a large answer in `spool/`, not recorded", "started", 1, RAN_AGAIN, UNKNOWN),
    Point.RECORDED: Row("the answer recorded, not sent", "finished", 1, RAN, RAN),
    Point.UPLOADED: Row("a large answer in S3, the upload not recorded", "finished", 1, RAN, RAN),
    Point.SETTLED: Row("the upload recorded, the file not removed", "finished", 1, RAN, RAN),
    Point.BEFORE_ANSWER: Row("before the answer is sent", "finished", 1, RAN, RAN),
    Point.ANSWER_SENT: Row("SQS has the answer, the delivery not recorded", "finished", 1, RAN, RAN, reported=2),
    Point.DELIVERED: Row("the delivery recorded", "delivered", 1, RAN, RAN),
}
"""In the order of a command's way. A POST or PATCH is never asked for twice."""
