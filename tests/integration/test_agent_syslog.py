"""Log lines by syslog (RELAY_LOG_SYSLOG): those of stdout, from the first to the last, and a receiver that fails costs nothing else."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from relay_agent.storage.schema import SCHEMA_VERSION
from tests.agents import RunningAgent, running
from tests.syslog_receiver import SyslogReceiver
from tests.target_certificates import ca_pem
from tests.targets import ByteTarget, closed_port, reply


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "syslog-ca.pem"
    path.write_bytes(ca_pem())
    return path


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_the_receiver_gets_the_lines_of_stdout_from_the_first_to_the_last(
    sandbox: Sandbox, tmp_path: Path, ca_file: Path, transport: str
) -> None:
    with SyslogReceiver(transport) as receiver, ByteTarget() as target:
        target.on("/", reply(body="here"))
        environment: dict[str, str | None] = {"RELAY_LOG_SYSLOG": receiver.url, "RELAY_CA_FILE": str(ca_file)}
        with running(RunningAgent(sandbox, tmp_path, environment)) as agent:
            agent.ask_until_logged({"url": target.url("/?password=hidden")})
            assert agent.stop() == 0
            lines = list(agent.lines.raw)
        last = receiver.wait("agent-stopped")[0]
    assert receiver.lines == lines
    assert json.loads(lines[0])["event"] == receiver.messages[0].event == "agent-starting"
    assert (last.facility, last.severity, last.app, last.process) == (3, 6, "relay-agent", agent.agent_id)
    assert [message.data for message in receiver.messages] == [f'[meta sequenceId="{n + 1}"]' for n in range(len(lines))]
    assert not any("hidden" in line for line in lines)


def test_a_receiver_that_is_away_delays_nothing_and_gets_what_waited(sandbox: Sandbox, tmp_path: Path) -> None:
    port = closed_port()
    with ByteTarget() as target:
        target.on("/", reply(body="here"))
        with running(RunningAgent(sandbox, tmp_path, {"RELAY_LOG_SYSLOG": f"tcp://127.0.0.1:{port}"})) as agent:
            failed = agent.wait_log("syslog-failed")
            assert agent.get(target.url("/")).status == "SUCCESS"
            with SyslogReceiver("tcp", port) as receiver:
                assert receiver.wait("agent-starting")
                assert receiver.wait("syslog-failed")
                assert agent.stop() == 0
                assert receiver.wait("agent-stopped")
                assert receiver.lines == agent.lines.raw
    assert (failed["tries"], "nothing listens there" in failed["cause"]) == (1, True)
    assert len(agent.events("syslog-failed")) == 1


def test_a_receiver_that_hangs_does_not_delay_commands_or_the_stop(sandbox: Sandbox, tmp_path: Path) -> None:
    with SyslogReceiver("tls", deaf=True) as receiver, ByteTarget() as target:
        target.on("/", reply(body="here"))
        with running(RunningAgent(sandbox, tmp_path, {"RELAY_LOG_SYSLOG": receiver.url})) as agent:
            assert agent.get(target.url("/")).status == "SUCCESS"
            agent.wait_log("syslog-failed")
            began = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - began < 6
        assert not (tmp_path / "state" / "journal.db-wal").exists()  # The journal was closed.


def test_a_start_that_fails_delivers_what_it_logged(sandbox: Sandbox, tmp_path: Path) -> None:
    agent = RunningAgent(sandbox, tmp_path)
    with running(agent):
        assert agent.stop() == 0
    with closing(sqlite3.connect(tmp_path / "state" / "journal.db")) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with SyslogReceiver("tcp") as receiver, socket.create_server(("127.0.0.1", 0)) as taken:
        agent.environment |= {"RELAY_LOG_SYSLOG": receiver.url, "RELAY_ADMIN_ADDR": f"127.0.0.1:{taken.getsockname()[1]}"}
        with agent:
            assert agent.wait() == 1
        assert receiver.wait("start-failed")
        assert receiver.lines == agent.lines.raw
    assert [message.event for message in receiver.messages] == ["admin-unavailable", "start-failed"]


def test_a_start_with_wrong_settings_is_reported_if_the_receiver_s_own_are_right(sandbox: Sandbox, tmp_path: Path) -> None:
    with SyslogReceiver("tcp") as receiver:
        environment: dict[str, str | None] = {"RELAY_LOG_SYSLOG": receiver.url, "RELAY_WORKERS": "many"}
        with RunningAgent(sandbox, tmp_path, environment) as agent:
            assert agent.wait() == 2
        assert [message.line for message in receiver.wait("start-failed")] == agent.lines.raw
