"""Watches what no failing call would show: the files of the secrets, this machine's clock, and whether stdout is read.

Owns when such a change is reported. It must not keep a secret or repair anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from relay_agent.config.secrets import SecretSource
from relay_agent.core.clock import DAY_SECONDS
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.local_causes import POLICY, SECRET_GONE, STDOUT_BLOCKED, clock_is_off, clock_off
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.repeated_failure import RepeatedFailure
from relay_agent.telemetry.stdout_writer import BLOCKED_SECONDS, Output

LOOKS = 3
"""A file counts as missing after so many looks, since a file that is being replaced is missing for a moment."""


class EnvironmentMonitor:
    """Looks on the thread `environment`; any thread may read the problems."""

    def __init__(
        self,
        *,
        secrets: Mapping[str, SecretSource],
        read: Sequence[Callable[[], object]],
        clock_off: Callable[[], float | None],
        policy_problem: Callable[[], str | None],
        stdout: Output,
        log: Logger,
        monotonic: Callable[[], float],
    ) -> None:
        """`secrets` are the secrets' sources by variable, `read` rereads them and the policy, `clock_off` returns seconds."""
        self._secrets = secrets
        self._read = read
        self._clock_off = clock_off
        self._policy_problem = policy_problem
        self._stdout = stdout
        self._gone = dict.fromkeys(secrets, 0)
        self._missing = {name: RepeatedFailure(log.bind(variable=name), "secret-gone", "secret-back", monotonic) for name in secrets}
        self._clock = RepeatedFailure(log, "clock-off", "clock-right", monotonic, remind_seconds=DAY_SECONDS)
        self._unread = RepeatedFailure(log, "stdout-blocked", "stdout-resumed", monotonic, remind_seconds=3600.0)

    def look(self) -> None:
        """Look once, and log what begins and ends."""
        for read in self._read:
            read()
        for name, source in self._secrets.items():
            self._gone[name] = self._gone[name] + 1 if source.gone else 0
            if source.gone and self._gone[name] >= LOOKS:
                cause = SECRET_GONE.about(variable=name, reason=source.gone)
                self._missing[name].failure(source.gone, cause)
            elif not source.gone:
                self._missing[name].success()
        off = self._clock_off()
        if off is not None and clock_is_off(off):
            cause = clock_off(off)
            self._clock.failure("this machine's clock differs from the platform's", cause)
        else:
            self._clock.success()
        self._report_unread_stdout()

    def problems(self) -> list[Problem]:
        """Return what is wrong now."""
        found = [
            Problem(f"the file of {name} cannot be read", SECRET_GONE.about(variable=name, reason=reason))
            for name, source in self._secrets.items()
            if (reason := source.gone) and self._gone[name] >= LOOKS
        ]
        problem = self._policy_problem()
        if problem is not None:
            found.append(Problem("the policy file is not valid", POLICY.about(problem=problem)))
        off = self._clock_off()
        if off is not None and clock_is_off(off):
            found.append(Problem(f"the clock is {abs(off):.0f} s off", clock_off(off)))
        if self._stdout.blocked_seconds() > BLOCKED_SECONDS:
            found.append(Problem("nothing reads the agent's stdout", STDOUT_BLOCKED))
        return found

    def _report_unread_stdout(self) -> None:
        """Log that stdout is blocked: the line goes to CloudWatch now, and to stdout once it is read again."""
        blocked = self._stdout.blocked_seconds()
        if blocked > BLOCKED_SECONDS:
            self._unread.failure("nothing reads stdout", STDOUT_BLOCKED)
        elif not blocked:
            self._unread.success(dropped=self._stdout.dropped)
