"""The numbered lines of a qualification: each requirement, and the result of its test.

Owns the numbers, which docs/validation.md and signed reports refer to: a number never gets another requirement. It must not test anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

REQUIREMENTS: dict[str, str] = {
    "IQ-01": "The program has the version of its package",
    "IQ-02": "Python has a supported version",
    "IQ-03": "The operating system is supported",
    "IQ-04": "Each library has a supported version",
    "IQ-05": "The program's files are as delivered",
    "IQ-06": "Each setting is valid",
    "IQ-07": "No variable looks like a setting without being one",
    "IQ-08": "The policy file is the approved one",
    "IQ-09": "Only the agent's user can enter the state directory",
    "IQ-10": "The journal has the schema of this version",
    "IQ-11": "The journal holds what was written to it",
    "OQ-01": "Check configuration: the settings are complete and valid",
    "OQ-02": "Check token: the token has not expired",
    "OQ-03": "Check clock: this machine's clock agrees with the platform's",
    "OQ-04": "Check state-dir: the state directory is writable, has space, and its journal is sound",
    "OQ-05": "Check platform: the platform can be reached",
    "OQ-06": "Check access: the platform accepts the token",
    "OQ-07": "Check agent: the platform knows the agent",
    "OQ-08": "Check enabled: the agent's connection is enabled",
    "OQ-09": "Check queue: the agent's queue is enabled",
    "OQ-10": "Check credentials: the platform gives AWS credentials",
    "OQ-11": "Check sqs: both queues can be used",
    "OQ-12": "Check cloudwatch: log lines can be delivered",
    "OQ-13": "Check secure-key: a key for secure commands is set",
    "OQ-14": "Check target: the target can be reached",
    "OQ-15": "The running agent is ready, and is the agent that this report is about",
    "OQ-16": "The running agent relays a command from the platform unchanged, once, and returns the answer unchanged",
    "OQ-17": "The running agent relays a command to the target",
    "OQ-18": "The running agent's journal records the command as delivered",
    "OQ-19": "The qualification did not disturb the running agent",
    "OQ-20": "A second agent starts with the same program and a new state directory",
    "OQ-21": "It relays a command unchanged, once, and returns the answer unchanged",
    "OQ-22": "A secure command is readable for sender and agent only",
    "OQ-23": "The policy file is enforced",
    "OQ-24": "A stop finishes the running request, sends its answer, and ends with exit code 0",
    "OQ-25": "A restart continues: a command sent during the stop runs, and nothing runs twice",
    "OQ-26": "A kill loses no command and repeats none that may not be repeated",
    "OQ-27": "Its journal holds every command as delivered, and is sound",
    "OQ-28": "Its log contains no secret",
    "OQ-29": "Check syslog: the log receiver can be reached",
}
"""The requirement of each line. A line that is repeated, such as IQ-04 for each library, has a number such as IQ-04.3."""

CHECK_LINES = {
    "configuration": "OQ-01",
    "token": "OQ-02",
    "clock": "OQ-03",
    "state-dir": "OQ-04",
    "platform": "OQ-05",
    "access": "OQ-06",
    "agent": "OQ-07",
    "enabled": "OQ-08",
    "queue": "OQ-09",
    "credentials": "OQ-10",
    "sqs": "OQ-11",
    "cloudwatch": "OQ-12",
    "syslog": "OQ-29",
    "secure-key": "OQ-13",
    "target": "OQ-14",
}
"""The number of each check's line, in the order of the checks; one that came later has a later number."""
CHECK_EXPECTED = {
    "configuration": "every variable is valid",
    "token": "valid; more than 30 days left, else a remark",
    "clock": "at most 5 minutes off; more than 1 minute is a remark",
    "state-dir": "writable, 1 GB free, on a lasting disk; journal sound",
    "platform": "name, connection, TLS and proxy work; an answer within 2 s",
    "access": "the platform answers neither 401 nor 403",
    "agent": "the organisation has this agent, and it is user-defined",
    "enabled": "enabled",
    "queue": "enabled",
    "credentials": "AWS credentials are given",
    "sqs": "the command queue and the answer queue exist and may be used",
    "cloudwatch": "the log group may be used; the agent works without",
    "syslog": "the receiver of RELAY_LOG_SYSLOG can be reached; the agent works without",
    "secure-key": "a key is set; without one only secure commands (V2) fail",
    "target": "policy, proxy, name, connection, TLS and HTTP work for a HEAD; status below 500",
}
"""What the line of each check expects."""


class Result(StrEnum):
    """The result of a line."""

    PASS = "pass"  # noqa: S105 - a result, not a password
    FAIL = "fail"
    NOT_RUN = "not run"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report. `remark` says why a line was not run, or what a person must judge."""

    number: str
    requirement: str
    expected: str
    observed: str
    result: Result
    remark: str = ""

    def masked(self, mask: Callable[[str], str]) -> Line:
        """Return the line without the secrets that `mask` knows."""
        return replace(self, expected=mask(self.expected), observed=mask(self.observed), remark=mask(self.remark))


def judged(number: str, expected: str, observed: str, good: bool, remark: str = "") -> Line:
    """Return a line that passed or failed."""
    return _line(number, expected, observed, Result.PASS if good else Result.FAIL, remark)


def not_run(number: str, expected: str, why: str) -> Line:
    """Return a line whose test could not be run."""
    return _line(number, expected, "", Result.NOT_RUN, why)


def not_applicable(number: str, expected: str, why: str) -> Line:
    """Return a line that does not concern this installation."""
    return _line(number, expected, "", Result.NOT_APPLICABLE, why)


def numbered(number: str, places: int) -> Iterator[str]:
    """Yield the numbers of a line that is repeated: `IQ-04.1`, `IQ-04.2`; the line's own number if there is only one."""
    if places == 1:
        yield number
        return
    yield from (f"{number}.{place}" for place in range(1, places + 1))


def _line(number: str, expected: str, observed: str, result: Result, remark: str) -> Line:
    return Line(number, REQUIREMENTS[number.partition(".")[0]], expected, observed, result, remark)
