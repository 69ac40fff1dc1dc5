"""Temporary AWS credentials: renewed before they expire, and at once if AWS says that they have.

This module owns the one set of credentials that all AWS clients share. It must not know what they are used for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from botocore.credentials import Credentials, ReadOnlyCredentials

from relay_agent.core.clock import RECHECK_SECONDS, Clock
from relay_agent.core.errors import Call, PlatformUnreachable
from relay_agent.tdp.rest import TemporaryCredentials

MARGIN = timedelta(minutes=10)
"""How long before their expiration credentials are renewed, but at most a fifth of their lifetime."""
MAX_LIFETIME = timedelta(hours=1)
"""After this time credentials are renewed whatever expiration the platform gives (PROTOCOL §1), so that wrong ones do not stay."""
RETRY_INTERVAL = timedelta(minutes=1)
"""When credentials that seem expired on arrival are renewed: this machine's clock may be far ahead."""


class PlatformCredentials(Credentials):
    """The credentials that botocore signs with, whichever are current at that moment.

    Reading them does not wait once there are any. One thread fetches at a time; the others wait for its result, since they cannot
    sign without it.
    """

    def __init__(self, fetch: Callable[[], TemporaryCredentials], clock: Clock, seen: Callable[[str, str], None]) -> None:
        """`seen` is called with each new secret key and session token before they are used."""
        super().__init__("", "", "", method="tdp-agent-credentials")
        self._fetch = fetch
        self._seen = seen
        self._clock = clock
        self._fetching = threading.Lock()
        self._aborted: dict[str, threading.Event] = {}
        self._current: TemporaryCredentials | None = None
        self._due: datetime | None = None

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the current credentials, fetching the first (botocore's interface).

        Raises:
            PlatformError: there are none yet, and the platform gives none.
        """
        current = self._current or self.renew(None)
        return ReadOnlyCredentials(current.access_key, current.secret_key, current.token)

    @property
    def expiration(self) -> datetime | None:
        """When the current credentials expire (UTC), None before the first."""
        return self._current.expiration if self._current else None

    @property
    def access_key_in_use(self) -> str | None:
        """The access key id of the current credentials, which `renew` takes if they were refused; None before the first."""
        return self._current.access_key if self._current else None

    def due_seconds(self) -> float:
        """Return the seconds until the credentials should be renewed, 0 if that is now."""
        return 0.0 if self._due is None else max(0.0, (self._due - self._clock.now()).total_seconds())

    def renew(self, refused: str | None) -> TemporaryCredentials:
        """Return new credentials, or the current ones if those with the access key id `refused` were already replaced.

        Raises:
            PlatformError: the platform gives none, or `abort_call` ended the wait for another thread's fetching.
        """
        with self._alone():
            if self._current is not None and self._current.access_key != refused:
                return self._current
            fetched = self._fetch()
            self._seen(fetched.secret_key, fetched.token)
            now = self._clock.now()
            ends = min(fetched.expiration, now + MAX_LIFETIME)
            self._due = ends - min(MARGIN, (ends - now) / 5) if ends > now else now + RETRY_INTERVAL
            self._current = fetched
            return fetched

    def abort_call(self, thread: str) -> None:
        """End the wait of the thread of that name for another thread's fetching."""
        event = self._aborted.get(thread)
        if event is not None:
            event.set()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock for fetching."""
        # Waiting for a lock cannot be interrupted, so the thread looks for `abort_call` between short waits.
        name, given_up = threading.current_thread().name, threading.Event()
        self._aborted[name] = given_up
        try:
            while not self._fetching.acquire(timeout=RECHECK_SECONDS):
                if given_up.is_set():
                    raise PlatformUnreachable(Call.CREDENTIALS, "the wait for new credentials was interrupted")
        finally:
            self._aborted.pop(name, None)
        try:
            yield
        finally:
            self._fetching.release()
