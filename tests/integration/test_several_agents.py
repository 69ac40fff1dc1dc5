"""Several agents of one id on one queue: each command runs at one of them, whatever happens to the others (docs/several-agents.md).

The sandbox refuses a receipt whose visibility has ended, as AWS's FIFO queues do, so that a late delete proves something.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.clock import Clock
from relay_agent.sandbox.faults import FOREVER, Fault, FaultHandle
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, ThreadedAgent, answers, page, run_once, wait_until
from tests.targets import ByteTarget

SHARED = {"RELAY_SHARED_QUEUE": "true", "RELAY_WORKERS": "4"}
SHORT = {"RELAY_LEASE_SECONDS": "5"}


class Site:
    """Two agents of one id, each with a state directory of its own, and a target that counts."""

    def __init__(self, sandbox: Sandbox, directory: Path, target: ByteTarget) -> None:
        self.sandbox, self.directory, self.target = sandbox, directory, target
        self.agent_id = sandbox.add_agent()
        target.on("*", lambda conn, request: conn.respond(200, [], request.target.encode()))

    def agent(self, name: str, **more: str | None) -> RunningAgent:
        return RunningAgent(self.sandbox, self.directory / name, {**SHARED, **more}, self.agent_id)

    def post(self, agent: RunningAgent, count: int, start: int = 0) -> list[Any]:
        return [agent.create({"method": "POST", "url": self.target.url(f"/{number}")}) for number in range(start, start + count)]

    def hold_deletes(self, *, lost: bool = False) -> FaultHandle:
        """Hold the first call that deletes messages of this queue until the block ends; then it goes on to the queue, or is lost."""
        fault = Fault("sqs", "DeleteMessageBatch", contains=self.agent_id, hang_seconds=FOREVER, close=lost)
        return self.sandbox.inject(fault)

    def wait_final(self, commands: Sequence[Any]) -> None:
        wait_until(self.sandbox, lambda: all(command.final for command in commands), 30.0)

    def seen(self) -> set[int]:
        """How often each request was seen."""
        return set(Counter(request.target for request in self.target.requests).values())


@pytest.fixture
def site(sandbox: Sandbox, tmp_path: Path) -> Iterator[Site]:
    with ByteTarget() as target:
        yield Site(sandbox, tmp_path, target)


def test_two_agents_share_the_commands_and_run_each_once(site: Site) -> None:
    with site.agent("one") as one, site.agent("two") as two:
        for agent in (one, two):
            agent.ready()
        commands = site.post(one, 40)
        site.wait_final(commands)
        assert (one.stop(), two.stop()) == (0, 0)
    assert (len(site.target.requests), site.seen()) == (40, {1})


def test_a_delete_that_comes_after_the_lease_is_refused_and_the_command_runs_once(site: Site) -> None:
    with site.agent("one", **SHORT) as one, site.agent("two", **SHORT) as two:
        for agent in (one, two):
            agent.ready()
        with site.hold_deletes() as held:
            (command,) = site.post(one, 1)
            wait_until(site.sandbox, lambda: held.hits >= 1)
            site.wait_final([command])  # by the other agent, once the lease has ended
        (late,) = site.post(one, 1, start=1)
        site.wait_final([late])
        assert (one.stop(), two.stop()) == (0, 0)
    assert (len(site.target.requests), site.seen()) == (2, {1})


def test_a_frozen_agent_that_wakes_after_its_lease_leaves_its_command_to_the_other(site: Site) -> None:
    with site.agent("one", **SHORT) as one:
        one.ready()
        with site.hold_deletes() as held:
            (command,) = site.post(one, 1)
            wait_until(site.sandbox, lambda: held.hits >= 1)
            one.send_signal(signal.SIGSTOP)
            with site.agent("two", **SHORT) as two:
                site.wait_final([command])
                held.release()
                one.send_signal(signal.SIGCONT)
                (other,) = site.post(one, 1, start=1)
                site.wait_final([other])
                assert (one.stop(), two.stop()) == (0, 0)
    assert (len(site.target.requests), site.seen()) == (2, {1})
    assert len(answers(command)) == 1


def test_a_delete_that_is_refused_leaves_nothing_to_an_agent_that_is_killed_after_it(site: Site) -> None:
    """A command and a malformed message: the other agent answers both, and this one keeps only their number."""
    malformed = str(uuid.uuid4())
    with site.agent("one", **SHORT) as one:
        one.ready()
        with site.hold_deletes() as held:
            (command,) = site.post(one, 1)
            site.sandbox.send_raw(site.agent_id, json.dumps({"commandId": malformed}))
            wait_until(site.sandbox, lambda: held.hits >= 1)
            with site.agent("two", **SHORT) as two:
                site.wait_final([command])
                two.wait_log("command", id=malformed)
                held.release()
                wait_until(site.sandbox, lambda: ceded(one) >= 1)
                logged = list(one.lines.raw)
                one.kill()
                one.start().ready()
                (other,) = site.post(one, 1, start=1)
                site.wait_final([other])
                assert (one.stop(), two.stop()) == (0, 0)
    traces = [line for line in [*logged, *one.lines.raw] if command.id in line or malformed in line]
    files = b"".join(path.read_bytes() for path in (one.directory / "state").rglob("*") if path.is_file())
    assert (traces, command.id.encode() in files, malformed.encode() in files) == ([], False, False)
    assert (len(site.target.requests), site.seen(), len(answers(command))) == (2, {1}, 1)


@pytest.mark.parametrize("away", [0, 1], ids=["at once", "after the lease"])
def test_a_claim_survives_a_crash_within_the_lease_and_is_ceded_after_it(site: Site, away: int) -> None:
    one = site.agent("one", **SHORT)
    with one, site.hold_deletes(lost=True) as held:
        (command,) = site.post(one, 1)
        wait_until(site.sandbox, lambda: held.hits >= 1)
        one.kill()
        # Else the delete goes on to the queue when it is released, and then nobody gets the command.
        wait_until(site.sandbox, lambda: not site.sandbox.under_way["DeleteMessageBatch"])
    if away:
        with site.agent("two", **SHORT):
            site.wait_final([command])
    with one:
        site.wait_final([command])
        (other,) = site.post(one, 1, start=1)
        site.wait_final([other])
        assert one.stop() == 0
    assert (len(site.target.requests), site.seen()) == (2, {1})
    assert len(answers(command)) == 1


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "behind"])
def test_a_clock_that_was_set_while_the_agent_was_down_ends_no_claim(site: Site, ahead: timedelta) -> None:
    """SQS has carried out the delete: if the agent cedes the command, nobody runs it."""
    one = site.agent("one", RELAY_FAULT_POINT="after-ack")
    with one:
        one.ready()
        command = one.create({"method": "POST", "url": site.target.url("/")}, expires_in=7200.0)
        assert one.wait() == -signal.SIGKILL
    clock = Clock(now=lambda: datetime.now(UTC) + ahead)
    with ThreadedAgent(site.sandbox, one.directory, dict(SHARED), site.agent_id, clock) as again:
        site.wait_final([command])
        assert again.stop() == 0
    assert (command.status, site.seen()) == ("SUCCESS", {1})


def test_a_stop_before_a_delete_is_confirmed_leaves_the_command_to_the_next_start(site: Site) -> None:
    """SQS may have carried out the delete, so that nobody else gets the command."""
    one = site.agent("one", RELAY_DRAIN_SECONDS="1")
    with one, site.hold_deletes() as held:
        one.ready()
        (command,) = site.post(one, 1)
        wait_until(site.sandbox, lambda: held.hits >= 1)
        assert one.stop() == 0
    with one:
        site.wait_final([command])
        assert one.stop() == 0
    assert site.seen() == {1}


def test_a_second_signal_skips_the_wait_for_a_delete_and_leaves_the_command_to_the_next_start(site: Site) -> None:
    one = site.agent("one", RELAY_DRAIN_SECONDS="60")
    with one, site.hold_deletes() as held:
        one.ready()
        (command,) = site.post(one, 1)
        wait_until(site.sandbox, lambda: held.hits >= 1)
        one.send_signal()
        one.wait_log("agent-stopping")
        assert one.stop(timeout=10.0) == 0  # Else the call's own limit of 15 s ends the wait.
    with one:
        site.wait_final([command])
        assert one.stop() == 0
    assert site.seen() == {1}


def test_an_agent_that_stops_says_stopped_only_if_it_is_alone(site: Site) -> None:
    with site.agent("one") as one:
        one.ready()
        assert one.stop() == 0
    assert site.sandbox.settings(site.agent_id) == ["STARTED"]
    with site.agent("alone", RELAY_SHARED_QUEUE="false") as alone:
        alone.ready()
        assert alone.stop() == 0
    assert site.sandbox.settings(site.agent_id)[-1] == "STOPPED"


def test_status_and_log_stream_say_which_agent_it_is(site: Site) -> None:
    with site.agent("one") as one:
        one.ready()
        found = json.loads(page(one, "/status.json")[1])
        assert found["queue"]["shared"] is True
        done = run_once(["status"], one.directory, one.environment)
        assert b"shared queue" in done.stdout
        wait_until(site.sandbox, lambda: bool(streams(site)))
        assert one.stop() == 0
    assert {stream.split("/")[1] for stream in streams(site)} == {socket.gethostname()}


def ceded(agent: RunningAgent) -> int:
    """How many commands an agent has ceded since its start."""
    found = re.search(r"^relay_agent_commands_ceded_total ([0-9.]+)", page(agent, "/metrics")[1], re.MULTILINE)
    return int(float(found[1])) if found else 0


def streams(site: Site) -> set[str]:
    """The log streams that the agents wrote to."""
    with contextlib.suppress(KeyError):
        return {str(event["logStreamName"]) for event in site.sandbox.log_events(site.agent_id)}
    return set()


def test_commands_from_the_time_alone_run_once_after_the_change_to_a_shared_queue(site: Site) -> None:
    """Deletes failed until the agent was killed, so its messages are in the queue again when a second agent starts."""
    gate = site.target.gate()
    site.target.on("/held", lambda conn, _: (conn.wait(gate), conn.respond(200, [], b"held")))
    one, two = site.agent("one", **SHORT, RELAY_SHARED_QUEUE=None, RELAY_WORKERS="1"), site.agent("two", **SHORT)
    with one, site.sandbox.inject(Fault("sqs", "DeleteMessageBatch", contains=site.agent_id, close=True, count=None)) as failing:
        held = one.create({"method": "POST", "url": site.target.url("/held")}, group="held")
        gate.wait_reached()
        waiting = [one.create({"method": "POST", "url": site.target.url(f"/{number}")}, group=f"g{number}") for number in range(12)]
        wait_until(site.sandbox, lambda: failing.hits >= 2 and sum(site.sandbox.queue_depth(site.agent_id)) == 13)
        wait_until(site.sandbox, lambda: json.loads(page(one, "/status.json")[1])["queue"]["waiting"] >= 10)
        one.kill()
    gate.release()
    one.environment["RELAY_SHARED_QUEUE"] = "true"
    with one, two:
        for agent in (one, two):
            agent.ready()
        site.wait_final(waiting)
        assert (one.stop(), two.stop()) == (0, 0)
    seen = Counter(request.target for request in site.target.requests)
    assert {seen[f"/{number}"] for number in range(12)} == {1}
    assert {len(answers(command)) for command in waiting} == {1}
    assert (seen["/held"], len(answers(held))) == (1, 1)


def test_what_was_deleted_while_an_agent_was_alone_is_not_lost_by_the_change_to_a_shared_queue(site: Site) -> None:
    """That SQS had deleted it was not recorded yet, and SQS refuses the receipt by now, as it would that of another agent's message."""
    one = site.agent("one", **SHORT, RELAY_SHARED_QUEUE=None)
    one.environment["RELAY_FAULT_POINT"] = "after-ack"
    with one:
        command = one.create({"method": "PUT", "url": site.target.url("/")})
        one.wait()
    del one.environment["RELAY_FAULT_POINT"]
    assert site.sandbox.queue_depth(site.agent_id) == (0, 0)
    clock = datetime.now(UTC)
    wait_until(site.sandbox, lambda: datetime.now(UTC) > clock + timedelta(seconds=5.5))
    one.environment["RELAY_SHARED_QUEUE"] = "true"
    with one:
        one.ready()
        assert command.final or site.sandbox.wait_final(command.id)
        assert (ceded(one), one.stop()) == (0, 0)
    assert len(answers(command)) == 1


