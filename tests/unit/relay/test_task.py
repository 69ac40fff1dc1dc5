"""The rules that depend only on the task: its expiry, its lane, whether it may run again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from relay_agent.core.failures import Code
from relay_agent.core.models import Command, Failure, HttpRequest
from relay_agent.core.urls import parse_url
from relay_agent.relay.task import ANY_LANE, Task, lane_of
from tests.worlds import AGENT, GDC, NOW

COMMAND = Command("c-1", AGENT, GDC)
BAD = Failure(Code.EBADCOMMAND, "no request")


def request(method: str, *headers: tuple[str, str]) -> HttpRequest:
    return HttpRequest(parse_url("http://LIMS.example:81/x"), method, headers)


def unread() -> HttpRequest | Failure:
    pytest.fail("the payload was read")


@pytest.mark.parametrize(("seconds", "expired"), [(-1, False), (0, True), (1, True)])
def test_a_command_is_expired_from_its_expiry_on(seconds: int, expired: bool) -> None:
    task = Task(replace(COMMAND, expires_at=NOW), 0.0)
    assert task.expired(NOW + timedelta(seconds=seconds)) is expired


def test_a_command_without_expiry_never_expires() -> None:
    assert not Task(COMMAND, 0.0).expired(NOW + timedelta(days=10_000))


@pytest.mark.parametrize(
    ("kept", "runs"),
    [
        (request("GET"), True),
        (request("PUT"), True),
        (request("POST"), False),
        (request("POST", ("idempotency-KEY", "k")), True),
        (BAD, True),  # Nothing is sent for it; it is answered with the failure.
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_started_command_runs_again_if_its_request_may_be_repeated(kept: HttpRequest | Failure, runs: bool, in_memory: bool) -> None:
    task = Task(COMMAND, 0.0, request=kept if in_memory else None, started=True)
    assert task.may_run_again(True, unread if in_memory else lambda: kept) is runs
    assert task.may_run_again(None, unread if in_memory else lambda: kept) is runs


def test_a_no_in_the_journal_decides_whatever_the_request_is() -> None:
    assert Task(COMMAND, 0.0, request=request("GET"), started=True).may_run_again(False, unread) is False


@pytest.mark.parametrize(("recorded", "runs"), [(True, True), (False, False), (None, False)])
def test_for_a_body_that_is_not_downloaded_yet_only_the_journal_decides(recorded: bool | None, runs: bool) -> None:
    task = Task(replace(COMMAND, body_url="https://s3.example/get"), 0.0, started=True)
    assert task.needs_download
    assert task.may_run_again(recorded, unread) is runs


def test_no_download_is_needed_once_the_body_is_in_the_spool_or_has_failed() -> None:
    task = Task(replace(COMMAND, body_url="https://s3.example/get"), 0.0)
    assert not replace(task, body="name").needs_download
    assert not replace(task, request=BAD).needs_download


def test_a_lane_is_host_and_port_and_failures_share_one() -> None:
    assert lane_of(request("GET")) == "lims.example:81"
    assert lane_of(BAD) == ANY_LANE
