"""The command `retire`: which end has which exit code, and what is printed of it. The retirement itself is stubbed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay_agent.agent.retirement import Retired
from relay_agent.agent.signals import Signals
from relay_agent.cli import retire as module
from relay_agent.core.errors import ConfigurationError, JournalError, StateDirectoryBusy, TokenExpired
from relay_agent.core.failures import Cause

CAUSE = Cause("network", "the platform cannot be reached", "open the firewall")


class Stub:
    """The retirement, as a test wants it to end."""

    def __init__(self) -> None:
        self.refused: Exception | None = None
        self.ended: Exception | Retired = Retired(ended=2, shutdown=3, interrupted=1)
        self.seconds: float | None = 0.0
        self.directory = Path()

    def __call__(self, _settings: Any, *, signals: Signals) -> Stub:
        assert signals.count == 0
        if self.refused is not None:
            raise self.refused
        return self

    def run(self, seconds: float | None) -> Retired:
        self.seconds = seconds
        if isinstance(self.ended, Exception):
            raise self.ended
        return self.ended


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stub:
    made = Stub()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Signals, "install", lambda _self: None)
    made.directory = tmp_path
    monkeypatch.setattr(module, "load_settings", lambda _file: SimpleNamespace(state_dir=made.directory))
    monkeypatch.setattr(module, "Retirement", made)
    return made


def run(*args: str) -> Result:
    return CliRunner().invoke(module.retire, args)


def test_everything_answered_is_0_and_each_number_is_told(stub: Stub) -> None:
    done = run()
    assert (done.exit_code, stub.seconds) == (0, None)
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["2", "3", "1"]
    assert "other agents" not in done.stdout
    assert "the journal is empty" in done.stdout


def test_commands_left_to_other_agents_are_told_and_no_failure(stub: Stub) -> None:
    stub.ended = Retired(ceded=4)
    done = run()
    assert done.exit_code == 0
    assert "4  left to other agents" in done.stdout


@pytest.mark.parametrize(
    "ended",
    [
        Retired(unsent=2, problem="the platform did not take every answer"),
        Retired(problem="no connection", cause=CAUSE),
        Retired(unsent=1),
        Retired(undeleted=1, problem="messages of its commands are still in the queue"),
        Retired(ended=1, damaged=True),
    ],
)
def test_whatever_could_not_be_answered_is_1(stub: Stub, ended: Retired) -> None:
    stub.ended = ended
    assert run().exit_code == 1
    assert run("--json").exit_code == 1


def test_what_could_not_be_sent_is_told_with_its_cause_on_stderr(stub: Stub) -> None:
    stub.ended = Retired(unsent=2, problem="no connection", cause=CAUSE)
    done = run()
    assert "2 of the answers could not be sent: no connection" in done.stderr
    assert CAUSE.cause in done.stderr and CAUSE.cure in done.stderr
    assert "the journal is empty" not in done.stdout


def test_a_journal_that_fails_on_the_way_is_1(stub: Stub) -> None:
    stub.ended = JournalError("the journal cannot be read")
    done = run()
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "the journal cannot be read\n")


@pytest.mark.parametrize(
    "refused, code, text",
    [
        (ConfigurationError("JWT is missing"), 2, "The configuration is invalid:\n  JWT is missing\n"),
        (StateDirectoryBusy("busy", "/state"), 2, "RELAY_STATE_DIR /state is in use by the agent or by another `retire`. Stop the"),
        (TokenExpired("the token has expired"), 1, "the token has expired"),
        (JournalError("the disk is full"), 1, "the disk is full"),
    ],
)
def test_a_retirement_that_cannot_begin_has_the_code_of_its_reason(stub: Stub, refused: Exception, code: int, text: str) -> None:
    stub.refused = refused
    done = run()
    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr


def test_a_state_directory_that_is_not_there_is_2(stub: Stub) -> None:
    stub.directory = Path("/nowhere")
    done = run()
    assert (done.exit_code, stub.seconds) == (2, 0.0)
    assert "There is no state directory /nowhere" in done.stderr


def test_messages_that_may_be_left_are_told(stub: Stub) -> None:
    stub.ended = Retired(undeleted=3, problem="messages of its commands are still in the queue")
    done = run()
    assert "3 messages may still be in the queue" in done.stderr
    assert "messages of its commands are still in the queue. Run `retire` again." in done.stderr
    assert "answers" not in done.stderr, "all of them were sent"


def test_a_damaged_journal_is_not_told_as_one_whose_commands_were_all_answered(stub: Stub) -> None:
    stub.ended = Retired(ended=1, damaged=True)
    done = run()
    assert "commands that could not be read stay unanswered" in done.stderr
    assert "Every answer that could be read was sent" in done.stdout


def test_json_holds_every_number_the_problem_and_its_cause(stub: Stub) -> None:
    stub.ended = Retired(1, 2, 3, 4, 5, 6, "no connection", CAUSE)
    found: dict[str, Any] = json.loads(run("--json").stdout)
    assert found == {
        "ended": 1,
        "shutdown": 2,
        "interrupted": 3,
        "ceded": 4,
        "unsent": 5,
        "undeleted": 6,
        "problem": "no connection",
        "cause": {"cause": CAUSE.cause, "cure": CAUSE.cure},
        "damaged": False,
    }
    stub.ended = Retired()
    assert json.loads(run("--json").stdout)["cause"] is None


@pytest.mark.parametrize("given, code", [("1", 0), ("86400", 0), ("0.5", 2), ("86401", 2), ("soon", 2)])
def test_the_time_that_it_may_take_is_a_second_to_a_day(stub: Stub, given: str, code: int) -> None:
    assert run("--timeout", given).exit_code == code
    assert stub.seconds == (float(given) if code == 0 else 0.0)
