"""When a line of the second agent fails, and what then becomes of the rest. A whole trial is in tests/integration/test_qualify.py."""

from __future__ import annotations

from typing import Any, cast

import pytest

from relay_agent.cli.qualification.lines import REQUIREMENTS, Result
from relay_agent.cli.qualification.own_agent import OwnAgent
from relay_agent.cli.qualification.own_platform import OwnPlatform
from relay_agent.cli.qualification.own_target import OwnTarget, Seen
from relay_agent.cli.qualification.second_agent import FIELD, MARK, SENT_BODY, Trial, arrived_unchanged, payload_for
from relay_agent.core.errors import RelayError

GOOD = Seen("POST", "/", ((FIELD.lower(), MARK),), SENT_BODY)


@pytest.mark.parametrize(
    "requests, wrong",
    [
        ([GOOD], None),
        ([], "the target got 0 requests"),
        ([GOOD, GOOD], "the target got 2 requests"),
        ([Seen("GET", "/", GOOD.fields, SENT_BODY)], "differs from the one sent"),
        ([Seen("POST", "/", (), SENT_BODY)], "differs from the one sent"),
        ([Seen("POST", "/", GOOD.fields, SENT_BODY + b" ")], "differs from the one sent"),
    ],
    ids=["once", "never", "twice", "method", "field", "body"],
)
def test_a_request_must_arrive_once_and_as_it_was_sent(requests: list[Seen], wrong: str | None) -> None:
    found = arrived_unchanged(requests)
    assert (found is None) if wrong is None else (wrong in (found or ""))


def test_a_head_carries_no_credentials_and_no_body() -> None:
    payload = payload_for("http://lims.lab.example/", "HEAD")
    assert payload["headers"] == [] and "body" not in payload


class Agent:
    """An agent whose start ends as a test wants it."""

    def __init__(self, started: float | Exception | None) -> None:
        self._started = started

    def start(self) -> float | None:
        if isinstance(self._started, Exception):
            raise self._started
        return self._started

    def log(self) -> str:
        return "the first line\nthe last line\n"


class Platform:
    """A platform on which no command is ever answered."""

    def exchange(self, *_args: Any) -> Any:
        raise RelayError("no answer within 30 s")


class Target:
    def announce(self) -> tuple[str, bytes]:
        return "http://127.0.0.1:1/", b""


def trial(started: float | Exception | None) -> list[Any]:
    return Trial(cast("OwnAgent", Agent(started)), cast("OwnPlatform", Platform()), cast("OwnTarget", Target())).lines()


@pytest.mark.parametrize(
    "started, observed", [(None, "it did not ask within 60 s"), (OSError("no memory"), "no memory"), (KeyError("x"), "unexpected KeyError")]
)
def test_an_agent_that_does_not_start_fails_with_its_last_line_and_nothing_else_is_run(started: Any, observed: str) -> None:
    first, *rest = trial(started)
    assert (first.number, first.result, first.observed) == ("OQ-20", Result.FAIL, observed)
    assert first.remark == "The agent's last line: the last line"
    assert [line.number for line in (first, *rest)] == [number for number in REQUIREMENTS if "OQ-20" <= number <= "OQ-28"]
    assert {(line.result, line.remark) for line in rest} == {(Result.NOT_RUN, "not run because OQ-20 did not pass")}


def test_a_command_without_an_answer_fails() -> None:
    started, relayed, *rest = trial(1.0)
    assert started.result is Result.PASS
    assert (relayed.result, relayed.observed) == (Result.FAIL, "no answer within 30 s")
    assert {line.result for line in rest} == {Result.NOT_RUN}
