"""When a received command is this agent's own, and may run (docs/several-agents.md).

An agent that is alone on its queue owns a command as soon as its journal has it. Several agents on one queue let SQS decide: a command is
owned by the agent whose delete SQS confirms, if it was sent while the message was still leased to it. Until then it does not run and is
not answered. A command whose delete is refused, or is not confirmed before the lease ends, is ceded: another agent may have it.

This module owns acknowledgements. It runs no command, and must not decide about a command's content.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from relay_agent.core.clock import Clock
from relay_agent.core.errors import Call, JournalUnwritable, PlatformError
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.models import Update
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.platform_causes import ACK_REFUSED, cause_of
from relay_agent.relay.intake import Admitted
from relay_agent.relay.task import Refusal, Task
from relay_agent.storage.journal import Journal
from relay_agent.tdp.sqs import BATCH, Deleted, Lease, Queue, Received, hidden_by

SETTLE_LEASES = 10
"""How many further leases an inherited command waits for its message at most."""
Work = Task | Refusal | Update
"""A command to run, one to refuse, or an answer that an earlier run recorded."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Claim:
    """A command in the journal that is not this agent's until SQS confirms the delete of its message.

    An inherited one is of an agent that was alone on its queue, or that retires: nobody else can have received its message, so it is never
    ceded. If SQS refuses the receipt, the message either comes again, or was deleted before.

    Times are in seconds of `Clock.boottime`.
    """

    work: Work | None
    """None if the command was answered already, so that only its message must go."""
    receipt: str
    """Empty if SQS has refused it, or if the journal's copy was damaged."""
    lease_until: float = math.inf
    """When the claim ends; infinite if it is inherited."""
    hidden_until: float = -math.inf
    """Of an inherited claim without a receipt: from when on its message would come again, if it is in the queue."""

    @property
    def inherited(self) -> bool:
        """Whether it never ends."""
        return self.lease_until == math.inf


