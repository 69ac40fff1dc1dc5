"""The order in which bodies are downloaded: hosts that do not answer must not hold up the others.

This module owns the order and how many downloads of which hosts run at the same time. It knows no threads: its caller holds a lock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from enum import IntEnum

from relay_agent.relay.payload_reader import DOWNLOAD_TRY_SECONDS, Download

HOST_PLACES = 2
"""Downloads from one host at the same time."""
FIRST_TRY_SECONDS = 3.0
"""The longest try at a host that was not tried yet: so long may each of many dead hosts hold its place ahead of one that answers."""
MAX_HOSTS = 1000
"""Hosts whose last try is remembered."""


class Standing(IntEnum):
    """The result of the last try at a host; downloads from hosts of a lower value begin first."""

    ANSWERED = 0
    UNTRIED = 1
    FAILED = 2


PLACES = {Standing.ANSWERED: 8, Standing.UNTRIED: 5, Standing.FAILED: 2}
"""Downloads from all hosts of a standing at the same time; the last two together leave a place to hosts that answer."""
DOUBTFUL_PLACES = PLACES[Standing.UNTRIED] + PLACES[Standing.FAILED]
"""Downloads from all hosts that did not answer last: those that run count for the new standing as soon as another of their host failed."""


class DownloadQueue:
    """The downloads that are due, in a lane for each host. Each call takes the same time however many wait."""

    def __init__(self) -> None:
        self._lanes: dict[Standing, OrderedDict[Hashable, deque[Download]]] = {standing: OrderedDict() for standing in Standing}
        self._standings: OrderedDict[Hashable, Standing] = OrderedDict()
        self._running: Counter[Hashable] = Counter()

    def put(self, job: Download) -> None:
        """Add a download that is due."""
        self._lanes[self._standing(job.host)].setdefault(job.host, deque()).append(job)

    def take(self) -> Download | None:
        """Return the download that begins now, with the time for its try; None if none may. The caller must call `done` for it."""
        used = Counter(self._standing(host) for host in self._running.elements())
        for standing, lanes in self._lanes.items():
            doubtful = 0 if standing is Standing.ANSWERED else used[Standing.UNTRIED] + used[Standing.FAILED]
            if used[standing] < PLACES[standing] and doubtful < DOUBTFUL_PLACES:
                # Only hosts with a running download can be at their limit, so this looks at few lanes.
                host = next((host for host in lanes if self._running[host] < HOST_PLACES), None)
                if host is not None:
                    return self._begin(standing, host)
        return None

    def done(self, job: Download) -> None:
        """Record that a try has ended."""
        self._running[job.host] -= 1
        if self._running[job.host] <= 0:
            del self._running[job.host]
        if job.answered is not None:
            self._record(job.host, Standing.ANSWERED if job.answered else Standing.FAILED)

    # --- details ---

    def _begin(self, standing: Standing, host: Hashable) -> Download:
        lanes = self._lanes[standing]
        job = lanes[host].popleft()
        lanes.move_to_end(host)
        if not lanes[host]:
            del lanes[host]
        self._running[host] += 1
        job.seconds = FIRST_TRY_SECONDS if standing is Standing.UNTRIED else DOWNLOAD_TRY_SECONDS
        job.answered = None
        return job

    def _standing(self, host: Hashable) -> Standing:
        return self._standings.get(host, Standing.UNTRIED)

    def _record(self, host: Hashable, standing: Standing) -> None:
        self._change(host, standing)
        self._standings[host] = standing
        self._standings.move_to_end(host)
        if len(self._standings) > MAX_HOSTS:
            oldest = next(iter(self._standings))
            self._change(oldest, Standing.UNTRIED)
            del self._standings[oldest]

    def _change(self, host: Hashable, standing: Standing) -> None:
        """Move what waits for a host to its new standing."""
        waiting = self._lanes[self._standing(host)].pop(host, None)
        if waiting is not None:
            self._lanes[standing][host] = waiting
