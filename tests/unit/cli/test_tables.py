"""Tables for people: nothing is cut off, however narrow the terminal is, and what is not known is a dash."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from relay_agent.cli import tables
from relay_agent.cli.tables import command_details, print_commands, print_status
from relay_agent.diagnostics.command_history import Listed

LONG_HOST = "instrument-with-a-long-name.laboratory-7.lab.example"


def listed(**more: Any) -> Listed:
    given: dict[str, Any] = {
        "id": "6f0c2a4e-6f1b-4c57-9f0e-4f6f5f0b8f0a",
        "when": "2026-03-01T12:00:05.250Z",
        "state": "delivered",
        "action": "TetraScience.Connector.http.Request.V1",
        "method": "GET",
        "host": LONG_HOST,
        "port": 8443,
        "status": "SUCCESS",
        "code": "200",
        "admitted": "2026-03-01T12:00:05.250Z",
        "started": "2026-03-01T12:00:05.260Z",
        "finished": "2026-03-01T12:00:06.260Z",
        "delivered": "2026-03-01T12:00:06.360Z",
        "queued_ms": 10,
        "target_ms": 1000,
        "delivered_ms": 100,
    }
    return Listed(**{**given, **more})


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the output the width of a terminal."""

    def narrow(width: int) -> None:
        monkeypatch.setattr(tables, "_console", lambda: Console(highlight=False, width=width))

    return narrow


def squeezed(text: str) -> str:
    """The text without the line breaks and spaces of a folded cell."""
    return "".join(text.split())


def test_output_to_a_program_has_one_line_for_each_command_with_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_commands([listed(), listed(id="other")])
    lines = [line for line in capsys.readouterr().out.splitlines() if LONG_HOST in line]
    assert len(lines) == 2
    assert all(
        text in lines[0] for text in ("6f0c2a4e-6f1b-4c57-9f0e-4f6f5f0b8f0a", "V1", "10 ms", "1000 ms", "100 ms", f"{LONG_HOST}:8443")
    )


@pytest.mark.parametrize(
    ("width", "has", "lacks"),
    [
        (250, ["6f0c2a4e-6f1b-4c57-9f0e-4f6f5f0b8f0a", "queued", "action", "2026-03-01"], []),
        (150, ["6f0c2a4e-6f1b-4c57-9f0e-4f6f5f0b8f0a", "2026-03-01"], ["queued", "action"]),
        (80, ["6f0c2a4e", "03-01"], ["6f0c2a4e-6f1b", "2026-03-01", "queued"]),
        (60, ["03-01"], ["6f0c2a4e", "queued"]),
    ],
)
def test_a_terminal_gets_the_columns_that_fit_and_the_host_is_always_whole(
    terminal: Any, capsys: pytest.CaptureFixture[str], width: int, has: list[str], lacks: list[str]
) -> None:
    terminal(width)
    print_commands([listed()])
    out = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= width
    assert [text for text in has if text not in out] == []
    assert [text for text in lacks if text in out] == []
    assert "SUCCESS" in squeezed(out)


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, "SUCCESS"),
        ({"state": "finished"}, "SUCCESS finished"),
        ({"state": "started", "status": None}, "started"),
    ],
    ids=["delivered", "not sent yet", "running"],
)
def test_the_state_says_whether_the_answer_was_sent(capsys: pytest.CaptureFixture[str], more: Any, state: str) -> None:
    print_commands([listed(**more)])
    assert f" {state} " in capsys.readouterr().out