class Ownership:
    """Acknowledges messages, and releases each command to the workers once it is this agent's. Only the poller's thread calls.

    Before the threads start, the main thread calls `resume`; after the poller has ended, it may call `give_back`.
    """

    def __init__(
        self,
        *,
        shared: bool,
        lease: Lease,
        journal: Journal,
        clock: Clock,
        release: Callable[[Work], None],
        count_ceded: Callable[[int], None],
        loop: LoopContext,
    ) -> None:
        """`release` is called with each owned command, once; `count_ceded` receives the number of ceded commands.

        Setting the time of day must not change what `clock.now` returns (`boot_clock`).
        """
        self._shared = shared
        self._lease = lease
        self._journal = journal
        self._clock = clock
        self._release = release
        self._count_ceded = count_ceded
        self._claims: dict[str, _Claim] = {}
        self._left = {command_id: (receipt, until) for command_id, receipt, until in journal.claims()}
        """Claims of the last run, until they are resumed: receipt and end of the lease, in seconds since 1970."""
        self._earlier: dict[str, str] = {}
        """While retiring: receipts of further messages of claimed commands, with the ids. They are deleted before the claims' own."""
        self.deleting = False
        """Whether SQS's answer to an open delete decides whose a command is, so that a stop waits for it. Any thread may read it."""
        self._looked_at = float("-inf")
        """When the last receive began that found the queue empty, in seconds of `Clock.boottime`."""
        if shared:
            self.inherit()
        self._has_unacked = True
        self._ack_failure = loop.repeated_failure("ack-failed", "ack-recovered")
        self._refused_acks = loop.repeated_failure("ack-refused", "ack-accepted")

    @property
    def shared(self) -> bool:
        """Whether other agents receive from the queue too."""
        return self._shared

    @property
    def failing(self) -> bool:
        """Whether the last acknowledgement failed."""
        return self._ack_failure.failing

    def claimed(self) -> int:
        """Return how many commands wait for their delete to be confirmed, besides those whose messages must be received again."""
        return sum(bool(claim.receipt) for claim in self._claims.values())

    def awaited(self) -> int:
        """Return how many commands wait for their messages to be received again."""
        return sum(not claim.receipt for claim in self._claims.values())

    def inherited(self) -> int:
        """Return how many commands are left from the time when this agent was alone on its queue. Any thread may call."""
        return sum(claim.inherited for claim in list(self._claims.values()))

    def claimed_ids(self) -> set[str]:
        """Return the ids of the commands that wait for their delete to be confirmed."""
        return set(self._claims)

    def wall_lease(self, lease_until: float) -> float | None:
        """Return the end of a message's lease in seconds since 1970, for the journal; None if the journal owns the command at once."""
        return self._clock.now().timestamp() + lease_until - self._clock.boottime() if self._shared else None

    def still_leased(self, messages: list[Received]) -> list[Received]:
        """Return those received messages that may still be admitted."""
        now = self._clock.boottime()
        return [message for message in messages if message.lease_until > now] if self._shared else messages

    # --- main's thread, before the others start ---

    def inherit(self) -> None:
        """Claim what an agent alone on its queue had accepted, and whose message may still be there: from now on another may receive it."""
        # The journal keeps them as they are: until they are settled, each next run finds them too.
        self._left |= {command_id: (receipt, math.inf) for command_id, receipt in self._journal.unacked()}

    def resume(self, work: Work) -> None:
        """Take up what the last run left: what it owned is released, what it had only claimed is claimed again."""
        left = self._left.pop(id_of(work), None)
        if left is None:
            self._release(work)
            return
        receipt, until = left
        if until == math.inf:
            self._claims[id_of(work)] = self._inherited(work, receipt)
            return
        # It may be wrong if the machine restarted meanwhile: but no lease is longer than a whole one, and SQS has the last word.
        seconds = min(until - self._clock.now().timestamp(), float(self._lease.seconds))
        self._claims[id_of(work)] = _Claim(work, receipt, self._clock.boottime() + seconds)

    # --- the poller's thread ---

    def catch_up(self, queue: Queue) -> None:
        """Acknowledge what was not acknowledged yet: of the last run, and after a failure.

        Until then, or until its visibility timeout, SQS delivers nothing more of a message's group.
        """
        for command_id, (receipt, until) in self._left.items():  # Not resumed: they were answered before.
            if until == math.inf:
                self._claims[command_id] = self._inherited(None, receipt)
        self._left.clear()
        self._delete_earlier(queue)
        self._claim(queue)
        if not self._has_unacked:
            return
        unacked = [(command_id, receipt) for command_id, receipt in self._journal.unacked() if receipt and command_id not in self._claims]
        for start in range(0, len(unacked), BATCH):
            if not self._acknowledge(queue, unacked[start : start + BATCH]):
                return
        self._has_unacked = False

    def take(self, queue: Queue, received: Sequence[Received], admitted: Admitted) -> None:
        """Release what was admitted, and acknowledge it; several agents do it in the other order, and release only what they own.

        Raises:
            JournalError: what was admitted is not durable; nothing was acknowledged.
        """
        new: list[Work] = [*admitted.tasks, *admitted.refused]
        work = {id_of(one): one for one in new}
        others: list[tuple[str | None, str]] = []
        for message in received:
            command_id = admitted.ids.get(message.receipt)
            if command_id in self._claims:
                others += self._replace_receipt(command_id, message)
            elif self._shared and command_id in work and command_id is not None:
                self._claims[command_id] = _Claim(work.pop(command_id), message.receipt, message.lease_until)
            else:
                others.append((command_id, message.receipt))
        for one in work.values():
            self._release(one)
        if admitted.until_durable is not None:
            admitted.until_durable()
            reach(Point.AFTER_COMMIT)
        self._claim(queue)
        if others and not self._acknowledge(queue, others):
            self._has_unacked = True

    def recognise(self, queue: Queue, ids: Sequence[str | None], received: Sequence[Received]) -> list[Received]:
        """Acknowledge received messages whose commands the journal has, and return the others: for an agent that takes nothing more.

        `ids` are the messages' command ids, None for one without.

        Raises:
            JournalError: the journal cannot be read or written.
        """
        self._journal.flush()  # Else a command that was just ceded counts as known, and its message as this agent's to delete.
        known = self._journal.known([command_id for command_id in ids if command_id is not None])
        for command_id, message in zip(ids, received, strict=True):
            if command_id in self._claims:
                self._earlier |= {receipt: command_id for _, receipt in self._replace_receipt(command_id, message)}
            elif command_id is not None and command_id in known:
                self._claims[command_id] = self._inherited(None, message.receipt)
        self._delete_earlier(queue)
        self._claim(queue)
        return [message for command_id, message in zip(ids, received, strict=True) if command_id not in known]

    def receive(self, queue: Queue, most: int, wait_seconds: int) -> list[Received]:
        """Receive up to `most` messages. An empty receive shows that every message that could have come again is gone.

        A message that this agent holds keeps the rest of its message group back: while it does, an empty receive proves nothing.

        Raises:
            PlatformError: the answer was lost, or SQS refused. It may hide messages for a lease: only after that they can come again.
        """
        began = self._clock.boottime()
        try:
            received = queue.receive(most, wait_seconds, self._lease)
        except PlatformError:
            self._await_again()
            raise
        if not received and not self.claimed():
            self._looked_at = began
        return received

    # --- the poller's thread, or main's after that has ended ---

    def give_back(self, queue: Queue, held: Sequence[Received]) -> None:
        """Make SQS deliver again at once what this agent received and did not admit, so that nobody waits for the lease.

        What is claimed stays in the journal: SQS may have carried out a delete that it could not confirm.

        Raises:
            PlatformError: SQS was not reached; the messages come back when their leases end.
        """
        receipts = [message.receipt for message in held]
        for start in range(0, len(receipts), BATCH):
            queue.give_back(receipts[start : start + BATCH])

    # --- details ---

    def _inherited(self, work: Work | None, receipt: str) -> _Claim:
        """Return the claim of an inherited command; without a receipt it waits for its message."""
        # The last run may have ended during a receive.
        return _Claim(work, receipt, hidden_until=self._clock.boottime() + self._lease.hidden_seconds())

    def _replace_receipt(self, command_id: str, message: Received) -> list[tuple[None, str]]:
        """Claim a claimed command by the message that came now; return the earlier receipt, if there is one, for `_acknowledge`."""
        # Handed out again, only the new receipt can delete it. Sent twice by the platform, both messages must go.
        known = self._claims[command_id]
        until = math.inf if known.inherited else message.lease_until
        self._claims[command_id] = replace(known, receipt=message.receipt, lease_until=until)
        return [(None, known.receipt)] if known.receipt else []

    def _claim(self, queue: Queue) -> None:
        """Delete the messages of claimed commands; release what SQS confirms, cede what it refuses or what is no longer leased."""
        tried = set(self._earlier.values())
        while True:
            now = self._clock.boottime()
            self._cede([command_id for command_id, claim in self._claims.items() if claim.lease_until <= now])
            self._settle(now)
            if not self._claims and not self._has_unacked:
                self._ack_failure.forget()  # No delete is left that could succeed.
            batch = [(command_id, claim) for command_id, claim in self._claims.items() if claim.receipt and command_id not in tried][:BATCH]
            if not batch:
                return
            tried.update(command_id for command_id, _ in batch)
            until = min(claim.lease_until for _, claim in batch)
            found = self._delete(queue, [claim.receipt for _, claim in batch], lambda until=until: self._clock.boottime() < until)  # type: ignore[misc]
            if found is None:
                return
            self._own([command_id for place, (command_id, _) in enumerate(batch) if place in found.done])
            self._refused([command_id for place, (command_id, _) in enumerate(batch) if place in found.refused])

    def _delete_earlier(self, queue: Queue) -> None:
        """Delete further messages of claimed commands; those of commands that were ceded meanwhile are another agent's."""
        self._earlier = {receipt: command_id for receipt, command_id in self._earlier.items() if command_id in self._claims}
        receipts = list(self._earlier)
        for start in range(0, len(receipts), BATCH):
            if not self._acknowledge(queue, [(None, receipt) for receipt in receipts[start : start + BATCH]]):
                return
            for receipt in receipts[start : start + BATCH]:
                del self._earlier[receipt]

    def _own(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        # On disk before it runs: after a crash the next run must know that the message is gone.
        with contextlib.suppress(JournalUnwritable):
            self._journal.own(ids)
        for command_id in ids:
            work = self._claims.pop(command_id).work
            if work is not None:
                self._release(work)

    def _settle(self, now: float) -> None:
        """Own inherited commands whose messages did not come again: they were deleted, though that was not confirmed."""
        far = SETTLE_LEASES * self._lease.seconds  # On a busy queue no receive may ever find it empty.
        gone = max(self._looked_at, now - far)
        self._own([one for one, claim in self._claims.items() if claim.inherited and not claim.receipt and claim.hidden_until <= gone])

    def _refused(self, ids: Sequence[str]) -> None:
        """Cede commands whose receipts SQS refuses; an inherited one waits for its message."""
        for command_id in ids:
            if self._claims[command_id].inherited:
                self._claims[command_id] = self._inherited(self._claims[command_id].work, "")
            else:
                self._cede([command_id])

    def _await_again(self) -> None:
        """Note that the messages of inherited commands may be hidden for a lease from now."""
        until = self._clock.boottime() + hidden_by(self._lease.seconds)
        for command_id, claim in self._claims.items():
            if not claim.receipt:
                self._claims[command_id] = replace(claim, hidden_until=max(claim.hidden_until, until))

    def _cede(self, ids: Sequence[str]) -> None:
        """Forget commands that may be another agent's: they are neither run nor answered here, and may be admitted again."""
        for command_id in ids:
            del self._claims[command_id]
        if ids:
            self._journal.cede(ids)
            self._count_ceded(len(ids))

    def _acknowledge(self, queue: Queue, messages: Sequence[tuple[str | None, str]]) -> bool:
        """Delete (command id, receipt) pairs from the queue; return whether the call succeeded.

        A message that is not deleted is delivered again and recognised by its id; an invalid receipt does no harm.
        """
        found = self._delete(queue, [receipt for _, receipt in messages])
        if found is not None:
            self._journal.acked(command_id for place, (command_id, _) in enumerate(messages) if command_id and place in found.done)
            if len(found.done) + len(found.refused) == len(messages):
                return True
        self._await_again()
        return False

    def _delete(self, queue: Queue, receipts: Sequence[str], still: Callable[[], bool] = _always) -> Deleted | None:
        """Delete messages; return the outcome of each, or None if the call failed. `still` is as for `Queue.delete`."""
        reach(Point.BEFORE_ACK)
        self.deleting = self._shared
        try:
            found = queue.delete(receipts, still)
        except PlatformError as error:
            self._ack_failure.failure(error.reason, cause_of(error), messages=len(receipts))
            return None
        finally:
            self.deleting = False
        reach(Point.AFTER_ACK)
        unconfirmed = len(receipts) - len(found.done) - len(found.refused)
        if unconfirmed:
            failed = PlatformError(Call.SQS_DELETE, f"AWS says {found.code}", aws_code=found.code)
            self._ack_failure.failure(failed.reason, cause_of(failed), messages=unconfirmed)
        else:
            self._ack_failure.success()
        if found.refused and not self._shared:
            self._refused_acks.failure("refused", ACK_REFUSED, messages=len(found.refused))
        elif not found.refused:
            self._refused_acks.success()
        return found


def id_of(work: Work) -> str:
    """Return the command's id."""
    return work.command_id if isinstance(work, Update) else work.command.id
