"""The two queues: what is received, sent, deleted, and what answers in their place (PROTOCOL §2)."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay_agent.core.errors import (
    CredentialsExpired,
    PlatformError,
    PlatformUnreachable,
)
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.tdp.aws_clients import Aws
from relay_agent.tdp.platform_http import PlatformHttp
from relay_agent.tdp.sqs import Deleted, Queue, Received, SendResult
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.examples import examples
from tests.target_proxies import HttpProxy
from tests.targets import closed_port
from tests.unit.tdp.scenes import Server, Source, aws_error


class Sqs:
    """Replaces botocore's client: returns or raises its answers in order."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def _answer(self, **request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    receive_message = delete_message_batch = send_message_batch = _answer


def test_calls_to_sqs_go_through_the_platforms_proxy_signed_for_the_agents_region(server: Server) -> None:
    credentials = Source().credentials
    with HttpProxy() as proxy:
        http = PlatformHttp(
            lambda: Transport(Dialer(TlsContexts(), Resolver())), ProxyRouter({}, "", {Leg.PLATFORM: proxy.url()}), Policy()
        )
        sqs = Aws(http, credentials, server.url).client("sqs", "eu-west-1")
        assert Queue(sqs, "https://sqs.eu-west-1.amazonaws.com/1/q", credentials, endpoint=server.url).receive(1) == []
        (seen,) = proxy.seen
        assert "/eu-west-1/sqs/aws4_request" in (seen.get("Authorization") or "")
        http.close()


def test_a_connection_error_to_the_queue_names_the_host_that_was_called_in_the_words_of_check(http: PlatformHttp) -> None:
    endpoint = f"http://127.0.0.1:{closed_port()}"
    credentials = Source().credentials
    sqs = Aws(http, credentials, endpoint).client("sqs", "eu-west-1")
    with pytest.raises(PlatformUnreachable) as caught:
        Queue(sqs, "https://sqs.eu-west-1.amazonaws.com/1/q", credentials, endpoint=endpoint).receive(1)
    reported = cause_of(caught.value)
    assert reported.cause.startswith(f"127.0.0.1 refuses connections on port {endpoint.rpartition(':')[2]}")
    assert f"AWS_ENDPOINT_URL is set, so calls to AWS go to {endpoint}" in reported.cause
    assert "remove AWS_ENDPOINT_URL" in reported.cure


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("1"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["MessageId", "Body", "ReceiptHandle", "Id", "Code", "SenderFault", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    named=st.dictionaries(st.sampled_from(["Messages", "Successful", "Failed", "__type", "message"]), ANY_JSON),
    status=st.sampled_from([200, 400]),
)
def test_any_answer_in_place_of_sqs_gives_messages_or_a_platform_error(
    server: Server, http: PlatformHttp, named: dict[str, Any], status: int
) -> None:
    credentials = Source().credentials
    queue = Queue(_client(http, server.url), "https://sqs.eu-west-1.amazonaws.com/1/q", credentials, endpoint=server.url)
    server.answer(named, status)
    with contextlib.suppress(PlatformError):
        assert all(isinstance(one.body, str) and isinstance(one.receipt, str) for one in queue.receive(10))
    with contextlib.suppress(PlatformError):
        found = queue.delete(["r0", "r1"])
        assert not found.done & found.refused
    with contextlib.suppress(PlatformError):
        result = queue.send(["a", "b"])
        assert sorted([*result.sent, *(place for place, _, _ in result.failed)]) == [0, 1]


def test_an_answer_of_millions_of_values_in_place_of_sqs_is_not_parsed(server: Server, http: PlatformHttp) -> None:
    queue = Queue(_client(http, server.url), "https://sqs.eu-west-1.amazonaws.com/1/q", Source().credentials, endpoint=server.url)
    server.answer(b'{"Messages":[' + b"[]," * 3_000_000 + b"0]}")
    with pytest.raises(PlatformError, match="more than 100,000"):
        queue.receive(10)


@functools.cache
def _client(http: PlatformHttp, url: str) -> Any:
    return Aws(http, Source().credentials, url).client("sqs", "eu-west-1")


def test_an_invalid_message_does_not_block_others() -> None:
    good = {"MessageId": "m", "Body": "b", "ReceiptHandle": "r"}
    sqs = Sqs({"Messages": [{}, None, {"ReceiptHandle": "no body"}, good | {"Body": 5}, {"Body": "no receipt"}, good]})
    received = Queue(sqs, "https://in", Source().credentials).receive(10)
    assert [(message.receipt, message.body) for message in received] == [("no body", ""), ("r", ""), ("r", "b")]


def test_at_most_ten_messages_are_received(server: Server) -> None:
    sqs = Sqs({"Messages": [{"MessageId": "m", "Body": "b", "ReceiptHandle": "r"}]}, {})
    queue = Queue(sqs, "https://in", Source().credentials)
    assert queue.receive(50) == [Received("m", "b", "r")]
    assert queue.receive(3) == []
    assert [asked["MaxNumberOfMessages"] for asked in sqs.asked] == [10, 3]
    assert sqs.asked[0]["WaitTimeSeconds"] == 20


def test_sent_and_failed_messages_are_reported_by_index() -> None:
    sqs = Sqs(
        {"Successful": [{"Id": "2"}, {"Id": "0"}], "Failed": [{"Id": "1", "Code": "InvalidMessageContents", "SenderFault": True}]},
        {
            "Successful": [{"Id": "0"}],
            "Failed": [{"Id": "1", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}, {"Id": "2", "Code": "InternalError"}],
        },
        {},
        {},
    )
    queue = Queue(sqs, "https://out", Source().credentials)
    assert queue.send(["a", "b", "c"]) == SendResult((0, 2), ((1, "InvalidMessageContents", True),))
    assert queue.delete(["r0", "r1", "r2"]) == Deleted(frozenset({0}), frozenset({1}), "ReceiptHandleIsInvalid")
    assert [entry["MessageBody"] for entry in sqs.asked[0]["Entries"]] == ["a", "b", "c"]
    # What an answer does not confirm counts as not done.
    assert queue.send(["a"]) == SendResult((), ((0, "Unconfirmed", False),))
    assert queue.delete(["r0"]) == Deleted(frozenset(), frozenset(), "Unconfirmed")


def test_expired_credentials_are_renewed_at_once_and_the_call_is_repeated_once() -> None:
    source = Source()
    source.credentials.renew(None)
    assert Queue(Sqs(aws_error("ExpiredToken"), {}), "https://in", source.credentials).receive(1) == []
    assert source.fetches == 2
    sqs = Sqs(aws_error("ExpiredToken"), aws_error("ExpiredToken"))
    with pytest.raises(CredentialsExpired):
        Queue(sqs, "https://in", source.credentials).receive(1)
    assert len(sqs.asked) == 2
