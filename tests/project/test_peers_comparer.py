"""The differential test finds what it is for: peers come from their seed alone, and a client that is wrong is found.

Owns the proof of its generator, comparer and table of known differences. It must not call curl, nor judge the agent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.peers import draw, hops, known, parts, report
from tests.peers.compare import Verdict, judge
from tests.peers.outcome import Outcome, Result
from tests.peers.requests_client import Requests
from tests.peers.script import Ask, Reply, Script, head
from tests.peers.stage import Seen
from tests.peers.trial import play

SCRIPT = Script(1, "field", (), traits=frozenset({"field:folded", "lines:lf"}))
RIGHT = Outcome((Result("answer", 200, (("x", ("1",)),), b"body"),), (Seen("GET", "/start", (), 0),), 1)
FAILED = Outcome((Result("bad", detail="EBADRESPONSE: no"),), RIGHT.seen, 1)
RESET = Outcome((Result("reset", detail="ECONNRESET: no"),), RIGHT.seen, 1)

# --- peers ---


def test_the_same_seed_is_the_same_peer() -> None:
    assert list(draw.scripts(1000, 300)) == list(draw.scripts(1000, 300))


def test_a_peer_does_not_depend_on_those_before_it() -> None:
    assert [draw.script(drawn.seed) for drawn in draw.scripts(1000, 50)] == list(draw.scripts(1000, 50))


def test_another_seed_is_another_peer() -> None:
    replies = Counter(drawn.replies for drawn in draw.scripts(1, 500))
    assert replies.most_common(1)[0][1] < 25


@pytest.mark.parametrize("kind", sorted(draw.KINDS))
def test_only_one_kind_can_be_asked_for(kind: str) -> None:
    assert {drawn.kind for drawn in draw.scripts(1, 20, kind)} == {kind}


def test_a_run_meets_every_part_of_the_catalogues() -> None:
    met = {trait for drawn in draw.scripts(1_000_000, 3000) for trait in drawn.traits}
    catalogues = {
        "status": parts.STATUS_LINES,
        "field": parts.FIELDS,
        "length": parts.lengths(b"body"),
        "chunked": parts.chunkings(b"body"),
        "coding": parts.CODINGS,
        "charset": parts.TEXTS,
        "location": hops.LOCATIONS,
        "cookie": hops.COOKIES,
    }
    wanted = {f"{dimension}:{name}" for dimension, table in catalogues.items() for name in table}
    assert wanted - met == set()


# --- the comparer ---


def differing(agent: Outcome, curl: Outcome = RIGHT, requests: Outcome = RIGHT) -> tuple[str, set[str]]:
    verdict = judge(SCRIPT, agent, curl, requests)
    return verdict.agreement, set(verdict.aspects)


def test_outcomes_that_are_the_same_are_no_difference() -> None:
    assert differing(RIGHT) == ("same", set())


@pytest.mark.parametrize(
    ("change", "aspect"),
    [
        (lambda result: replace(result, status=201), "status"),
        (lambda result: replace(result, body=b"bod"), "body"),
        (lambda result: replace(result, fields=()), "fields"),
        (lambda result: replace(result, kind="bad"), "outcome"),
    ],
)
def test_an_answer_that_is_wrong_in_any_aspect_is_found(change: Callable[[Result], Result], aspect: str) -> None:
    wrong = replace(RIGHT, results=(change(RIGHT.results[0]),))
    assert differing(wrong) == ("alone", {aspect})
    assert differing(RIGHT, curl=wrong) == ("unlike one", {aspect})
    assert differing(RIGHT, wrong, wrong) == ("alone", {aspect})


def test_another_request_and_waiting_are_found() -> None:
    assert differing(replace(RIGHT, seen=())) == ("alone", {"requests"})
    assert differing(replace(RIGHT, waited=True)) == ("alone", {"waiting"})


def test_failures_of_different_kinds_are_distinguished() -> None:
    assert differing(FAILED, RESET, RESET) == ("alone", {"code"})
    assert differing(FAILED, FAILED, RESET) == ("unlike one", {"code"})


def test_where_all_three_differ_the_agent_differs_from_both() -> None:
    other = replace(RIGHT, results=(replace(RIGHT.results[0], body=b"other"),))
    assert differing(RIGHT, FAILED, other) == ("all differ", {"outcome", "body"})


# --- known differences ---

ROW = known.Known("x", ("field:fold*",), ("EBADRESPONSE",), frozenset({"outcome"}), "because")


def verdict(agent: Outcome = FAILED, curl: Outcome = RIGHT) -> Verdict:
    return judge(SCRIPT, agent, curl, RIGHT)


def test_a_known_difference_is_explained_by_trait_outcome_and_aspect_together() -> None:
    assert known.explaining(verdict(), [ROW]) == ["x"]
    for row in (
        replace(ROW, traits=("field:other",)),
        replace(ROW, traits=("field:folded+end:keep",)),
        replace(ROW, gives=("answer",)),
        replace(ROW, aspects=frozenset({"body"})),
    ):
        assert known.explaining(verdict(), [row]) is None


def test_every_aspect_must_be_explained() -> None:
    wrong = replace(FAILED, waited=True)
    assert known.explaining(verdict(wrong), [ROW]) is None
    assert known.explaining(verdict(wrong), [ROW, replace(ROW, id="y", aspects=frozenset({"waiting"}))]) == ["x", "y"]


def test_only_what_differs_from_both_and_is_not_known_fails_a_run() -> None:
    beside = judge(SCRIPT, RIGHT, FAILED, RIGHT)
    assert report.unknown([verdict(), beside, verdict(RIGHT)], []) == [verdict()]
    assert report.unknown([verdict()], [ROW]) == []


def test_the_table_is_read_and_each_row_names_traits_that_peers_have() -> None:
    table = known.read()
    assert len({row.id for row in table}) == len(table) > 10
    traits = frozenset(trait for drawn in draw.scripts(1_000_000, 4000) for trait in drawn.traits)
    for row in table:
        assert row.why, row.id
        assert row.gives, row.id
        assert row.aspects, row.id
        assert [pattern for pattern in row.traits if not known.has(traits, pattern)] == [], row.id


# --- the stage and a client ---


def test_a_peer_is_played_byte_by_byte_and_a_wrong_client_is_found(tmp_path: Path) -> None:
    reply = Reply((head(b"HTTP/1.1 200 OK", [b"X-Port: {PORT}", b"Content-Length: 4"]), b"bo", b"dy"))
    script = Script(1, "field", (reply,), (Ask("POST", "/start?q", b"four"),))
    right = play(script, Requests(tmp_path, 10.0), 1.0)
    assert right.results == (Result("answer", 200, (("x-port", ("{PORT}",)),), b"body"),)
    assert right.seen == (Seen("POST", "/start?q", (), 4),)

    class Wrong(Requests):
        def run(self, script: Script, port: int) -> list[Result]:
            return [replace(result, body=result.body[:-1]) for result in super().run(script, port)]

    wrong = play(script, Wrong(tmp_path, 10.0), 1.0)
    assert judge(script, wrong, right, right).aspects == {"body"}


def test_a_client_that_waits_for_more_is_noted(tmp_path: Path) -> None:
    reply = Reply((head(b"HTTP/1.1 200 OK", [b"Content-Length: 10"]), b"half"))
    outcome = play(Script(1, "length", (reply,)), Requests(tmp_path, 10.0), 0.1)
    assert (outcome.waited, outcome.results[0].kind) == (True, "bad")
