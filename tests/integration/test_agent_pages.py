"""The pages of a running agent: who may ask, when it is ready and why not, and that no secret is shown (docs/operations.md, "Pages").

Over HTTP, on the socket and on TCP. The look of the status page is tested in a browser (`tests/e2e/test_status_page.py`).
"""

from __future__ import annotations

import html
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay_agent.diagnostics.platform_causes import AGENT_DISABLED, QUEUE_DISABLED, REFUSED, SQS_POLICY
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, ThreadedAgent, page, running, wait_until
from tests.programs import free_ports
from tests.targets import ByteTarget, reply

QUICK = {"RELAY_CONFIG_REFRESH_SECONDS": "1", "RELAY_HEARTBEAT_SECONDS": "1"}
PATHS = ("/", "/healthz", "/readyz", "/metrics", "/status.json")


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


def over_tcp(port: int, path: str, method: str = "GET", host: str | None = "127.0.0.1") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    answer.text = answer.read().decode()  # type: ignore[attr-defined]
    connection.close()
    return answer


# --- whether it is ready, and why not ---


def test_a_working_agent_is_live_and_ready(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)
        assert page(agent, "/healthz")[0] == 200
        assert json.loads(page(agent, "/status.json")[1])["state"] == "ready"


def test_an_agent_without_a_configuration_yet_is_live_and_not_ready(sandbox: Sandbox, tmp_path: Path) -> None:
    agent_id = sandbox.add_agent()
    with (
        sandbox.inject(Fault("rest", "agent/config", contains=agent_id, hang_seconds=FOREVER)) as hanging,
        ThreadedAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "1"}, agent_id) as agent,
    ):
        wait_until(sandbox, lambda: hanging.hits == 1)
        assert page(agent, "/healthz")[0] == 200
        code, text = page(agent, "/readyz")
        assert (code, "the agent is starting" in text) == (503, True)


SELDOM: dict[str, str | None] = {"RELAY_HEARTBEAT_SECONDS": "60", "RELAY_METRICS_SECONDS": "1"}


def test_a_token_that_any_call_is_refused_for_counts_at_once_and_heals(sandbox: Sandbox, tmp_path: Path) -> None:
    """The next heartbeat, and the next look at the configuration, would be a minute and more away."""
    with running(ThreadedAgent(sandbox, tmp_path, SELDOM)) as agent:
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)
        with sandbox.inject(Fault("rest", "/v1/", contains=agent.agent_id, status=401, count=None)):
            wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 503, 10)
            text = page(agent, "/readyz")[1]
            assert "answered 401" in text
            assert REFUSED.cure in text
            assert page(agent, "/healthz")[0] == 200
            agent.wait_log("heartbeat-failed", timeout=10)
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)


def test_one_call_that_is_refused_alone_is_no_token_that_is(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, SELDOM)) as agent:
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)
        beats = len(sandbox.heartbeats(agent.agent_id))
        with sandbox.inject(Fault("rest", "systemmetric", contains=agent.agent_id, status=401)) as refusing:
            wait_until(sandbox, lambda: refusing.hits == 1)
            wait_until(sandbox, lambda: len(sandbox.heartbeats(agent.agent_id)) == beats + 1, 10)
            wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200, 10)
        assert agent.events("heartbeat-failed") == []


@pytest.mark.parametrize("what", ["agent", "queue"])
def test_what_is_disabled_is_named_with_its_cure_and_the_agent_lives(sandbox: Sandbox, tmp_path: Path, what: str) -> None:
    cause = AGENT_DISABLED if what == "agent" else QUEUE_DISABLED
    with running(ThreadedAgent(sandbox, tmp_path, dict(QUICK))) as agent:
        switch = sandbox.enable_agent if what == "agent" else sandbox.enable_queue
        switch(agent.agent_id, False)
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 503)
        assert cause.cure in page(agent, "/readyz")[1]
        assert html.escape(cause.cure) in page(agent, "/")[1]
        assert page(agent, "/healthz")[0] == 200
        switch(agent.agent_id, True)
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)


def test_a_token_that_is_refused_later_makes_it_not_ready_until_it_is_put_right(sandbox: Sandbox, tmp_path: Path) -> None:
    with running(ThreadedAgent(sandbox, tmp_path, dict(QUICK))) as agent:
        with sandbox.inject(Fault("rest", "agent/config", contains=agent.agent_id, status=401, count=None)):
            wait_until(
                sandbox, lambda: (found := page(agent, "/readyz"))[0] == 503 and REFUSED.cause in found[1] and REFUSED.cure in found[1]
            )
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)


def test_an_agent_that_drains_lives_and_is_not_ready(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = target.gate()
    target.on("/held", lambda conn, _: (conn.wait(gate), conn.respond(200)))
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        command = agent.create({"url": target.url("/held")})
        gate.wait_reached()
        agent.send_signal()
        agent.wait_log("agent-stopping")
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 503)
        assert "stopping" in page(agent, "/readyz")[1]
        assert page(agent, "/healthz")[0] == 200
        gate.release()
        assert agent.wait() == 0
    assert command.status == "SUCCESS"


