"""Many commands at once: no host delays another, and each command is run and answered once (docs/design.md, "The fair queue").

Speed is not measured here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, body, running, statuses, wait_until
from tests.targets import ByteTarget, reply

MEMORY: dict[str, str | None] = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""How the image has malloc give memory back."""


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One real agent with a few workers."""
    with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"), {"RELAY_WORKERS": "8"})) as started:
        yield started


def test_a_blocked_host_does_not_hold_up_another(agent: RunningAgent) -> None:
    with ByteTarget() as slow, ByteTarget() as quick:
        gate = slow.gate()
        slow.on("/", lambda conn, _: (conn.wait(gate), conn.respond(200)))
        quick.on("/", reply(body="quick"))
        held = [agent.create({"url": slow.url("/")}) for _ in range(40)]
        gate.wait_reached()
        answers = [agent.ask({"url": quick.url("/")}, timeout=5) for _ in range(3)]
        assert [answer.status for answer in answers] == ["SUCCESS"] * 3
        assert not any(command.final for command in held)
        gate.release()
        for command in held:
            agent.sandbox.wait_final(command.id)
        assert Counter(command.status for command in held) == {"SUCCESS": 40}
        assert len(slow.requests) == 40


def test_a_blocked_host_does_not_hold_up_another_where_bodies_are_referenced(agent: RunningAgent) -> None:
    with ByteTarget() as slow, ByteTarget() as quick:
        gate = slow.gate()
        slow.on("/", lambda conn, _: (conn.wait(gate), conn.respond(200)))
        quick.on("/", reply(body="quick"))
        held = [agent.create({"url": slow.url("/")}, delivery="referenced") for _ in range(10)]
        gate.wait_reached()
        try:
            assert agent.ask({"url": quick.url("/")}, timeout=3).status == "SUCCESS"
            assert agent.ask({"url": quick.url("/")}, timeout=3, delivery="referenced").status == "SUCCESS"
        finally:
            gate.release()
            for command in held:
                agent.sandbox.wait_final(command.id)


def test_two_hundred_commands_are_each_run_and_answered_once(agent: RunningAgent) -> None:
    with ByteTarget() as target:
        target.on("*", lambda conn, request: conn.respond(200, [], request.target.encode()))
        commands = [agent.create({"method": "POST", "url": target.url(f"/{number}")}) for number in range(200)]
        wait_until(agent.sandbox, lambda: all(command.final for command in commands))
        agent.ask({"url": target.url("/last")})
        finals = [[status for status in statuses(command) if status != "PROCESSING"] for command in commands]
        assert Counter(map(tuple, finals)) == {("SUCCESS",): 200}
        assert [json.loads(command.updates[-1])["body"]["body"] for command in commands] == [f"/{number}" for number in range(200)]
        assert Counter(Counter(request.target for request in target.requests).values()) == {1: 201}
        # The last one may be answered before it is acknowledged.
        wait_until(agent.sandbox, lambda: agent.sandbox.queue_depth(agent.agent_id) == (0, 0))


def test_more_commands_than_places_are_all_answered(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> None:
    small = RunningAgent(sandbox, tmp_path_factory.mktemp("small"), {"RELAY_WORKERS": "1", "RELAY_QUEUE_SIZE": "10"})
    with ByteTarget() as target:
        target.on("/", reply())
        commands = [small.create({"url": target.url("/")}) for _ in range(60)]
        with running(small):
            wait_until(sandbox, lambda: all(command.final for command in commands))
            assert Counter(command.status for command in commands) == {"SUCCESS": 60}
            assert small.stop() == 0


def test_large_answers_that_cannot_be_sent_wait_on_the_disk_and_are_sent_after_a_kill(
    sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text, count = "0123456789abcdef" * 12_500, 150
    agent = RunningAgent(sandbox, tmp_path_factory.mktemp("untold"), MEMORY, whole=True)
    with ByteTarget() as target, running(agent):
        target.on("*", reply(body=text))
        agent.get(target.url("/first"))
        before = agent.resident_bytes
        with sandbox.inject(Fault("sqs", "SendMessageBatch", contains=agent.agent_id, status=503, count=None)):
            commands = [agent.create({"method": "POST", "url": target.url(f"/{number}")}) for number in range(count)]
            wait_until(sandbox, lambda: len(target.requests) == count + 1)
            wait_until(sandbox, lambda: len(agent.events("command")) == count + 1)
            assert agent.resident_bytes - before < count * len(text) / 3
            agent.kill()
            agent.start()
            agent.wait_log("recovered", commands=0, answers=count)
            assert agent.resident_bytes - before < count * len(text) / 3
        for command in commands:
            assert body(sandbox.wait_final(command.id, 30))["body"] == text
    assert (len(target.requests), Counter(len(set(command.updates)) for command in commands)) == (count + 1, {1: count})
