"""One command's exchange: which fields a target sees, and that a stop, a bound or a fault ends it as a value or as Interrupted.

Redirects, proxies, TLS and deadlines against real sockets are tested in `tests/contract`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_agent import USER_AGENT
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import Interrupted
from relay_agent.core.failures import Code
from relay_agent.core.models import Failure, HttpResponse
from relay_agent.protocol.requests import decode_request
from relay_agent.relay.target.executor import ACCEPT_ENCODING, Executor
from tests.contract.relaying import Relay
from tests.targets import ByteTarget, closed_port, redirect, reply


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as found:
        found.on("*", reply(200, body="ok"))
        yield found


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[Executor]:
    relay = Relay(tmp_path)
    yield relay.executor(max_response_bytes=1000)
    relay.close()


def execute(executor: Executor, url: str, deadline: Deadline | None = None, **fields: Any) -> HttpResponse | Failure:
    return executor.execute(decode_request({"url": url, **fields}), deadline or Deadline(10.0))


def test_a_target_sees_the_command_s_fields_and_only_those_that_the_protocol_needs_besides(executor: Executor, target: ByteTarget) -> None:
    execute(executor, target.url("/a"), headers=[{"X-One": "1"}, {"X-Two": "2"}])
    assert target.last.headers == [
        ("Host", f"127.0.0.1:{target.port}"),
        ("User-Agent", USER_AGENT),
        ("Accept-Encoding", ACCEPT_ENCODING),
        ("X-One", "1"),
        ("X-Two", "2"),
    ]


def test_a_field_that_the_command_sets_itself_is_not_added(executor: Executor, target: ByteTarget) -> None:
    own = [("host", "named.lab.example"), ("user-agent", "own"), ("ACCEPT-encoding", "identity"), ("authorization", "own")]
    execute(executor, target.url("/a", userinfo="u:p"), headers=[{name: value} for name, value in own])
    assert target.last.headers == own


def test_the_user_info_of_the_url_becomes_its_authorization(executor: Executor, target: ByteTarget) -> None:
    execute(executor, target.url("/a", userinfo="u:p"))
    assert target.last.get_all("authorization") == ["Basic dTpw"]
    assert target.last.target == "/a"


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", None, []),
        ("DELETE", None, []),
        ("POST", None, ["0"]),
        ("PUT", None, ["0"]),
        ("PATCH", None, ["0"]),
        ("POST", "abc", ["3"]),
        ("GET", "abc", ["3"]),
    ],
)
def test_a_body_or_its_absence_has_the_length_that_targets_expect(
    executor: Executor, target: ByteTarget, method: str, body: str | None, length: list[str]
) -> None:
    execute(executor, target.url("/a"), method=method, **({} if body is None else {"body": body}))
    assert target.last.get_all("content-length") == length


def test_before_send_is_called_once_for_a_whole_chain_of_redirects(executor: Executor, target: ByteTarget) -> None:
    calls: list[int] = []
    target.on("/a", redirect(302, "/b"))
    found = executor.execute(decode_request({"url": target.url("/a")}), Deadline(10.0), lambda: calls.append(len(target.requests)))
    assert isinstance(found, HttpResponse)
    assert (calls, [request.target for request in target.requests]) == ([0], ["/a", "/b"])


def test_what_before_send_raises_comes_through_and_nothing_is_sent(executor: Executor, target: ByteTarget) -> None:
    def refuse() -> None:
        raise KeyError("as told")

    with pytest.raises(KeyError):
        executor.execute(decode_request({"url": target.url("/a")}), Deadline(10.0), refuse)
    assert target.requests == []


def test_what_is_wrong_with_a_target_is_a_failure_with_its_facts(executor: Executor, target: ByteTarget) -> None:
    refused = execute(executor, f"http://127.0.0.1:{closed_port()}/a?canary")
    target.on("/large", reply(200, body="x" * 1001))
    large = execute(executor, target.url("/large"))
    forbidden = execute(executor, "http://169.254.169.254/latest")
    assert isinstance(refused, Failure) and isinstance(large, Failure) and isinstance(forbidden, Failure)
    assert [failure.code for failure in (refused, large, forbidden)] == [Code.ECONNREFUSED, Code.ERESPONSETOOLARGE, Code.EPOLICY]
    assert refused.facts is not None and refused.facts.code is Code.ECONNREFUSED
    assert (refused.url or "").startswith("http://127.0.0.1:")


def test_after_an_interrupt_nothing_is_started(executor: Executor, target: ByteTarget) -> None:
    executor.interrupt()
    with pytest.raises(Interrupted):
        execute(executor, target.url("/a"))
    assert target.requests == []


def test_an_answer_that_came_while_it_was_interrupted_may_be_cut_and_does_not_count(executor: Executor, target: ByteTarget) -> None:
    target.on("/a", reply(200, body="whole"))
    with pytest.raises(Interrupted):
        executor.execute(decode_request({"url": target.url("/a")}), Deadline(10.0), executor.interrupt)


def test_the_end_of_the_exchange_under_way_is_known_and_afterwards_is_not_in_the_future(executor: Executor, target: ByteTarget) -> None:
    assert executor.ends_at is None
    now, during = 1000.0, []
    deadline = Deadline(60.0, lambda: now)
    executor.execute(decode_request({"url": target.url("/a")}), deadline, lambda: during.append(executor.ends_at))
    assert (during, executor.ends_at) == ([1060.0], 1000.0)


def test_a_call_that_a_key_of_a_table_forbids_names_the_key(tmp_path: Path) -> None:
    relay = Relay(tmp_path)
    executor = relay.executor(policy='default = "allow"\n[[target]]\nhosts = ["127.0.0.1"]\nallow_ignore_tls = false\n')
    found = execute(executor, f"https://127.0.0.1:{closed_port()}/", ignore_tls_certificate=True)
    relay.close()
    assert isinstance(found, Failure) and found.facts is not None
    assert (found.code, found.facts.table_key) == (Code.EPOLICY, "allow_ignore_tls")
