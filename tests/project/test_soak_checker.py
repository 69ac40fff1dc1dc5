"""The soak's checker finds what must not be, and nothing where all is well.

Owns the proof of each of its rules with hand-made records. It must not run a soak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.soak.checker import Answer, Circumstances, Kind, Reported, Request, Sent, Verdict, check
from tests.soak.plan import DISK, PLATFORM, TARGET, draw

POST = Sent(1, "id-1", "POST", False, "asked", 10.0, instrument="2")
GET = replace(POST, method="GET", repeatable=True)
SEEN = Request("POST", "asked", 10.5, Answer(200, "given"))
SEEN_GET = replace(SEEN, method="GET")
OUT_OF_ORDER = {"2": [(9.0, 12.0)]}
TOLD = Reported("SUCCESS", 11.0, 200, "given", None, ("text",))


def failed(code: str, **fields: object) -> Reported:
    return replace(Reported("FAILURE", 11.0, None, None, code, ("text",)), **fields)  # type: ignore[arg-type]


def judge(
    sent: Sent, seen: list[Request], reported: Reported | None, ends: tuple[float, ...] = (), troubles: Mapping[str, Any] = OUT_OF_ORDER
) -> Verdict:
    return check([sent], {sent.number: seen}, {} if reported is None else {sent.number: reported}, Circumstances(ends, troubles))


def kinds(sent: Sent, seen: list[Request], reported: Reported | None, ends: tuple[float, ...] = ()) -> list[Kind]:
    return [finding.kind for finding in judge(sent, seen, reported, ends).findings]


def test_a_command_answered_as_its_target_answered_is_in_order() -> None:
    assert kinds(POST, [SEEN], TOLD) == []


def test_no_final_status_is_lost() -> None:
    assert kinds(POST, [SEEN], None) == [Kind.LOST]
    assert kinds(POST, [], None) == [Kind.LOST]


def test_a_post_seen_twice_is_doubled_whatever_was_answered() -> None:
    assert kinds(POST, [SEEN, SEEN], TOLD) == [Kind.DOUBLED]
    assert kinds(POST, [SEEN, SEEN], failed("EINTERRUPTED"), (10.7,)) == [Kind.DOUBLED]


def test_what_may_be_repeated_is_not_doubled() -> None:
    assert kinds(GET, [SEEN_GET, replace(SEEN_GET, answer=None)], TOLD) == []


@pytest.mark.parametrize(
    "reported",
    [replace(TOLD, digest="another"), replace(TOLD, http_status=201), replace(TOLD, digest=None), replace(TOLD, http_status=None)],
)
def test_success_that_the_target_never_gave_is_falsely_successful(reported: Reported) -> None:
    assert kinds(POST, [SEEN], reported) == [Kind.FALSE_SUCCESS]


def test_success_of_a_request_that_was_never_seen_or_half_answered_is_falsely_successful() -> None:
    assert kinds(POST, [], TOLD) == [Kind.FALSE_SUCCESS]
    assert kinds(POST, [replace(SEEN, answer=None)], TOLD) == [Kind.FALSE_SUCCESS]


def test_success_with_a_failures_code_or_status_is_falsely_successful() -> None:
    assert kinds(POST, [SEEN], failed("ECONNRESET", status="SUCCESS")) == [Kind.FALSE_SUCCESS]
    assert kinds(POST, [replace(SEEN, answer=Answer(503, "given"))], replace(TOLD, http_status=503)) == [Kind.FALSE_SUCCESS]


def test_an_error_status_that_the_target_gave_is_a_true_failure() -> None:
    assert kinds(POST, [replace(SEEN, answer=Answer(503, "given"))], replace(TOLD, status="FAILURE", http_status=503)) == []


@pytest.mark.parametrize("code", ["ECONNREFUSED", "ENOTFOUND", "EBADCOMMAND", "EEXPIRED", "ERESPONSETOOLARGE"])
def test_a_failure_that_cannot_be_true_is_falsely_failed(code: str) -> None:
    seen = [replace(SEEN, answer=None)]
    assert kinds(POST, seen, failed(code)) == [Kind.FALSE_FAILURE]


def test_a_refused_connection_is_a_true_failure_where_nothing_was_seen() -> None:
    assert kinds(POST, [], failed("ECONNREFUSED")) == []
    assert kinds(replace(POST, referenced=True), [], failed("EBADCOMMAND")) == []
    assert kinds(POST, [], failed("EBADCOMMAND")) == [Kind.FALSE_FAILURE]


@pytest.mark.parametrize("code", ["ECONNREFUSED", "ECONNRESET", "EPIPE"])
@pytest.mark.parametrize("troubles", [{}, {"1": [(9.0, 12.0)]}, {"2": [(8.0, 9.0), (12.0, 13.0)]}])
def test_a_connection_that_fails_at_a_target_in_order_is_falsely_failed(code: str, troubles: dict[str, list[tuple[float, float]]]) -> None:
    assert [finding.kind for finding in judge(POST, [], failed(code), troubles=troubles).findings] == [Kind.FALSE_FAILURE]
    assert kinds(POST, [], failed(code)) == []


def test_a_get_sent_again_may_be_refused_then_and_a_post_may_not() -> None:
    assert kinds(GET, [SEEN_GET], failed("ECONNREFUSED")) == []
    assert kinds(POST, [SEEN], failed("ECONNREFUSED"), (10.7,)) == [Kind.FALSE_FAILURE]
    get = replace(GET, referenced=True)
    assert [finding.kind for finding in judge(get, [SEEN_GET], failed("EBADCOMMAND"), troubles={}).findings] == [Kind.FALSE_FAILURE]
    assert judge(get, [SEEN_GET], failed("EBADCOMMAND"), (10.7,), {}).findings == []


def test_einterrupted_needs_an_end_of_the_agent_meanwhile_and_a_request_that_may_not_be_repeated() -> None:
    assert kinds(POST, [SEEN], failed("EINTERRUPTED"), (10.7,)) == []
    assert kinds(POST, [SEEN], failed("EINTERRUPTED"), (9.0, 12.0)) == [Kind.FALSE_FAILURE]
    assert kinds(GET, [SEEN_GET], failed("EINTERRUPTED"), (10.7,)) == [Kind.FALSE_FAILURE]


def test_two_different_final_messages_are_answered_twice() -> None:
    assert kinds(POST, [SEEN], replace(TOLD, texts=("text", "other text"))) == [Kind.TWICE]


def test_the_same_final_message_again_is_counted_and_allowed() -> None:
    verdict = judge(POST, [SEEN], replace(TOLD, texts=("text", "text", "text")))
    assert (verdict.findings, verdict.repeated) == ([], 2)


def test_a_body_or_method_that_changed_on_its_way_is_altered() -> None:
    assert kinds(POST, [replace(SEEN, digest="cut")], TOLD) == [Kind.ALTERED]
    assert kinds(POST, [replace(SEEN, method="PUT")], TOLD) == [Kind.ALTERED]


def test_interruptions_are_counted() -> None:
    assert judge(POST, [], failed("EINTERRUPTED"), (10.5,)).interrupted == 1


def test_a_seed_always_draws_the_same_day() -> None:
    assert draw(7, 120.0) == draw(7, 120.0)
    assert draw(7, 120.0) != draw(8, 120.0)


def test_ten_minutes_meet_every_outage_and_none_outlasts_them() -> None:
    plan = draw(1, 600.0)
    assert {episode.kind for episode in plan.episodes} == {*PLATFORM, *TARGET, DISK}
    assert max(episode.end for episode in plan.episodes) <= 600.0
    assert {blow.kind for blow in plan.blows} == {"kill", "stop", "stop then kill"}


@pytest.mark.parametrize("full, found", [([(9.0, 12.0)], []), ([], [Kind.FALSE_FAILURE]), ([(12.0, 13.0)], [Kind.FALSE_FAILURE])])
def test_an_answer_that_did_not_fit_on_the_disk_is_a_true_failure_only_if_the_disk_was_full(
    full: list[tuple[float, float]], found: list[Kind]
) -> None:
    verdict = check([POST], {POST.number: [SEEN]}, {POST.number: failed("ERESPONSETOOLARGE")}, Circumstances(full=full))
    assert [finding.kind for finding in verdict.findings] == found
