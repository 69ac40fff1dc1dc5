"""When large answers are uploaded: the loop of the threads `uploader-0` and `uploader-1`.

Uploads have threads of their own so that a 50 MB answer does not delay small ones. It never changes what it uploads.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from relay_agent.core.clock import HOUR_SECONDS, Clock
from relay_agent.core.errors import PayloadRefused, PlatformError
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Cause, Code
from relay_agent.core.models import Status, Update
from relay_agent.diagnostics.local_causes import SPOOL
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.diagnostics.transfer_failures import FALLBACK_LEAD_SECONDS, UploadFailures
from relay_agent.protocol.responses import with_reason
from relay_agent.relay.outbox import Outbox, Upload
from relay_agent.relay.outcomes import Outcomes
from relay_agent.storage.spool import Spool
from relay_agent.tdp.client import PlatformClient

TRY_SECONDS = 120.0
NOT_DUE_SECONDS = 0.1
"""How long a thread waits with an upload that is not due yet, before it takes the next."""
GIVE_UP_SECONDS = HOUR_SECONDS
"""A presigned URL is valid no longer than the credentials that signed it: one hour."""


class Uploader:
    """Uploads spooled answers to their presigned URLs."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        outcomes: Outcomes,
        spool: Spool,
        outbox: Outbox,
        failures: UploadFailures,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._platform = platform
        self._outcomes = outcomes
        self._spool = spool
        self._outbox = outbox
        self._failures = failures
        self._clock = clock
        self._stop = stop

    def run(self) -> None:
        """Upload until `uploads` yields None, or the stop."""
        while (job := self._outbox.uploads.get()) is not None:
            if self._stop.is_set():
                return
            wait = job.due - self._clock.monotonic()
            if wait > 0:
                # Not due yet: the jobs behind it must not wait for it.
                self._stop.wait(min(wait, NOT_DUE_SECONDS))
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
        """Try once, and return the final update; returns None if the job is to be tried again when due."""
        update = job.update
        assert update.spool is not None, "only spooled answers are uploaded"
        try:
            self._platform.upload(
                update.upload_url or "", self._spool.path(update.spool), min(TRY_SECONDS, max(FALLBACK_LEAD_SECONDS, self._left(job)))
            )
            self._failures.uploaded(update.command_id)
            return replace(update, spool=None, upload_url=None, fallback=None)
        except OSError:
            return self._without_body(update, "the spool file cannot be read", SPOOL)
        except PlatformError as error:
            if isinstance(error, PayloadRefused) or self._left(job) <= 0:
                return self._without_body(update, str(error), cause_of(error))
            self._failures.failed(update.command_id, error)
            job.due = self._clock.monotonic() + min(job.waits.next_seconds(), max(0.0, self._left(job)))
            return None

    def _left(self, job: Upload) -> float:
        """Return the seconds until the answer must be sent, with or without its body."""
        left = job.begun + GIVE_UP_SECONDS - self._clock.monotonic()
        if job.update.tell_by is None:
            return left
        return min(left, (job.update.tell_by - self._clock.now()).total_seconds() - FALLBACK_LEAD_SECONDS)

    def _without_body(self, update: Update, reason: str, cause: Cause) -> Update:
        self._failures.given_up(update.command_id, reason, cause)
        fallback = update.fallback or update.message
        return Update(update.command_id, Status.FAILURE, with_reason(fallback, reason), code=Code.ERESPONSETOOLARGE)
