"""Which transfers to and from Amazon S3 fail now."""

from __future__ import annotations

import threading
from collections.abc import Callable

from relay_agent.core.errors import PayloadFault, PayloadRefused, PlatformError
from relay_agent.core.failures import Cause
from relay_agent.diagnostics.causes import SHOWN_SECONDS, Problem
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.repeated_failure import RepeatedFailure

FALLBACK_LEAD_SECONDS = 10.0
"""An answer is sent without its body this long before its sender stops waiting."""


class UploadFailures:
    """Reports for all uploaders together that uploads fail; several answers in a row are one failure that repeats.

    The failure ends when no answer waits for another try: one unreachable bucket beside uploads that succeed must not begin and end it
    again and again.
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
        """Record that an answer's body could not be uploaded, and will be tried again."""
        cause = cause_of(error)
        with self._lock:
            self._failing.add(command_id)
            self._last = Problem(f"large answers cannot be uploaded: {error}", cause)
            self._trouble.failure(str(error), cause, id=command_id)

    @property
    def problem(self) -> Problem | None:
        """The failure while an answer waits for another try; then the upload that was given up, for an hour or until the next success."""
        if self._failing:
            return self._last
        return self._refused if self._monotonic() - self._refused_at < SHOWN_SECONDS else None

    def uploaded(self, command_id: str) -> None:
        """Record that an answer's body was uploaded."""
        with self._lock:
            self._failing.discard(command_id)
            self._refused = None
            if not self._failing:
                self._trouble.success()

    def given_up(self, command_id: str, reason: str, cause: Cause) -> None:
        """Record that an answer is sent without its body."""
        self._log.error("upload-refused", id=command_id, reason=reason, cause=cause.cause, cure=cause.cure)
        with self._lock:
            self._refused = Problem(f"a large answer was sent without its body: {reason}", cause)
            self._refused_at = self._monotonic()
            if command_id in self._failing:
                self._failing.discard(command_id)
                if not self._failing:
                    self._trouble.forget()


class DownloadFailures:
    """Reports for all fetchers together that commands' bodies cannot be downloaded; the failure ends with the next success."""

    def __init__(self, log: Logger, monotonic: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._last: Problem | None = None
        self._at = 0.0
        self._trouble = RepeatedFailure(log, "download-failed", "download-recovered", monotonic, remind_seconds=300.0)

    def note(self, error: PlatformError | None) -> None:
        """Record the error of a download, None if it succeeded; a body that is too large is its sender's mistake, not a failure."""
        with self._lock:
            if error is None:
                self._trouble.success()
                self._last = None
            elif not (isinstance(error, PayloadRefused) and error.why is PayloadFault.TOO_LARGE):
                cause = cause_of(error)
                self._trouble.failure(error.reason, cause)
                self._last, self._at = Problem(f"commands' bodies cannot be downloaded: {error}", cause), self._monotonic()

    @property
    def problem(self) -> Problem | None:
        """The current failure, until a body is downloaded, for an hour at most."""
        return self._last if self._monotonic() - self._at < SHOWN_SECONDS else None