def test_a_delete_that_fails_inside_sqs_costs_no_lease(site: Site) -> None:
    failed = {"Successful": [], "Failed": [{"Id": "0", "SenderFault": False, "Code": "InternalError", "Message": "try again"}]}
    with site.agent("one", RELAY_LEASE_SECONDS="60") as one:
        one.ready()
        fault = Fault("sqs", "DeleteMessageBatch", contains=site.agent_id, status=200, body=json.dumps(failed))
        with site.sandbox.inject(fault) as hit:
            (command,) = site.post(one, 1)
            wait_until(site.sandbox, lambda: hit.hits >= 1)
        site.wait_final([command])
        assert ceded(one) == 0
        assert one.stop() == 0
    assert site.seen() == {1}


def test_agents_that_stop_one_after_the_other_under_load_hold_up_nothing(site: Site) -> None:
    """A receive that the stop broke off would delay its message, and the rest of its group, by a lease."""
    agents = [site.agent(name, RELAY_LEASE_SECONDS="60") for name in ("one", "two", "three")]
    with contextlib.ExitStack() as stack:
        for agent in agents:
            stack.enter_context(agent)
            agent.ready()
        commands: list[Any] = []
        for agent in agents:
            for number in range(10):
                commands += site.post(agents[-1], 1, start=len(commands))
                wait_until(site.sandbox, lambda: sum(not command.final for command in commands) < 3 + number % 3)  # noqa: B023 - waited for at once
            assert agent.stop() == 0
            if agent is not agents[-1]:
                commands += site.post(agents[-1], 5, start=len(commands))
        # What an agent owned when it was stopped, and no worker had begun, is its own until its next start.
        owned = [agent for agent in agents if agent.wait_log("agent-stopped")["left"]]
        for agent in [site.agent("four"), *owned]:
            stack.enter_context(agent)
            agent.ready()
        site.wait_final(commands)
    assert site.seen() == {1}
