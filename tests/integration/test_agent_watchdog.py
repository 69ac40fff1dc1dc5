"""An agent that is stuck does not look Online, and ends for its supervisor ("Alive means working"). The test moves the time.

With a whole agent. What counts as a stall is tested in `tests/unit/diagnostics/test_watchdog.py`.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from relay_agent.core.clock import Clock
from relay_agent.diagnostics.watchdog import RECENT_SECONDS, STUCK_SECONDS
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import ThreadedAgent, page, running, wait_until
from tests.targets import ByteTarget, reply

STEP_SECONDS = 50.0


class Hands:
    """The hands of a clock that the test moves on."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.clock = Clock(monotonic=lambda: time.monotonic() + self._ahead)

    def move(self, agent: ThreadedAgent, seconds: float, stuck: tuple[str, ...], polling: bool) -> None:
        """Advance the time in steps; after each step every loop iterates, except those that are stuck.

        A poller that is well has its poll open for 20 s of the world's time: `polling` says that it came back meanwhile.
        """
        statuses = [status for name, status in agent.agent.threads.statuses.items() if name not in (*stuck, "poller")]
        for _ in range(int(seconds // STEP_SECONDS)):
            self._ahead += STEP_SECONDS
            if polling:
                agent.agent.threads.statuses["poller"].success()
            wait_until(agent.sandbox, lambda: all(status.seconds_since_iteration() < STEP_SECONDS / 2 for status in statuses))


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    """The test waits for each loop after each step, so none must wait long for work."""
    loops = ("registration.QUIET", "maintenance.IDLE", "monitors.STEP", "heartbeat.STEP", "agent.LOOK", "admin.server.IDLE")
    for wait in ("relay.sender.TAKE", *(f"agent.{loop}" for loop in loops)):
        monkeypatch.setattr(f"relay_agent.{wait}_SECONDS", 0.1)
    return Hands()


def ends(agent: ThreadedAgent, hands: Hands, stuck: tuple[str, ...], polling: bool = False, else_said: str = "") -> str:
    """Let time pass until the agent ends; why it did. Its heartbeat must have been silent long before.

    The page gives the heartbeat's reason, or `else_said`: what it is where the loop came round between the two.
    """
    hands.move(agent, RECENT_SECONDS + STEP_SECONDS, stuck, polling)
    reason = agent.wait_log("heartbeat-withheld")["reason"]
    code, text = page(agent, "/readyz")
    assert code == 503
    assert reason.split(",")[0] in text or (else_said and else_said in text)
    heard = len(agent.sandbox.heartbeats(agent.agent_id))
    hands.move(agent, STUCK_SECONDS - 2 * RECENT_SECONDS - STEP_SECONDS, stuck, polling)
    assert len(agent.sandbox.heartbeats(agent.agent_id)) == heard
    assert not agent.agent.ending.given.is_set()
    hands.move(agent, 3 * STEP_SECONDS, (*agent.agent.threads.statuses,), polling)
    assert agent.wait() == 1
    return str(agent.wait_log("agent-giving-up")["reason"])


def test_a_receive_that_never_returns(sandbox: Sandbox, tmp_path: Path, hands: Hands) -> None:
    with ByteTarget() as target, running(ThreadedAgent(sandbox, tmp_path, clock=hands.clock)) as agent:
        target.on("/", reply())
        held = Fault("sqs", "ReceiveMessage", contains=agent.agent_id, hang_seconds=FOREVER, count=None)
        with sandbox.inject(held) as handle:
            agent.create({"url": target.url("/")})  # ends the poll that was open before the fault
            wait_until(sandbox, lambda: handle.hits >= 1)
            assert "poller" in ends(agent, hands, ())


def test_a_queue_that_refuses_every_answer(sandbox: Sandbox, tmp_path: Path, hands: Hands) -> None:
    with ByteTarget() as target, running(ThreadedAgent(sandbox, tmp_path, clock=hands.clock)) as agent:
        target.on("/", reply())
        refused = Fault("sqs", "SendMessageBatch", contains=agent.agent_id, status=403, code="AccessDenied", count=None)
        with sandbox.inject(refused):
            command = agent.create({"url": target.url("/")})
            assert "AccessDenied" in agent.wait_log("send-failed")["reason"]
            reason = ends(agent, hands, ("sender",), polling=True, else_said="no answer could be sent")
            assert "AccessDenied" in reason or "sender" in reason  # a back-off may be longer than the rest
        assert not command.final


def test_a_commit_that_does_not_end(sandbox: Sandbox, tmp_path: Path, hands: Hands) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1"}, clock=hands.clock)) as agent:
        agent.get("http://127.0.0.1:9/")
        wait_until(sandbox, lambda: agent.agent.flow.journal.counts()["delivered"] == 1)
        with agent.agent.flow.journal.writer.using:
            agent.create({"url": "http://127.0.0.1:9/"})
            wait_until(sandbox, lambda: agent.agent.flow.journal.stuck_seconds() > 0)
            reason = ends(agent, hands, ("upkeep", "sender"))
        assert "commit" in reason or "poller" in reason or "sender" in reason


def test_a_core_thread_that_dies_ends_the_agent_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:

        def die() -> float:
            raise MemoryError

        agent.agent.threads.named("sender").loop.step = die
        assert agent.wait() == 1
        assert agent.wait_log("thread-died")["thread"] == "sender"


def test_a_slow_target_is_no_standstill(sandbox: Sandbox, tmp_path: Path, hands: Hands) -> None:
    with ByteTarget() as target, running(ThreadedAgent(sandbox, tmp_path, clock=hands.clock)) as agent:
        gate = target.gate()
        target.on("/slow", lambda conn, _: (conn.wait(gate, 60), conn.respond(200)))
        command = agent.create({"url": target.url("/slow"), "timeout": 550})
        gate.wait_reached()
        hands.move(agent, 500, (), polling=True)
        assert agent.events("heartbeat-withheld") == []
        assert (page(agent, "/readyz"), page(agent, "/healthz")) == ((200, "ready\n"), (200, "alive\n"))
        gate.release()
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        assert agent.stop() == 0