def test_a_heartbeat_that_the_platform_does_not_take_is_a_warning_with_its_cure(sandbox: Sandbox, tmp_path: Path) -> None:
    agent_id = sandbox.add_agent()
    fault = Fault("rest", "POST /v1/data-acquisition/agent/status", contains=agent_id, status=500, count=None)
    with running(ThreadedAgent(sandbox, tmp_path, dict(QUICK), agent_id)) as agent, sandbox.inject(fault):
        agent.wait_log("heartbeat-failed")
        status = json.loads(page(agent, "/status.json")[1])
        assert status["state"] == "ready"
        assert any("agent/status" in warning["reason"] and warning["cure"] for warning in status["warnings"])


def test_answers_that_cannot_be_sent_are_a_warning_at_once(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """Long before they make the agent not ready, which takes a minute as a queue that is not read does."""
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)
        refused = Fault("sqs", "SendMessageBatch", contains=agent.agent_id, status=403, code="AccessDenied", count=None)
        with sandbox.inject(refused):
            command = agent.create({"url": target.url("/")})
            agent.wait_log("send-failed")
            status = json.loads(page(agent, "/status.json")[1])
            assert status["state"] == "ready"
            (warning,) = [one for one in status["warnings"] if one["reason"].startswith("sender: ")]
            assert "AccessDenied" in warning["reason"]
            assert (warning["cause"], warning["cure"]) == (SQS_POLICY.cause, SQS_POLICY.cure)
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        wait_until(sandbox, lambda: json.loads(page(agent, "/status.json")[1])["warnings"] == [])