def test_what_is_not_known_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = dict.fromkeys(("code", "method", "host", "port", "action", "queued_ms", "target_ms", "delivered_ms"))
    print_commands([listed(**unknown)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "6f0c2a4e" in line]
    assert line.split().count("-") == 7


def test_one_command_in_detail_has_each_stage_and_how_long_it_took() -> None:
    found = dict(command_details(listed()))
    assert (found["started"], found["finished"]) == ("2026-03-01T12:00:05.260Z  (after 10 ms)", "2026-03-01T12:00:06.260Z  (after 1000 ms)")
    assert (found["delivered"], found["host"]) == ("2026-03-01T12:00:06.360Z  (after 100 ms)", f"{LONG_HOST}:8443")


def test_a_command_that_was_never_started_has_dashes_and_no_times() -> None:
    missing = dict.fromkeys(("started", "finished", "delivered", "status", "code", "method", "action", "target_ms", "delivered_ms"))
    found = dict(command_details(listed(**missing)))
    assert {found[name] for name in missing if name in found} == {"-"}


# --- status ---

STATUS: dict[str, Any] = {
    "state": "ready",
    "sentence": "Ready: waiting for commands.",
    "version": "v1",
    "agent": {"id": "agent-1", "name": None, "organisation": "acme"},
    "time": "2026-03-01T12:00:00Z",
    "uptimeSeconds": 7200,
    "problems": [],
    "warnings": [],
    "queue": {"enabled": True, "waiting": 3, "capacity": 1000, "shared": False},
    "workers": {"busy": 1, "total": 4},
    "untold": 2,
    "journal": {"admitted": 1, "delivered": 5, "bytes": 2_500_000},
    "lastReceive": "2026-03-01T11:59:30Z",
    "lastHeartbeat": None,
    "lastAnswer": None,
    "lastConfiguration": None,
    "tokenEnds": None,
    "credentialsEnd": None,
    "logLines": {"waiting": 0, "dropped": 0},
    "threads": [
        {"name": "poller", "alive": True, "activity": "receiving", "problem": None},
        {"name": "sender", "alive": False, "activity": "sending", "problem": "no answer"},
    ],
}


def shown(capsys: pytest.CaptureFixture[str], **more: Any) -> str:
    print_status(STATUS | more)
    return capsys.readouterr().out


def test_the_status_begins_with_its_sentence_and_shows_numbers_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys)
    assert out.startswith("Ready: waiting for commands.\n")
    for words in (
        "agent-1 (agent-1) in acme, v1",
        "2 h",
        "1 of 4 busy, 2 answers waiting to be sent",
        "enabled; 3 of 1000 commands waiting for a worker; last receive 30 s ago (2026-03-01T11:59:30Z)",
        "1 admitted, 5 delivered; 2.5 MB",
        "not read yet",
        "never expires",
        "none yet",
    ):
        assert words in out


@pytest.mark.parametrize(
    ("enabled", "shared", "words"),
    [
        (False, False, "disabled; "),
        (None, False, "not known yet; "),
        (True, True, "enabled; shared queue: other agents of this id receive from it too; "),
    ],
)
def test_the_queue_is_named_with_whether_it_is_enabled(
    capsys: pytest.CaptureFixture[str], enabled: bool | None, shared: bool, words: str
) -> None:
    assert words in shown(capsys, queue={"enabled": enabled, "waiting": 0, "capacity": 1000, "shared": shared})


def test_what_is_known_by_then_is_shown_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, lastConfiguration="2026-03-01T11:58:00Z", tokenEnds="2026-04-01T00:00:00Z", credentialsEnd="2026-03-01T13:00:00Z")
    assert "read 2 min ago (2026-03-01T11:58:00Z)" in out
    assert "expires 2026-04-01T00:00:00Z" in out
    assert "expire 2026-03-01T13:00:00Z" in out


def test_the_policy_is_shown_if_there_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    policy = {"file": "/etc/relay/policy.toml", "mode": "enforce", "default": "deny", "rules": 7, "targets": 0}
    assert "mode enforce, 7 rules, default deny, /etc/relay/policy.toml" in shown(capsys, policy=policy)
    assert "policy" not in shown(capsys, policy=None)


def test_every_problem_and_warning_comes_with_cause_and_cure(capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"reason": "no answer", "cause": "SQS is down", "cure": "wait"}
    out = shown(capsys, problems=[problem], warnings=[problem | {"reason": "the JWT ends"}])
    assert (out.count("  cause  SQS is down"), out.count("  cure   wait")) == (2, 2)
    assert out.index("no answer") < out.index("the JWT ends")


def test_a_thread_is_running_or_dead_with_its_activity_and_problem(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [" ".join(line.split()) for line in shown(capsys).splitlines()]
    assert "poller running receiving" in lines
    assert "sender dead sending: no answer" in lines


def test_workers_are_one_row_and_two_targets_at_most_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    threads = [{"name": f"worker-{number}", "alive": True, "activity": "waiting", "problem": None} for number in range(16)]
    warnings = [{"check": "target", "reason": f"host-{number}", "cause": "c", "cure": "d", "count": 1} for number in range(5)]
    out = shown(capsys, threads=threads, warnings=warnings)
    assert "16 workers running waiting" in [" ".join(line.split()) for line in out.splitlines()]
    assert [f"host-{number}" in out for number in range(5)] == [True, True, False, False, False]
    assert "3 more about targets" in out
