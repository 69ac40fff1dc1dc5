"""The report of a qualification: its lines, who and what it is about, what it did not test, and its JSON.

Owns the form of the JSON. It must not test anything, or know how the page looks: `page` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from relay_agent.cli.qualification.lines import Line, Result
from relay_agent.core.clock import iso

FORMAT_VERSION = 1

_ALWAYS_UNTESTED = (
    "A stop or a restart of the running agent: this command never touches it. OQ-20 to OQ-28 use a second agent of the same program, with "
    "a state directory, a platform and a target of its own.",
    "Large bodies through Amazon S3: no command of this report is larger than 256 KiB.",
    "Performance under the site's own load, and the site's own pipelines: they belong to the performance qualification (PQ).",
    "The platform itself, the operating system and Docker: their suppliers qualify them.",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What was qualified, where and when; a value that is unknown is None."""

    report_id: str
    made: datetime
    host: str
    agent_version: str
    agent_id: str | None
    organisation: str | None
    api_target: str | None
    state_directory: str
    user: str


@dataclass(frozen=True, slots=True)
class Report:
    """A finished qualification."""

    subject: Subject
    lines: tuple[Line, ...]

    @property
    def as_expected(self) -> bool:
        """Whether every line passed, or does not concern this installation."""
        return all(line.result in (Result.PASS, Result.NOT_APPLICABLE) for line in self.lines)

    def count(self, result: Result) -> int:
        """Return the number of lines with this result."""
        return sum(line.result is result for line in self.lines)

    def masked(self, mask: Callable[[str], str]) -> Report:
        """Return the report without the secrets that `mask` knows."""
        subject = self.subject
        texts = {name: mask(value) for name, value in asdict(subject).items() if isinstance(value, str) and name != "report_id"}
        return Report(replace(subject, **texts), tuple(line.masked(mask) for line in self.lines))  # type: ignore[arg-type]

    @property
    def tested(self) -> list[str]:
        """What the report proves about the way of a command, in one sentence for each part."""
        return [text for numbers, text in _TESTED if _passed(self.lines, numbers)]

    @property
    def untested(self) -> list[str]:
        """What the report does not prove: what it never tests, and each line that was not run or does not apply."""
        left = [line for line in self.lines if line.result in (Result.NOT_RUN, Result.NOT_APPLICABLE)]
        return [*(f"{line.number}: {line.remark}" for line in left), *_ALWAYS_UNTESTED]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        subject = self.subject
        return {
            "report": {
                "format": FORMAT_VERSION,
                "id": subject.report_id,
                "made": iso(subject.made, "seconds"),
                "result": "as expected" if self.as_expected else "not as expected",
                "counts": {result.value: self.count(result) for result in Result},
                "host": subject.host,
                "user": subject.user,
                "agentVersion": subject.agent_version,
                "agentId": subject.agent_id,
                "organisation": subject.organisation,
                "apiTarget": subject.api_target,
                "stateDirectory": subject.state_directory,
            },
            "lines": [{**asdict(line), "result": line.result.value} for line in self.lines],
            "tested": self.tested,
            "untested": self.untested,
        }

    def json_text(self) -> str:
        """Return the JSON file's text, whose SHA-256 the page shows."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"


_TESTED = (
    (
        {"OQ-16"},
        "OQ-16: a command was relayed through the platform, its queue and the running agent to a target that belongs to this report, and "
        "answered.",
    ),
    (
        {"OQ-17"},
        "OQ-17: a command was relayed through the platform, its queue and the running agent to a target of the site, and answered.",
    ),
    (
        {"OQ-20", "OQ-21", "OQ-24", "OQ-25", "OQ-26"},
        "OQ-20 to OQ-28: a second agent of the same program relayed commands, was stopped, restarted, killed and restarted. Its platform "
        "is a small one inside this command, over HTTP without TLS.",
    ),
)


def _passed(lines: Sequence[Line], numbers: set[str]) -> bool:
    """Whether all these lines are there and passed."""
    about = [line for line in lines if line.number.partition(".")[0] in numbers]
    return {line.number.partition(".")[0] for line in about} == numbers and all(line.result is Result.PASS for line in about)
