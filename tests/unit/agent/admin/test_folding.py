"""What people are shown together: nothing that is wrong is hidden in it."""

from __future__ import annotations

from typing import Any

from relay_agent.agent.admin.folding import TARGETS_SHOWN, ThreadRow, fold_warnings, stands_for, thread_rows


def thread(name: str, activity: str = "waiting", *, alive: bool = True, problem: str | None = None) -> dict[str, Any]:
    return {"name": name, "alive": alive, "activity": activity, "silentSeconds": None, "problem": problem}


def test_threads_of_a_kind_are_one_row_in_their_place() -> None:
    workers = [thread(f"worker-{number}") for number in range(16)]
    rows = thread_rows([thread("poller", "receiving"), *workers, thread("log-shipper", "delivering")])
    assert rows == [
        ThreadRow("poller", True, "receiving", None),
        ThreadRow("16 workers", True, "waiting", None),
        ThreadRow("log-shipper", True, "delivering", None),
    ]


def test_a_row_says_how_many_do_what() -> None:
    (row,) = thread_rows([thread("worker-0"), thread("worker-1", "running"), thread("worker-2")])
    assert row.activity == "1 running, 2 waiting"


def test_a_thread_that_is_dead_or_has_a_problem_keeps_its_row() -> None:
    threads = [thread("worker-0", alive=False), thread("worker-1"), thread("worker-2", problem="slow"), thread("worker-3")]
    assert [(row.name, row.alive, row.problem) for row in thread_rows(threads)] == [
        ("2 workers", True, None),
        ("worker-0", False, None),
        ("worker-2", True, "slow"),
    ]


def test_one_of_a_kind_keeps_its_name() -> None:
    assert [row.name for row in thread_rows([thread("worker-0")])] == ["worker-0"]


def test_warnings_about_more_than_two_targets_are_folded_and_no_others() -> None:
    warnings = [
        {"check": check, "reason": str(number), "count": 1} for number, check in enumerate(("target", "sqs", "target", "target", "sqs"))
    ]
    shown, folded = fold_warnings(warnings)
    assert (shown, folded) == ([warnings[place] for place in (0, 1, 2, 4)], [warnings[3]])
    assert len([one for one in shown if one["check"] == "target"]) == TARGETS_SHOWN


def test_a_warning_that_stands_for_several_counts_as_many() -> None:
    assert stands_for([{"count": 1}, {"count": 7}]) == 8
