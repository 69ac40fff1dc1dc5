"""When large answers are uploaded: the loop of the threads `uploader-0` and `uploader-1`.

Apart from the sender, so that an answer of 50 MB holds up no small one. It must not change what it uploads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from relay_agent.causes import SPOOL, Cause, Problem, cause_of
from relay_agent.clock import Clock
from relay_agent.codec import with_reason
from relay_agent.errors import PlatformError
from relay_agent.faultpoints import Point, reach
from relay_agent.models import Code, Status, Update
from relay_agent.outbox import Outbox, Upload
from relay_agent.outcomes import Outcomes
from relay_agent.spool import Spool
from relay_agent.tdp.client import PlatformClient
from relay_agent.tdp.payloads import PayloadRefused
from relay_agent.telemetry.logs import Logger, RepeatedFailure

TRY_SECONDS = 120.0
LOOK_SECONDS = 0.1
GIVE_UP_SECONDS = 3600.0
"""A presigned URL lives no longer than the credentials that signed it, an hour."""
SHOWN_SECONDS = 3600.0
"""How long the page tells of an answer that was given up."""
TELL_SECONDS = 10.0
"""How long before its sender stops waiting an answer is told without its body."""


class UploadTrouble:
    """Says of all uploaders together that uploads fail: one answer after the other is one failure that repeats.

    It is over when no answer waits for another try, so that one whose bucket is away and the others' success do not take turns.
    """

    def __init__(self, log: Logger, monotonic: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._last: Problem | None = None
        self._refused: Problem | None = None
        self._refused_at = 0.0
        self._log = log
        self._monotonic = monotonic
        self._trouble = RepeatedFailure(log, "upload-failed", "upload-recovered", monotonic, remind_seconds=300.0)

    def failed(self, command_id: str, error: PlatformError) -> None:
        """An answer's body could not be uploaded, and will be tried again."""
        cause = cause_of(error)
        with self._lock:
            self._failing.add(command_id)
            self._last = Problem(f"large answers cannot be uploaded: {error}", cause)
            self._trouble.failure(str(error), id=command_id, cause=cause.cause, cure=cause.cure)

    @property
    def problem(self) -> Problem | None:
        """What is wrong, while an answer waits for another try; and for an hour, or until one is uploaded, what was given up."""
        if self._failing:
            return self._last
        return self._refused if self._monotonic() - self._refused_at < SHOWN_SECONDS else None

    def uploaded(self, command_id: str) -> None:
        """It is where it belongs."""
        with self._lock:
            self._failing.discard(command_id)
            self._refused = None
            if not self._failing:
                self._trouble.success()

    def given_up(self, command_id: str, reason: str, cause: Cause) -> None:
        """It is told without its body: nothing that was mended."""
        self._log.error("upload-refused", id=command_id, reason=reason, cause=cause.cause, cure=cause.cure)
        with self._lock:
            self._refused = Problem(f"a large answer was told without its body: {reason}", cause)
            self._refused_at = self._monotonic()
            if command_id in self._failing:
                self._failing.discard(command_id)
                if not self._failing:
                    self._trouble.forget()


class Uploader:
    """Puts spooled answers where their presigned URLs say."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        outcomes: Outcomes,
        spool: Spool,
        outbox: Outbox,
        trouble: UploadTrouble,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._platform = platform
        self._outcomes = outcomes
        self._spool = spool
        self._outbox = outbox
        self._trouble = trouble
        self._clock = clock
        self._stop = stop

    def run(self) -> None:
        """Upload until None is taken, or the stop comes."""
        while (job := self._outbox.uploads.get()) is not None:
            if self._stop.is_set():
                return
            wait = job.due - self._clock.monotonic()
            if wait > 0:
                # Not its turn yet: those behind it must not wait for it.
                self._stop.wait(min(wait, LOOK_SECONDS))
                self._outbox.uploads.put(job)
                continue
            settled = self.upload(job)
            if settled is None:
                self._outbox.uploads.put(job)
                continue
            reach(Point.UPLOADED)
            self._outcomes.settle(settled)
            reach(Point.SETTLED)
            self._spool.remove(job.update.spool or "")
            self._outbox.uploaded(settled)

    def upload(self, job: Upload) -> Update | None:
        """Try once, and give what to tell; None where it is to be tried again when the job is due."""
        update = job.update
        assert update.spool is not None, "only spooled answers come here"
        try:
            self._platform.upload(
                update.upload_url or "", self._spool.path(update.spool), min(TRY_SECONDS, max(TELL_SECONDS, self._left(job)))
            )
            self._trouble.uploaded(update.command_id)
            return replace(update, spool=None, upload_url=None, fallback=None)
        except OSError:
            return self._without_body(update, "the spool file cannot be read", SPOOL)
        except PlatformError as error:
            if isinstance(error, PayloadRefused) or self._left(job) <= 0:
                return self._without_body(update, str(error), cause_of(error))
            self._trouble.failed(update.command_id, error)
            job.due = self._clock.monotonic() + min(job.waits.next_seconds(), max(0.0, self._left(job)))
            return None

    def _left(self, job: Upload) -> float:
        """Seconds until the answer must be told, with or without its body."""
        left = job.begun + GIVE_UP_SECONDS - self._clock.monotonic()
        if job.update.tell_by is None:
            return left
        return min(left, (job.update.tell_by - self._clock.now()).total_seconds() - TELL_SECONDS)

    def _without_body(self, update: Update, reason: str, cause: Cause) -> Update:
        self._trouble.given_up(update.command_id, reason, cause)
        fallback = update.fallback or update.message
        return Update(update.command_id, Status.FAILURE, with_reason(fallback, reason), code=Code.ERESPONSETOOLARGE)
