"""The calls to CloudWatch Logs: expired credentials are renewed once, each try is counted, and a check leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from relay_agent.core.errors import Call, NotThePlatform, PlatformError
from relay_agent.tdp.cloudwatch_logs import LogsClient
from tests.unit.tdp.scenes import Source, aws_error

ENDPOINT = "http://127.0.0.1:4566"
EXPIRED = aws_error("ExpiredTokenException")


class Service:
    """Replaces botocore's client: returns or raises its answers in order."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.meta = self
        self.endpoint_url = "https://logs.eu-west-1.amazonaws.com"

    def _answer(self, name: str, request: dict[str, Any]) -> Any:
        self.asked.append((name, request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def create_log_stream(self, **request: Any) -> Any:
        return self._answer("create", request)

    def put_log_events(self, **request: Any) -> Any:
        return self._answer("put", request)

    def describe_log_streams(self, **request: Any) -> Any:
        return self._answer("describe", request)


class World:
    def __init__(self, *answers: Any) -> None:
        self.service, self.source = Service(*answers), Source()
        self.source.credentials.renew(None)
        self.counted: list[tuple[str, str]] = []
        self.client = LogsClient(self.service, self.source.credentials, lambda *what: self.counted.append(what), ENDPOINT)

    def look(self) -> PlatformError:
        with pytest.raises(PlatformError) as caught:
            self.client.look("group")
        return caught.value


def test_a_call_is_passed_on_and_counted_by_its_name() -> None:
    world = World({"a": 1}, {"b": 2})
    assert world.client.create_log_stream(logGroupName="g") == {"a": 1}
    assert world.client.put_log_events(logEvents=[]) == {"b": 2}
    assert world.service.asked == [("create", {"logGroupName": "g"}), ("put", {"logEvents": []})]
    assert world.counted == [("logs create", "ok"), ("logs put", "ok")]


def test_with_expired_credentials_the_call_is_made_again_with_new_ones_and_both_are_counted() -> None:
    world = World(EXPIRED, {"a": 1})
    assert world.client.put_log_events(logEvents=[]) == {"a": 1}
    assert (world.source.fetches, world.counted) == (2, [("logs put", "error"), ("logs put", "ok")])


def test_credentials_that_are_still_refused_when_new_are_not_renewed_again() -> None:
    world = World(EXPIRED, EXPIRED)
    with pytest.raises(ClientError):
        world.client.put_log_events(logEvents=[])
    assert (world.source.fetches, len(world.counted)) == (2, 2)


def test_any_other_error_comes_through_as_botocore_s_and_is_not_tried_again() -> None:
    world = World(aws_error("ResourceNotFoundException"))
    with pytest.raises(ClientError):
        world.client.put_log_events(logEvents=[])
    assert (world.source.fetches, world.counted) == (1, [("logs put", "error")])


def test_a_log_group_that_can_be_described_is_fine_and_nothing_is_written() -> None:
    world = World({"logStreams": []})
    world.client.look("group")
    assert world.service.asked == [("describe", {"logGroupName": "group", "limit": 1})]


def test_an_answer_that_describes_no_log_group_is_not_the_platform_s() -> None:
    error = World({}).look()
    assert (type(error), error.call, error.endpoint) == (NotThePlatform, Call.LOGS_LOOK, ENDPOINT)


def test_a_role_that_may_only_write_is_tried_with_a_line_that_no_stream_takes() -> None:
    world = World(aws_error("AccessDeniedException"), aws_error("ResourceNotFoundException"))
    world.client.look("group")
    (_, (name, request)) = world.service.asked
    assert (name, request["logGroupName"], request["logStreamName"].startswith("none-")) == ("put", "group", True)


def test_a_role_that_may_do_neither_is_refused_with_the_error_of_the_write() -> None:
    world = World(aws_error("AccessDeniedException"), aws_error("AccessDeniedException", 403))
    error = world.look()
    assert (error.call, error.denied, error.status, error.endpoint) == (Call.LOGS_LOOK, True, 403, ENDPOINT)


def test_a_log_group_that_does_not_exist_is_not_tried_by_writing() -> None:
    world = World(aws_error("ResourceNotFoundException"))
    assert (world.look().denied, len(world.service.asked)) == (False, 1)
