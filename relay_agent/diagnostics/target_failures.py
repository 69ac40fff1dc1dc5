"""Failures of targets, host by host: logged when they begin, change and end, and shown while they last.

Owns which failures of commands concern an administrator, and how many lines they may cost, since senders choose the hosts. It must not
talk to a target; causes and cures are in `network_causes`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from relay_agent.core.clock import HOUR_SECONDS, Clock
from relay_agent.core.failures import Cause, Code
from relay_agent.core.models import Url, host_and_port
from relay_agent.diagnostics.causes import SHOWN_SECONDS, Problem
from relay_agent.diagnostics.network_causes import MORE_TARGETS, TO_TARGET, on_the_way
from relay_agent.telemetry.logger import WITHHELD, Logger
from relay_agent.telemetry.repeated_failure import RepeatedFailure
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.proxy_connect import ProxyRefused

MOST_HOSTS = 64
"""How many hosts are remembered: those that failed last."""
MOST_SHOWN = 5
REMIND_SECONDS = HOUR_SECONDS
LINES_AN_HOUR = 30
"""For all hosts together, each with a second line when it recovers: less than 1 MB a day, whatever senders request."""
HOST_LINES_AN_HOUR = 10
_BY_PROXY = frozenset({407, 502, 503, 504})
"""Statuses with which a proxy answers a request that it could not or would not forward."""


class _Allowance:
    """A number of log lines per hour."""

    def __init__(self, most: int, monotonic: Callable[[], float]) -> None:
        self._most = self._left = most
        self._monotonic = monotonic
        self._began = monotonic()

    def left(self) -> bool:
        """Whether a line is left."""
        now = self._monotonic()
        if now - self._began >= HOUR_SECONDS:
            self._began, self._left = now, self._most
        return self._left > 0

    def take(self) -> None:
        """Use one line."""
        self._left -= 1


@dataclass
class _Host:
    """One host and port, and its last failure."""

    url: Url
    trouble: RepeatedFailure
    lines: _Allowance
    fault: TransportFault
    at: float
    when: datetime
    secure: bool = False
    """Whether the last failure was a secure command's: then the platform's log must not name the host."""

    @property
    def withheld(self) -> dict[str, str]:
        return {WITHHELD: "host.port.error.cause.cure"} if self.secure else {}

    def cause(self) -> Cause:
        return on_the_way(replace(self.fault.facts, host=self.url.host, port=self.url.port), TO_TARGET)

    def problem(self) -> Problem:
        times = "once" if self.trouble.count == 1 else f"{self.trouble.count} times in a row"
        where = host_and_port(self.url.host, self.url.port)
        summary = f"{where} failed {times}, at {self.when:%H:%M:%S} UTC with {self.fault.code}: {self.fault.message}"
        return Problem(summary, self.cause())


class TargetFailures:
    """Watches all Executors (`executor.Watcher`). Any thread may call; a command that succeeds costs one dictionary lookup."""

    def __init__(self, log: Logger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: OrderedDict[tuple[str, int], _Host] = OrderedDict()
        self._lines = _Allowance(LINES_AN_HOUR, clock.monotonic)

    def answered(self, exchange: Exchange, status: int, *, secure: bool = False) -> None:
        """Record a complete response: its host works, unless a proxy gave the response."""
        if status in _BY_PROXY and exchange.forwarded and exchange.proxy is not None:
            self.failed(exchange.url, ProxyRefused(exchange.proxy, status, exchange.method), secure=secure)
            return
        host = self._hosts.get((exchange.url.host, exchange.url.port)) if self._hosts else None
        if host is not None and host.trouble.failing:
            with self._lock:
                host.trouble.success(**host.withheld)

    def failed(self, url: Url, fault: TransportFault, *, secure: bool = False) -> None:
        """Record that the target gave no response, or a proxy gave one in its place."""
        if fault.code is Code.EBADCOMMAND or fault.ours:
            return
        with self._lock:
            host = self._host(url, fault)
            host.secure = secure
            status, proxy = fault.facts.status, fault.facts.proxy
            reason = f"{fault.code}{f' {status}' if status else ''}{' at the proxy' if proxy else ''}"
            if host.trouble.would_log(reason) and host.lines.left() and self._lines.left():
                host.lines.take()
                self._lines.take()
                cause = host.cause()
                host.trouble.failure(reason, cause, error=fault.message, **host.withheld)
            else:
                host.trouble.count_failure()

    def problems(self) -> list[Problem]:
        """Return what an administrator should know now, the newest first."""
        now = self._clock.monotonic()
        with self._lock:
            failing = [host for host in reversed(self._hosts.values()) if host.trouble.failing and now - host.at < SHOWN_SECONDS]
            found = [host.problem() for host in failing[:MOST_SHOWN]]
        more = len(failing) - len(found)
        return [*found, Problem(f"{more} more targets fail", MORE_TARGETS, more)] if more else found

    def _host(self, url: Url, fault: TransportFault) -> _Host:
        """Return the host's record, with this as its last failure."""
        place = url.host, url.port
        now, when = self._clock.monotonic(), self._clock.now()
        host = self._hosts.get(place)
        if host is None:
            log = self._log.bind(host=url.host, port=url.port)
            trouble = RepeatedFailure(log, "target-failed", "target-recovered", self._clock.monotonic, remind_seconds=REMIND_SECONDS)
            host = self._hosts[place] = _Host(url, trouble, _Allowance(HOST_LINES_AN_HOUR, self._clock.monotonic), fault, now, when)
            if len(self._hosts) > MOST_HOSTS:
                self._hosts.popitem(last=False)
        host.url, host.fault, host.at, host.when = url, fault, now, when
        self._hosts.move_to_end(place)
        return host
