"""A process is killed by SIGKILL at each fault point and started again (docs/durability.md).

Tests that table with real processes. Each point is run once, some at the same time, and checked method by method.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from relay_agent.core.failpoints import Point
from relay_agent.sandbox.server import Sandbox
from tests.agents import body
from tests.e2e.kill_lives import KINDS, LARGE, LARGE_BYTES, Kind, Life
from tests.e2e.kill_scenes import SCENES, live
from tests.e2e.kill_table import TABLE, states_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "durability.md"
AT_ONCE = 3
PATIENCE_SECONDS = 55.0
Lives = Callable[[Point], list[Life]]
CASES = [
    pytest.param(point, kind, size, id=f"{point}-{kind.name}-{size}") for point in Point for kind in KINDS for size in SCENES[point].sizes
]


@pytest.fixture(scope="module")
def lives(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """The lives of each point that a chosen test asks for, lived a few at a time."""
    chosen = {item.callspec.params["point"] for item in request.session.items if item.path == request.path and hasattr(item, "callspec")}
    futures: dict[Point, list[Future[Life]]] = {}
    with Sandbox(visibility_timeout=2) as sandbox, ThreadPoolExecutor(AT_ONCE) as pool:
        for point in [point for point in Point if point in chosen]:
            futures[point] = [
                pool.submit(live, sandbox, tmp_path_factory.mktemp(point), point, kinds, TABLE[point].reported)
                for kinds in (((kind,) for kind in KINDS) if SCENES[point].alone else (KINDS,))
            ]
        yield lambda point: [future.result(PATIENCE_SECONDS) for future in futures[point]]
        pool.shutdown(cancel_futures=True)


def test_the_table_and_the_scenes_name_every_point_in_the_order_of_a_commands_way() -> None:
    assert list(TABLE) == list(SCENES) == list(Point)


def test_the_table_repeats_no_unrepeatable_request_and_claims_no_success_without_an_answer() -> None:
    assert max(row.once.asked for row in TABLE.values()) == 1
    assert all(fate.asked > 0 for row in TABLE.values() for fate in (row.repeatable, row.once) if fate.status == "SUCCESS")


def test_the_document_has_the_same_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if re.match(r"\| `[a-z-]+` \|", line)]
    assert [row for row in rows if len(row) == 5] == [[f"`{point}`", *row.cells()] for point, row in TABLE.items()]


@pytest.mark.parametrize("point", Point)
def test_a_kill_there_loses_no_message_and_leaves_no_file(lives: Lives, point: Point) -> None:
    """It dies by SIGKILL, ends well after the next start, rows and spool files agree, and queue and spool are empty then."""
    for life in lives(point):
        assert life.exit_codes == [-signal.SIGKILL, 0]
        assert life.disagreements == []
        assert life.left_over == []


@pytest.mark.parametrize(("point", "kind", "size"), CASES)
def test_a_command_whose_agent_is_killed_there_comes_to_its_one_answer(lives: Lives, point: Point, kind: Kind, size: str) -> None:
    row = TABLE[point]
    fate = row.repeatable if kind.repeatable else row.once
    (trace,) = [life.traces[kind.name, size] for life in lives(point) if (kind.name, size) in life.traces]
    assert trace.journal in states_of(kind.name, row.journal)
    assert trace.asked_then == row.asked
    answer = body(trace.command)
    assert (trace.command.status, answer.get("statusCode", answer.get("code"))) == (fate.status, fate.code)
    assert trace.asked == fate.asked
    assert (len(trace.finals), len(set(trace.finals))) == (row.reported, 1)
    assert json.loads(trace.finals[0])["status"] == fate.status
    if fate.status == "SUCCESS":
        # The target's complete last answer, and no other.
        rest = "\n" + "x" * LARGE_BYTES if size == LARGE else ""
        assert answer["body"] == f"{kind.method} {fate.asked}{rest}"
    else:
        assert "statusCode" not in answer
