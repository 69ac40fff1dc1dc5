"""What fails now of the transfers to and from Amazon S3."""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay_agent.core.errors import PayloadFault, PayloadRefused, PlatformError
from relay_agent.core.failures import Cause
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.repeated_failure import RepeatedFailure

SHOWN_SECONDS = 3600.0
"""How long the page tells of an answer that was given up."""


TELL_SECONDS = 10.0
"""How long before its sender stops waiting an answer is told without its body."""


class UploadFailures:
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
            self._trouble.failure(str(error), cause, id=command_id)

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


SHOWN_SECONDS = 3600.0
"""How long the page tells of a body that could not be had, while no other was asked for."""


class DownloadFailures:
    """Says of all fetchers together that commands' bodies cannot be fetched; over when one is."""

    def __init__(self, log: Logger, monotonic: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._last: Problem | None = None
        self._at = 0.0
        self._trouble = RepeatedFailure(log, "download-failed", "download-recovered", monotonic, remind_seconds=300.0)

    def note(self, error: PlatformError | None) -> None:
        """Take what came of a try, None where it worked; a body that is too large is its sender's."""
        with self._lock:
            if error is None:
                self._trouble.success()
                self._last = None
            elif not (isinstance(error, PayloadRefused) and error.why is PayloadFault.TOO_LARGE):
                cause = cause_of(error)
                self._trouble.failure(error.reason, cause)
                self._last, self._at = Problem(f"commands' bodies cannot be fetched: {error}", cause), self._monotonic()

    @property
    def problem(self) -> Problem | None:
        """What is wrong, until a body is fetched, for an hour at most."""
        return self._last if self._monotonic() - self._at < SHOWN_SECONDS else None
