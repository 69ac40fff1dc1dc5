"""One of two agents on a queue is killed or frozen at each fault point, and comes back within its lease or after it (docs/durability.md).

Tests the table for a shared queue with real processes. A machine that sleeps is the same to the agent as a process that is frozen beyond
its lease; an hour of it is tested in `tests/unit/relay/test_ownership.py`.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from relay_agent.core.failpoints import Point
from relay_agent.sandbox.server import Sandbox
from tests.agents import body
from tests.e2e.kill_lives import LARGE, LARGE_BYTES, Trace
from tests.e2e.kill_table import RAN, TABLE, states_of
from tests.e2e.shared_lives import UNOWNED, SharedLife, kinds_of, live
from tests.e2e.shared_table import ROWS, SHARED_TABLE, Absence, Runner

DOCUMENT = Path(__file__).parents[2] / "docs" / "durability.md"
AT_ONCE = 12
PATIENCE_SECONDS = 90.0
Lives = Callable[[Point, Absence], list[SharedLife]]
_OWNED = (Point.QUEUED, Point.STARTED, Point.SENT, Point.ANSWERED, Point.RECORDED, Point.ANSWER_SENT, Point.DELIVERED)
PLACES = {
    Absence.WITHIN: (*UNOWNED, Point.QUEUED, Point.SENT, Point.ANSWER_SENT, Point.DELIVERED),
    Absence.AFTER: (*UNOWNED, *_OWNED),
    Absence.ASLEEP: tuple(Point),
}
"""For each row one point or more. From ownership on the journal alone decides what a killed agent does (`test_kill_points`)."""
CASES = [(point, absence) for absence, points in PLACES.items() for point in points]


@pytest.fixture(scope="module")
def lives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """The lives of each case that a chosen test asks for, many at a time: most of each is waiting for a lease to end."""
    chosen = {
        tuple(item.callspec.params.values()) for item in request.session.items if item.path == request.path and hasattr(item, "callspec")
    }
    futures: dict[tuple[Point, Absence], list[Future[SharedLife]]] = {}
    with Sandbox(visibility_timeout=2) as sandbox, ThreadPoolExecutor(AT_ONCE) as pool:
        for point, absence in [case for case in CASES if case in chosen]:
            reported = 1 if absence is Absence.ASLEEP or point in UNOWNED else TABLE[point].reported
            futures[point, absence] = [
                pool.submit(live, sandbox, tmp_path_factory.mktemp(point), point, absence, kinds, reported) for kinds in kinds_of(point)
            ]
        yield lambda point, absence: [future.result(PATIENCE_SECONDS) for future in futures[point, absence]]
        pool.shutdown(cancel_futures=True)


def test_the_shared_table_names_every_point_in_the_order_of_a_commands_way() -> None:
    assert list(ROWS) == list(Point)


def test_the_document_has_the_shared_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert [row for row in rows if len(row) == 6][2:] == [row.cells() for row in SHARED_TABLE]


@pytest.mark.parametrize(("point", "absence"), CASES)
def test_of_two_agents_one_runs_each_command_when_the_other_was_away(lives: Lives, point: Point, absence: Absence) -> None:
    """No POST is asked for twice, no two different texts end a command, and only the one that owns it mentions it."""
    row = ROWS[point]
    for life in lives(point, absence):
        assert life.exit_codes == [*([] if absence is Absence.ASLEEP else [-signal.SIGKILL]), 0, 0]
        assert (life.disagreements, life.left_over) == ([], [])
        assert all(trace.journal in states_of(kind, row.journal) for (kind, _), trace in life.traces.items())
        assert life.claimed == (set(life.ids) if row.claimed else set())
        for (_, size), trace in life.traces.items():
            check(trace, point, absence, large=size == LARGE)
        check_owner(life)


def check(trace: Trace, point: Point, absence: Absence, *, large: bool) -> None:
    """Compare what became of one command with the table."""
    runner = ROWS[point].runners[absence]
    if runner is Runner.NOBODY:
        assert (trace.asked, trace.finals, trace.command.final) == (0, [], False)
        return
    alone = TABLE[point].repeatable if may_repeat(trace) else TABLE[point].once
    fate, reported = (alone, TABLE[point].reported) if runner is Runner.AS_ALONE else (RAN, 1)
    answer = body(trace.command)
    assert (trace.command.status, answer.get("statusCode", answer.get("code"))) == (fate.status, fate.code)
    assert trace.asked == fate.asked
    # One that SQS answered too late for the agent that was killed may be sent again, unchanged.
    assert (len(set(trace.finals)), len(trace.finals) >= reported) == (1, True)
    assert json.loads(trace.finals[0])["status"] == fate.status
    if fate.status == "SUCCESS":
        assert answer["body"].partition(" ")[2] == f"{fate.asked}" + ("\n" + "x" * LARGE_BYTES if large else "")


def may_repeat(trace: Trace) -> bool:
    return not trace.path.startswith(("/post/", "/patch/"))


def check_owner(life: SharedLife) -> None:
    """Compare who answered, by the logs of both, and what the one that ceded still has."""
    one, other, all_of_them = life.answered_by(life.agent), life.answered_by(life.other), set(life.ids)
    summary = [line for line in map(json.loads, life.lines) if line["event"] == "summary"][-1]
    assert summary.get("ceded", 0) == life.ceded
    if life.runner is Runner.OTHER:
        assert (one, other, life.remembered()) == (set(), all_of_them, set())
    elif life.runner is Runner.NOBODY:
        assert (one | other, life.remembered()) == (set(), set())
    elif life.runner is Runner.EITHER:
        assert (one | other, one & other) == (all_of_them, set())
    else:
        assert (other, life.ceded) == (set(), 0)
        assert one <= all_of_them | ({life.plug.id} if life.plug else set())