def test_large_answers_that_cannot_be_uploaded_are_a_warning_while_they_wait(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    target.on("/large", reply(body=os.urandom(400_000).hex()))
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        with sandbox.inject(Fault("s3", status=503, count=None)):
            command = agent.create({"url": target.url("/large")})
            agent.wait_log("upload-failed")
            (warning,) = json.loads(page(agent, "/status.json")[1])["warnings"]
            assert "uploaded" in warning["reason"]
            assert warning["cure"]
        assert sandbox.wait_final(command.id).status == "SUCCESS"
        wait_until(sandbox, lambda: json.loads(page(agent, "/status.json")[1])["warnings"] == [])


def test_a_journal_that_was_damaged_is_a_warning_for_as_long_as_the_agent_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.db").write_bytes(b"no database at all")
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        (warning,) = json.loads(page(agent, "/status.json")[1])["warnings"]
        assert "journal.db.damaged-" in warning["reason"]


# --- who may ask, and for what ---


def test_the_pages_are_served_on_tcp_and_on_the_socket_alike(sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_ADMIN_ADDR": f"127.0.0.1:{port}"})) as agent:
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)
        for path in PATHS:
            assert (page(agent, path)[0], over_tcp(port, path).status) == (200, 200), path


def test_only_readers_are_served_and_only_under_the_agents_own_address(sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_ADMIN_ADDR": f"127.0.0.1:{port}"})):
        for host in ("127.0.0.1", f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}"):
            assert over_tcp(port, "/healthz", host=host).status == 200, host
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", "", None):
            assert over_tcp(port, "/healthz", host=host).status in (400, 403), host
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = over_tcp(port, "/", method)
            assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD"), method
        assert over_tcp(port, "/nothing").status == 404
        head, get = over_tcp(port, "/metrics", "HEAD"), over_tcp(port, "/metrics")
        assert (head.status, head.text, head.getheader("Content-Type")) == (200, "", get.getheader("Content-Type"))  # type: ignore[attr-defined]


def test_no_page_lets_another_page_read_or_frame_it(sandbox: Sandbox, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_ADMIN_ADDR": f"127.0.0.1:{port}"})):
        for path in (*PATHS, "/nothing"):
            answer = over_tcp(port, path)
            policy = answer.getheader("Content-Security-Policy") or ""
            assert policy.startswith("default-src 'none'"), path
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.getheader("Access-Control-Allow-Origin") is None
            assert answer.getheader("Cache-Control") == "no-store"
            assert answer.getheader("X-Content-Type-Options") == "nosniff"
            assert answer.getheader("Server") is None


def test_a_port_that_is_taken_is_a_warning_and_the_socket_answers(sandbox: Sandbox, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_ADMIN_ADDR": address})) as agent:
            line = agent.wait_log("admin-unavailable")
            assert "already uses this port" in line["cause"] and "RELAY_ADMIN_ADDR" in line["cure"]
            assert line["cause"] in [one["cause"] for one in json.loads(page(agent, "/status.json")[1])["warnings"]]
            assert (line["level"], line["address"]) == ("warning", address)
            assert page(agent, "/healthz")[0] == 200


def test_the_socket_is_the_owners_alone_gone_after_a_stop_and_made_again_after_a_kill(sandbox: Sandbox, tmp_path: Path) -> None:
    # Longer than a socket address allows.
    state = tmp_path / ("long-" * 12) / ("longer-" * 8)
    place = state / "admin.sock"
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_STATE_DIR": str(state)})
    with running(agent):
        assert place.stat().st_mode & 0o777 == 0o600
        agent.kill()
    assert place.exists()
    with running(agent):
        assert page(agent, "/healthz")[0] == 200
        assert agent.stop() == 0
    assert not place.exists()


# --- what they show ---


def test_the_status_shows_what_the_agent_does(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    gate = target.gate()
    target.on("/held", lambda conn, _: (conn.wait(gate), conn.respond(200)))
    with running(ThreadedAgent(sandbox, tmp_path, {"RELAY_WORKERS": "2"})) as agent:
        done = agent.get(target.url("/"))
        refused = agent.get("http://127.0.0.1:9/")
        held = agent.create({"method": "POST", "url": target.url("/held")})
        gate.wait_reached()
        wait_until(sandbox, lambda: json.loads(page(agent, "/status.json")[1])["journal"]["delivered"] == 2)
        wait_until(sandbox, lambda: json.loads(page(agent, "/status.json")[1])["lastHeartbeat"])  # Both commands may have ended already.
        status = json.loads(page(agent, "/status.json")[1])
        assert status["workers"] == {"busy": 1, "total": 2}
        assert (status["agent"]["id"], status["agent"]["organisation"]) == (agent.agent_id, sandbox.org_slug)
        assert (status["journal"]["started"], sum(done for done, _ in status["lastHour"])) == (1, 2)
        assert {"poller", "sender", "heartbeat", "config-refresh", "upkeep", "environment", "worker-0", "worker-1"} <= {
            one["name"] for one in status["threads"]
        }
        assert all(one["alive"] for one in status["threads"])
        for moment in ("lastReceive", "lastHeartbeat", "lastAnswer", "lastConfiguration", "tokenEnds", "credentialsEnd"):
            assert status[moment], moment
        listed = {one["id"]: one for one in status["commands"]}
        assert [one["id"] for one in status["commands"]] == [held.id, refused.id, done.id]
        assert (listed[done.id]["method"], listed[done.id]["host"], listed[done.id]["status"]) == ("GET", "127.0.0.1", "SUCCESS")
        assert (listed[done.id]["code"], listed[refused.id]["code"]) == ("200", "ECONNREFUSED")
        assert (listed[held.id]["state"], listed[held.id]["method"], listed[held.id]["status"]) == ("started", "POST", None)
        gate.release()
        sandbox.wait_final(held.id)


def test_the_metrics_count_commands_and_calls_to_the_platform(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        agent.get(target.url("/"))
        agent.ask({}, action="TetraScience.Connector.gdc.Unknown")

        def samples() -> dict[str, float]:
            families = list(text_string_to_metric_families(page(agent, "/metrics")[1]))
            assert all(family.name.startswith("relay_agent_") for family in families)
            return {
                f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
                for family in families
                for sample in family.samples
            }

        wait_until(sandbox, lambda: samples().get('relay_agent_journal_commands{"state": "delivered"}') == 2)
        wait_until(sandbox, lambda: "relay_agent_last_heartbeat_timestamp_seconds{}" in samples())  # `heartbeat` may run its step later
        found = samples()
        assert sum(value for name, value in found.items() if name.startswith("relay_agent_commands_total")) == 2
        assert any('"action": "other"' in name for name in found)
        assert found['relay_agent_command_seconds_count{"stage": "delivered"}'] == 2
        for call in ("agent/config", "agent/credentials", "agent/status", "sqs receive", "sqs send", "sqs delete"):
            assert found[f'relay_agent_platform_requests_total{{"call": "{call}", "outcome": "ok"}}'] >= 1, call
        for name in ("last_receive", "last_heartbeat", "token_expiry", "credentials_expiry"):
            assert found[f"relay_agent_{name}_timestamp_seconds{{}}"] > 1e9, name


def test_nothing_secret_is_on_any_page(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    canary = "canary-5d1c"
    gate = target.gate()
    target.on("/held", lambda conn, _: (conn.wait(gate), conn.respond(200, [("Set-Cookie", canary)], canary.encode())))
    target.on(f"/{canary}", reply(body=canary))
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        secret = {"headers": {"Authorization": canary, "Cookie": canary, "X-Own": canary}, "body": canary, "method": "POST"}
        agent.ask({**secret, "url": target.url(f"/{canary}?key={canary}")})
        agent.ask({**secret, "url": f"http://user:{canary}@127.0.0.1:9/{canary}"})
        held = agent.create({**secret, "url": target.url(f"/held?key={canary}")})
        gate.wait_reached()
        token = agent.environment["JWT"]
        for path in PATHS:
            text = page(agent, path)[1]
            assert canary not in text, path
            assert token not in text
        gate.release()
        sandbox.wait_final(held.id)
