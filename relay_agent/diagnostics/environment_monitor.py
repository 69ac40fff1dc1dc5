"""Watches what no failing call would show: the files of the secrets, this machine's clock, and whether stdout is read.

Owns when such a change is reported. It must not keep a secret or repair anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from relay_agent.config.secrets import SecretSource
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.local_causes import CLOCK_SECONDS, SECRET_GONE, STDOUT_BLOCKED, clock_off
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.repeated_failure import RepeatedFailure
from relay_agent.telemetry.stdout_writer import BLOCKED_SECONDS, Output

LOOKS = 3
"""A file counts as missing after so many looks, since a file that is being replaced is missing for a moment."""


class EnvironmentMonitor:
    """Looks on the thread `upkeep`; any thread may read the problems."""

    def __init__(
        self,
        *,
        secrets: Mapping[str, SecretSource],
        read: Callable[[], object],
        clock_off: Callable[[], float | None],
        stdout: Output,
        log: Logger,
        monotonic: Callable[[], float],
    ) -> None:
        """`secrets` are the secrets' sources by variable, `read` rereads all of them, `clock_off` returns seconds (`Rest.clock_off`)."""
        self._secrets = secrets
        self._read = read
        self._clock_off = clock_off
        self._stdout = stdout
        self._gone = dict.fromkeys(secrets, 0)
        self._missing = {name: RepeatedFailure(log.bind(variable=name), "secret-gone", "secret-back", monotonic) for name in secrets}
        self._clock = RepeatedFailure(log, "clock-off", "clock-right", monotonic, remind_seconds=24 * 3600.0)
        self._unread = RepeatedFailure(log, "stdout-blocked", "stdout-resumed", monotonic, remind_seconds=3600.0)

    def look(self) -> None:
        """Look once, and log what begins and ends."""
        self._read()
        for name, source in self._secrets.items():
            self._gone[name] = self._gone[name] + 1 if source.gone else 0
            if source.gone and self._gone[name] >= LOOKS:
                cause = SECRET_GONE.about(variable=name, reason=source.gone)
                self._missing[name].failure(source.gone, cause)
            elif not source.gone:
                self._missing[name].success()
        off = self._clock_off()
        if off is not None and abs(off) > CLOCK_SECONDS:
            cause = clock_off(off)
            self._clock.failure("off", cause)
        else:
            self._clock.success()
        self._say_unread()

    def problems(self) -> list[Problem]:
        """Return what is wrong now."""
        found = [
            Problem(f"the file of {name} cannot be read", SECRET_GONE.about(variable=name, reason=reason))
            for name, source in self._secrets.items()
            if (reason := source.gone) and self._gone[name] >= LOOKS
        ]
        off = self._clock_off()
        if off is not None and abs(off) > CLOCK_SECONDS:
            found.append(Problem(f"the clock is {abs(off):.0f} s off", clock_off(off)))
        if self._stdout.blocked_seconds() > BLOCKED_SECONDS:
            found.append(Problem("nothing reads the agent's stdout", STDOUT_BLOCKED))
        return found

    def _say_unread(self) -> None:
        """Log that stdout is blocked: the line goes to CloudWatch now, and to stdout once it is read again."""
        blocked = self._stdout.blocked_seconds()
        if blocked > BLOCKED_SECONDS:
            self._unread.failure("nothing reads stdout", STDOUT_BLOCKED)
        elif not blocked:
            self._unread.success(dropped=self._stdout.dropped)
