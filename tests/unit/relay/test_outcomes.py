"""How an outcome is recorded and reported: embedded, spooled, encrypted, and never before it is durable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, HttpResponse, Status, Update
from relay_agent.storage.buffer import Buffer
from relay_agent.telemetry.command_report import Report
from tests.worlds import CANARY, GDC, World, codes, response


def test_the_report_has_everything_the_canonical_log_line_needs(world: World) -> None:
    task = world.task(payload={"url": "http://target.example:81/p?q=1", "method": "POST", "body": "12345", "extra": 1})
    world.time += 0.5

    def later() -> None:
        world.time += 0.25

    world.target.meanwhile = later
    world.target.answers = [response(b"abc", 404)]
    _, report = world.process(task)
    assert report == Report(
        id="c-1",
        action=GDC,
        status=Status.FAILURE,
        method="POST",
        host="target.example",
        port=81,
        scheme="http",
        status_code=404,
        bytes_in=report.bytes_in,
        bytes_out=5,
        queued_ms=500,
        target_ms=12,
        total_ms=750,
        warnings=("unknown field 'extra' ignored",),
    )


def test_the_report_says_whether_a_proxy_answered_in_the_target_s_place(world: World) -> None:
    world.target.answers = [replace(response(b"", 503), from_proxy=True)]
    assert world.process(world.task())[1].from_proxy


def test_the_report_counts_the_bytes_that_came_in(world: World) -> None:
    world.target.answers = [response(b"abc")]
    assert world.process(world.task())[1].bytes_in == 3


def test_a_command_that_an_error_of_the_agent_ended_is_answered(world: World) -> None:
    task = world.task()
    world.target.answers = [ZeroDivisionError(CANARY)]
    with pytest.raises(ZeroDivisionError):
        world.process(task)
    update = world.outcomes.abandon(task)
    assert codes(update) == ("FAILURE", "EINTERRUPTED")
    assert world.undelivered() == [update]


def test_a_status_update_never_repeats_the_request(world: World) -> None:
    payload = {
        "url": f"http://me:{CANARY}@target.example/",
        "method": "POST",
        "headers": {"Authorization": CANARY, "Cookie": CANARY},
        "body": CANARY,
    }
    world.target.answers = [Failure(Code.ECONNREFUSED, "connect ECONNREFUSED", "http://target.example/")]
    update, report = world.process(world.task(payload=payload))
    assert CANARY not in update.message + str(report) + repr(world.target.asked[0][0])


class Slow(Buffer):
    """Content of which every piece takes some seconds of the clock."""

    def __init__(self, world: World, seconds: float) -> None:
        super().__init__(None)
        self._world = world
        self._seconds = seconds

    def chunks(self) -> Iterator[bytes]:
        for piece in super().chunks():
            self._world.time += self._seconds
            yield piece


def test_an_answer_that_takes_too_long_to_encode_is_etimedout_and_leaves_no_file(world: World) -> None:
    content = Slow(world, 1.0)
    for _ in range(20):
        content.write(b"x" * 64 * 1024)
    world.target.answers = [HttpResponse(200, (), content, None, True, "http://target.example/", 12)]
    status, code = codes(world.run(payload={"url": "http://target.example/", "timeout": 1}))
    assert (status, code) == ("FAILURE", "ETIMEDOUT")
    assert world.reports[-1].code == "ETIMEDOUT"
    assert list(world.spool.directory.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        next(content.chunks())


@pytest.mark.parametrize("encoding_seconds, status", [(1.9, Status.SUCCESS), (2.1, Status.FAILURE)])
def test_an_answer_that_came_at_the_last_moment_still_gets_time_to_be_encoded(
    world: World, encoding_seconds: float, status: Status
) -> None:
    world.target.meanwhile = lambda: setattr(world, "time", world.time + 0.999)
    content = Slow(world, encoding_seconds)
    content.write(b"x")
    world.target.answers = [HttpResponse(200, (), content, None, True, "http://target.example/", 999)]
    assert world.run(payload={"url": "http://target.example/", "timeout": 1}).status is status


def test_a_responses_content_is_freed_once_it_is_recorded(world: World) -> None:
    answer = response(b"abc")
    world.target.answers = [answer]
    world.run()
    with pytest.raises(ValueError, match="closed"):
        list(answer.content.chunks())


def test_a_large_answer_is_reported_once_and_only_when_it_is_settled(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    update = world.run()
    assert world.reports == []
    world.time += 7
    world.outcomes.settle(replace(update, spool=None))
    ((report,), size) = world.reports, 300_000
    assert report.total_ms == 7000  # its upload is part of it
    assert (report.status, report.code, report.status_code, report.bytes_in) == ("SUCCESS", None, 201, size)


def test_a_large_answer_whose_upload_is_refused_is_reported_as_it_is_sent(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    update = world.run()
    world.outcomes.settle(Update(update.command_id, Status.FAILURE, update.fallback or "", code=Code.ERESPONSETOOLARGE))
    ((report,), size) = world.reports, 300_000
    assert (report.status, report.code, report.status_code, report.bytes_in) == ("FAILURE", "ERESPONSETOOLARGE", 201, size)


def test_a_large_answer_settled_after_a_restart_is_reported_with_what_the_journal_knows(world: World) -> None:
    world.target.answers = [response(b"x" * 300_000, 201)]
    world.run(payload={"url": "http://target.example:8080/", "method": "POST"})
    _, (update,) = world.again()
    world.outcomes.settle(replace(update, spool=None))
    assert world.reports == [Report("c-1", GDC, Status.SUCCESS, "POST", "target.example", 8080, "http", status_code=201, measured=False)]
