"""When large answers are uploaded: the loop of the threads `uploader-0` and `uploader-1`.

Apart from the sender, so that an answer of 50 MB holds up no small one. It must not change what it uploads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from relay_agent.errors import PlatformError
from relay_agent.journal import Journal
from relay_agent.models import Status, Update
from relay_agent.outbox import Outbox
from relay_agent.periodic import Backoff
from relay_agent.spool import Spool
from relay_agent.tdp.client import PlatformClient
from relay_agent.tdp.payloads import PayloadRefused
from relay_agent.telemetry.logs import Logger

TRY_SECONDS = 120.0
GIVE_UP_SECONDS = 3600.0
"""A presigned URL lives no longer than the credentials that signed it, an hour."""


class Uploader:
    """Puts spooled answers where their presigned URLs say."""

    def __init__(
        self,
        *,
        platform: PlatformClient,
        journal: Journal,
        spool: Spool,
        outbox: Outbox,
        log: Logger,
        monotonic: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self._platform = platform
        self._journal = journal
        self._spool = spool
        self._outbox = outbox
        self._log = log
        self._monotonic = monotonic
        self._stop = stop

    def run(self) -> None:
        """Upload until None is taken, or the stop comes."""
        while (update := self._outbox.uploads.get()) is not None:
            settled = self.upload(update)
            if settled is None:
                return
            self._journal.settle(settled)
            self._spool.remove(update.spool or "")
            self._outbox.uploaded(settled)

    def upload(self, update: Update) -> Update | None:
        """Upload one answer's body and give what to tell; None when the stop came first."""
        assert update.spool is not None, "only spooled answers come here"
        begun, waits = self._monotonic(), Backoff()
        while not self._stop.is_set():
            try:
                self._platform.upload(update.upload_url or "", self._spool.path(update.spool), TRY_SECONDS)
                return replace(update, spool=None, upload_url=None, fallback=None)
            except (PayloadRefused, OSError, ValueError) as error:  # ValueError: mmap of an empty file
                return self._without_body(update, str(error) if isinstance(error, PayloadRefused) else "the spool file cannot be read")
            except PlatformError as error:
                if self._monotonic() - begun > GIVE_UP_SECONDS:
                    return self._without_body(update, str(error))
                self._log.warning("upload-failed", id=update.command_id, reason=str(error))
            self._stop.wait(waits.next_seconds())
        return None

    def _without_body(self, update: Update, reason: str) -> Update:
        self._log.error("upload-refused", id=update.command_id, reason=reason)
        return Update(update.command_id, Status.FAILURE, update.fallback or update.message)
