"""How failing targets are logged: when a failure begins, changes and ends, with cause and cure, and bounded whatever senders request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.urls import parse_url
from relay_agent.diagnostics.target_failures import HOST_LINES_AN_HOUR, LINES_AN_HOUR, MOST_HOSTS, MOST_SHOWN, SHOWN_SECONDS, TargetFailures
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.proxy import parse_proxy
from relay_agent.transport.proxy_connect import ProxyRefused, TunnelRefused
from tests.counting import calls_of
from tests.simulated_agent import SimulatedAgent

REFUSED = TransportFault(Code.ECONNREFUSED, "connect ECONNREFUSED 10.20.0.7:9005")
NO_NAME = TransportFault(Code.ENOTFOUND, "getaddrinfo ENOTFOUND lims.lab.example")
URL = "http://lims.lab.example:9005/"
PROXY = parse_proxy("http://lab:canary@proxy.lab.example:3128")
DAY = 24 * 3600
SICK_DAY_BYTES = 1_000_000
"""As in tests/integration/test_log_budgets.py."""


class World:
    """TargetFailures with the agent's own log, and a time that the test advances."""

    def __init__(self) -> None:
        self.agent = SimulatedAgent()
        self.trouble = TargetFailures(self.agent.logs.logger, self.agent.clock)

    def failed(self, fault: TransportFault, url: str = URL, times: int = 1) -> None:
        for _ in range(times):
            self.trouble.failed(parse_url(url), fault)

    def answered(self, url: str = URL, status: int = 200, proxy: Any = None) -> None:
        self.trouble.answered(Exchange("GET", parse_url(url), (), None, Deadline(1), proxy=proxy), status)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.agent.stdout.lines]

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@pytest.fixture
def world() -> World:
    return World()


def test_a_host_that_keeps_failing_is_logged_once_with_cause_and_cure_and_once_when_it_recovers(world: World) -> None:
    world.failed(REFUSED, times=100)
    (line,) = world.lines
    assert (line["event"], line["host"], line["port"], line["reason"]) == ("target-failed", "lims.lab.example", 9005, "ECONNREFUSED")
    assert line["error"] == REFUSED.message
    assert line["cause"] == "lims.lab.example refuses connections on port 9005: nothing listens there, or a firewall rejects them"
    assert "check the port in the URL" in line["cure"]
    world.agent.time += 30
    world.answered(status=500)
    world.answered()
    assert world.events == ["target-failed", "target-recovered"]
    assert (world.lines[1]["tries"], world.lines[1]["seconds"]) == (100, 30.0)


def test_a_new_reason_is_logged_and_a_lasting_one_once_an_hour(world: World) -> None:
    world.failed(REFUSED)
    world.failed(NO_NAME)
    world.failed(REFUSED)
    assert [line["reason"] for line in world.lines] == ["ECONNREFUSED", "ENOTFOUND"]
    world.agent.time += 3600
    world.failed(REFUSED, times=3)
    assert [line["reason"] for line in world.lines] == ["ECONNREFUSED", "ENOTFOUND", "ECONNREFUSED"]


def test_hosts_and_ports_fail_separately_and_a_working_one_is_not_logged(world: World) -> None:
    world.failed(REFUSED)
    world.failed(REFUSED, "http://lims.lab.example:9006/")
    world.answered("http://other.lab.example/")
    world.answered("http://lims.lab.example:9006/")
    assert [(line["event"], line["port"]) for line in world.lines] == [
        ("target-failed", 9005),
        ("target-failed", 9006),
        ("target-recovered", 9006),
    ]


@pytest.mark.parametrize("status", [407, 502])
def test_a_refusal_by_the_proxy_names_the_proxy_for_tunnels_and_plain_http(world: World, status: int) -> None:
    assert PROXY is not None
    world.failed(TunnelRefused(PROXY, status, (), b"canary"), "https://lims.lab.example/")
    world.answered(status=status, proxy=PROXY)
    assert [line["reason"] for line in world.lines] == [f"EBADRESPONSE {status} at the proxy"] * 2
    for line in world.lines:
        assert line["cause"].startswith("the proxy http://[redacted]@proxy.lab.example:3128")
        assert f"answered {status}" in line["cause"]
    assert "canary" not in str(world.agent.stdout.lines)
    assert isinstance(TunnelRefused(PROXY, status, (), b""), ProxyRefused)


def test_a_target_s_own_407_and_5xx_are_answers(world: World) -> None:
    for status in (407, 502, 500, 404):
        world.answered(status=status)
        world.answered("https://lims.lab.example/", status=status, proxy=PROXY)
    assert world.lines == []


