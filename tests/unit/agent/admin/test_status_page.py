"""The status page's text: nothing of a command or a name becomes markup, and numbers are in words that a person would use.

How it looks and works is tested in a browser (`tests/e2e/test_status_page.py`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from relay_agent.agent.admin.status_page import LATEST, POLICY, SCRIPT, STYLE, render
from relay_agent.diagnostics.command_history import Listed
from tests.unit.agent.admin.statuses import starting

HOSTILE = "<script>alert('1')</script>\"&"
NOW = "2026-03-01T12:00:00Z"


def command(text: str = "x", **more: Any) -> Listed:
    given: dict[str, Any] = {
        "id": text,
        "when": NOW,
        "state": "delivered",
        "action": text,
        "method": text,
        "host": text,
        "port": None,
        "status": "SUCCESS",
        "code": text,
        "admitted": NOW,
        "started": NOW,
        "finished": NOW,
        "delivered": NOW,
        "queued_ms": 1,
        "target_ms": 9_999,
        "delivered_ms": None,
    }
    return Listed(**{**given, **more})


@pytest.fixture
def status(tmp_path: Path) -> dict[str, Any]:
    return starting(tmp_path).status()


def test_no_text_from_outside_becomes_markup(status: dict[str, Any]) -> None:
    agent = dict.fromkeys(("id", "name", "organisation", "apiTarget"), HOSTILE)
    problem: dict[str, Any] = {**dict.fromkeys(("check", "cause", "cure"), HOSTILE), "reason": f"{HOSTILE}seen", "count": 1}
    thread = {"name": HOSTILE, "alive": True, "activity": HOSTILE, "silentSeconds": 1.0, "problem": HOSTILE}
    page = status | {
        "agent": agent,
        "problems": [problem],
        "warnings": [problem],
        "threads": [thread],
        "summary": HOSTILE,
        "version": HOSTILE,
    }
    made = render(page, [command(HOSTILE, state=HOSTILE, status=None), command(HOSTILE, status=HOSTILE)], refresh=True)
    assert HOSTILE not in made
    assert "<script>alert" not in made
    assert made.count("&lt;script&gt;") > 20


def test_the_policy_in_force_is_shown_if_there_is_a_file(status: dict[str, Any]) -> None:
    policy = {"file": HOSTILE, "mode": "observe", "default": "deny", "rules": 1, "targets": 2}
    made = render(status | {"policy": policy}, [], refresh=True)
    assert "<dt>Policy</dt><dd>mode observe, 1 rule, default deny, &lt;" in made
    assert HOSTILE not in made
    assert "Policy</dt>" not in render(status, [], refresh=True)


@pytest.mark.parametrize("refresh", [True, False])
def test_a_page_that_updates_says_so_and_has_the_one_script_that_its_policy_allows(status: dict[str, Any], refresh: bool) -> None:
    made = render(status, [], refresh=refresh)
    assert re.findall(r"<script>(.*?)</script>", made, re.DOTALL) == ([SCRIPT] if refresh else [])
    assert ('http-equiv="refresh"' in made, ">Pause</a>" in made, ">Resume</a>" in made) == (refresh, refresh, not refresh)
    assert re.findall(r"<style>(.*?)</style>", made, re.DOTALL) == [STYLE]
    assert POLICY.count("sha256-") == 2


def test_the_agent_s_name_is_shown_and_its_id_while_it_has_none(status: dict[str, Any]) -> None:
    assert "<title>Starting: agent-1 - Relay Agent</title>" in render(status, [], refresh=True)
    status["agent"]["name"] = "the lab's"
    assert "<title>Starting: the lab&#x27;s - Relay Agent</title>" in render(status, [], refresh=True)


@pytest.mark.parametrize(
    ("state", "words", "tone"),
    [
        ("ready", "Ready", "good"),
        ("not ready", "Not ready", "bad"),
        ("starting", "Starting", "wait"),
        ("offline", "Offline", "bad"),
        ("stopping", "Stopping", "wait"),
        ("disabled", "Disabled", "wait"),
        ("of a later version", "Of a later version", "bad"),
    ],
)
def test_every_state_has_its_words_and_its_colour(status: dict[str, Any], state: str, words: str, tone: str) -> None:
    made = render(status | {"state": state}, [], refresh=True)
    assert f"</span>{words}</h1>" in made
    assert f'<section class="state {tone}"' in made


def test_the_version_is_above_the_state(status: dict[str, Any]) -> None:
    made = render(status, [], refresh=True)
    assert made.index(f"Relay Agent {status['version']}</p>") < made.index("<h1")


def problem(reason: str = "no answer", check: str = "sqs", count: int = 1) -> dict[str, Any]:
    return {"check": check, "reason": reason, "cause": "SQS is down", "cure": "wait, or run `relay-agent check`", "count": count}


def test_the_cure_comes_before_the_cause_and_what_was_seen_comes_last(status: dict[str, Any]) -> None:
    made = render(status | {"problems": [problem()]}, [], refresh=True)
    assert made.index("wait, or run <code>relay-agent check</code>") < made.index("SQS is down") < made.index("no answer")


def test_the_state_and_a_cause_are_said_once(status: dict[str, Any]) -> None:
    made = render(status | {"problems": [problem("SQS is down")], "summary": "SQS is down"}, [], refresh=True)
    assert (made.count("SQS is down"), made.count(">Starting<"), made.count("<dt>Seen</dt>")) == (1, 1, 0)
    made = render(status | {"state": "ready", "problems": [], "summary": "waiting for commands"}, [], refresh=True)
    assert (made.count("Ready"), '<p class="summary">waiting for commands.</p>' in made) == (2, True)  # In the title, and on the page.


def test_sections_without_problems_are_left_out(status: dict[str, Any]) -> None:
    assert "What to do" in render(status, [], refresh=True)
    made = render(status | {"problems": []}, [], refresh=True)
    assert ("What to do" in made, "Warnings" in made) == (False, False)


def test_of_many_targets_two_are_shown_and_the_others_folded(status: dict[str, Any]) -> None:
    warnings = [problem(f"host-{n}", "target") for n in range(5)] + [problem("7 more", "target", 7), problem("the disk", "state-dir")]
    made = render(status | {"warnings": warnings}, [], refresh=True)
    shown, _, folded = made.partition("<details")
    assert [word in shown for word in ("host-0", "host-1", "host-2", "7 more", "the disk")] == [True, True, False, False, True]
    assert all(word in folded for word in ("<summary>10 more about targets</summary>", "host-2", "host-4", "7 more"))


def test_each_minute_with_commands_has_a_bar_and_failed_ones_a_part_of_it(status: dict[str, Any]) -> None:
    made = render(status | {"lastHour": [[0, 0]] * 57 + [[4, 0], [4, 1], [2, 2]]}, [], refresh=True)
    assert (made.count('<rect class="ok"'), made.count('<rect class="failed"')) == (2, 2)
    assert "10 commands in the last hour, 3 of them failed; at most 4 in one minute" in made


def test_without_commands_there_is_no_chart(status: dict[str, Any]) -> None:
    made = render(status, [], refresh=True)
    assert ("<svg" in made, "<dt>Commands in the last hour</dt><dd>none</dd>" in made) == (False, True)


@pytest.mark.parametrize(("count", "folded"), [(1, 0), (LATEST, 0), (50, 40)])
def test_the_latest_commands_are_shown_and_the_earlier_ones_folded(status: dict[str, Any], count: int, folded: int) -> None:
    made = render(status, [command(f"id-{number:02}") for number in range(count)], refresh=True)
    shown, _, rest = made.partition("<details")
    assert (shown.count('<td role="cell" class="c-id"'), rest.count('<td role="cell" class="c-id"')) == (count - folded, folded)
    assert (f"<summary>{folded} earlier</summary>" in rest) == bool(folded)


@pytest.mark.parametrize(
    ("one", "state", "kind"),
    [
        (command(status="SUCCESS"), "SUCCESS", "ok-text"),
        (command(status="FAILURE"), "FAILURE", "failed-text"),
        (command(status="SUCCESS", state="finished"), "SUCCESS, not sent yet", "ok-text"),
        (command(status=None, state="started"), "started", "dim"),
    ],
    ids=["delivered", "failed", "not sent", "running"],
)
def test_a_command_s_state_says_whether_its_answer_was_sent(status: dict[str, Any], one: Listed, state: str, kind: str) -> None:
    assert f'<td role="cell" class="c-state"><span class="{kind}">{state}</span></td>' in render(status, [one], refresh=True)


def test_what_expires_says_when_or_since_when(status: dict[str, Any]) -> None:
    page = status | {"time": NOW, "tokenEnds": "2026-03-01T11:00:00Z", "credentialsEnd": "2026-03-01T14:00:00Z"}
    made = render(page, [], refresh=True)
    assert ("expired 60 min ago" in made, "in 2 h" in made) == (True, True)
    assert "<dd>never</dd>" in render(page | {"tokenEnds": None}, [], refresh=True)


def test_long_waits_are_shown_in_seconds_and_short_ones_in_milliseconds(status: dict[str, Any]) -> None:
    made = render(status, [command(queued_ms=9_999, target_ms=10_000), command(queued_ms=None)], refresh=True)
    assert all(f'class="c-{cell}</td>' in made for cell in ('queued">9999 ms', 'target">10 s', 'queued none">-'))


def test_dropped_log_lines_are_mentioned_only_if_there_are_some(status: dict[str, Any]) -> None:
    assert "<dd>7</dd>" in render(status, [], refresh=True)
    assert "<dd>7, 2 dropped</dd>" in render(status | {"logLines": {"waiting": 7, "dropped": 2}}, [], refresh=True)
