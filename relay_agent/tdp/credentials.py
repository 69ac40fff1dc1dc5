"""Temporary AWS credentials: fetched before they end, and at once when AWS says that they have.

This room owns the one set of credentials that all AWS clients share. It must not know what they are used for.
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
"""How long before their end credentials are renewed; a fifth of their life where that is shorter."""


MOST = timedelta(hours=1)
"""How long credentials live (PROTOCOL §1), whatever the platform says: wrong ones must not stay for ever."""
AGAIN = timedelta(minutes=1)


class PlatformCredentials(Credentials):
    """What botocore signs with: whatever is current at the moment of signing.

    Reading never waits. Fetching is one at a time: who finds another fetching waits for its result, since
    nothing can be signed without it.
    """

    def __init__(self, fetch: Callable[[], TemporaryCredentials], clock: Clock, seen: Callable[[str, str], None]) -> None:
        """`seen` is told each new secret key and session token before they are used."""
        super().__init__("", "", "", method="tdp-agent-credentials")
        self._fetch = fetch
        self._seen = seen
        self._clock = clock
        self._fetching = threading.Lock()
        self._broken_off: dict[str, threading.Event] = {}
        self._current: TemporaryCredentials | None = None
        self._due: datetime | None = None

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """The current credentials (botocore's interface)."""
        current = self._current or self.renew(None)
        return ReadOnlyCredentials(current.access_key, current.secret_key, current.token)

    @property
    def expiration(self) -> datetime | None:
        """When the current ones end (UTC)."""
        return self._current.expiration if self._current else None

    @property
    def access_key_in_use(self) -> str | None:
        """The current ones' public part, to say later which were refused."""
        return self._current.access_key if self._current else None

    def due_seconds(self) -> float:
        """Seconds until they should be renewed, 0 when that is now."""
        return 0.0 if self._due is None else max(0.0, (self._due - self._clock.now()).total_seconds())

    def renew(self, refused: str | None) -> TemporaryCredentials:
        """Fetch new ones, unless those with the access key `refused` were replaced meanwhile.

        Raises:
            PlatformError: the platform gives none, or the wait for another's fetching was broken off.
        """
        with self._alone():
            if self._current is not None and self._current.access_key != refused:
                return self._current
            fetched = self._fetch()
            self._seen(fetched.secret_key, fetched.token)
            now = self._clock.now()
            ends = min(fetched.expiration, now + MOST)
            # Where this machine's clock is far ahead they look ended when they come: not again and again.
            self._due = ends - min(MARGIN, (ends - now) / 5) if ends > now else now + AGAIN
            self._current = fetched
            return fetched

    def break_off(self, thread: str) -> None:
        """End the wait of the thread of that name for another that fetches."""
        event = self._broken_off.get(thread)
        if event is not None:
            event.set()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of those who fetch. A lock's wait cannot be broken off, so it is taken a moment at a time."""
        name, given_up = threading.current_thread().name, threading.Event()
        self._broken_off[name] = given_up
        try:
            while not self._fetching.acquire(timeout=RECHECK_SECONDS):
                if given_up.is_set():
                    raise PlatformUnreachable(Call.CREDENTIALS, "the wait for new credentials was broken off")
        finally:
            self._broken_off.pop(name, None)
        try:
            yield
        finally:
            self._fetching.release()