def test_a_fault_of_the_sender_or_the_agent_is_not_a_targets_failure(world: World) -> None:
    ours = TransportFault(Code.ERESPONSETOOLARGE, "the agent's disk cannot store the response")
    ours.ours = True
    world.failed(ours)
    world.failed(TransportFault(Code.EBADCOMMAND, "no request"))
    assert (world.lines, world.trouble.problems()) == ([], [])


def test_the_policy_s_rule_is_named(world: World) -> None:
    world.failed(TransportFault(Code.EPOLICY, "refused", rule="built-in: multicast"), "http://224.0.0.1/")
    assert "the agent's policy forbids this address: built-in: multicast" in world.lines[0]["cause"]


# --- the page ---


def test_the_page_shows_a_hosts_last_failure_until_it_answers_or_an_hour_has_passed(world: World) -> None:
    world.failed(REFUSED)
    world.failed(NO_NAME)
    (problem,) = world.trouble.problems()
    assert problem.reason == f"lims.lab.example:9005 failed 2 times in a row, at 00:00:00 UTC with ENOTFOUND: {NO_NAME.message}"
    assert problem.cause.cause == world.lines[1]["cause"]
    assert problem.cause.cure == world.lines[1]["cure"]
    world.answered()
    assert world.trouble.problems() == []
    world.failed(REFUSED)
    world.agent.time += SHOWN_SECONDS
    assert world.trouble.problems() == []


def test_the_page_shows_the_newest_few_failing_hosts_and_counts_the_others(world: World) -> None:
    for number in range(MOST_SHOWN + 3):
        world.failed(REFUSED, f"http://h{number}.lab.example/")
    found = world.trouble.problems()
    assert [problem.reason.partition(":")[0] for problem in found[:-1]] == [f"h{number}.lab.example" for number in (7, 6, 5, 4, 3)]
    assert (found[-1].reason, found[-1].count) == ("3 more targets fail", 3)


# --- what it costs ---


def test_a_flapping_host_has_a_limited_number_of_lines_an_hour_and_every_failure_logged_has_its_end(world: World) -> None:
    for _ in range(100):
        world.failed(REFUSED)
        world.answered()
    assert world.events == ["target-failed", "target-recovered"] * HOST_LINES_AN_HOUR
    world.failed(REFUSED, "http://another.lab.example/")
    assert world.lines[-1]["host"] == "another.lab.example"
    world.agent.time += 3600
    world.failed(REFUSED)
    assert world.lines[-1]["host"] == "lims.lab.example"


def test_a_failure_withheld_by_the_limit_is_logged_later_if_it_lasts(world: World) -> None:
    for number in range(LINES_AN_HOUR):
        world.failed(REFUSED, f"http://h{number}.lab.example/")
    world.failed(REFUSED)
    assert world.lines[-1]["host"] != "lims.lab.example"
    assert world.trouble.problems()[0].reason.startswith("lims.lab.example:9005")
    world.agent.time += 3601
    world.failed(REFUSED)
    assert (world.lines[-1]["host"], world.lines[-1]["tries"]) == ("lims.lab.example", 2)


def test_a_day_of_requests_to_ever_new_hosts_is_bounded_in_log_and_memory(world: World) -> None:
    faults = [REFUSED, NO_NAME, TransportFault(Code.ETIMEDOUT, "connect to " + "x" * 250 + " took longer than 30 s")]
    for second in range(0, DAY, 3):
        url = parse_url(f"http://{'long-name-' * 6}{second % 1000}.{'lab-' * 15}.example:{1024 + second % 7}/")
        world.trouble.failed(url, faults[second // 3 % 3])
        if second % 15 == 0:
            world.trouble.answered(Exchange("GET", url, (), None, Deadline(1)), 200)
        world.agent.time += 3
    assert world.agent.stdout.bytes < SICK_DAY_BYTES
    assert len(world.trouble._hosts) <= MOST_HOSTS
    assert len(world.trouble.problems()) <= MOST_SHOWN + 1


def test_watching_a_command_costs_next_to_nothing(world: World) -> None:
    """Counted, since a time would be the machine's."""
    world.failed(REFUSED)
    url, exchange = parse_url(URL), Exchange("GET", parse_url("http://well.lab.example/"), (), None, Deadline(1))
    assert calls_of(lambda: world.trouble.answered(exchange, 200)) < 20
    assert calls_of(lambda: world.trouble.failed(url, REFUSED)) < 60
    assert len(world.lines) == 1
