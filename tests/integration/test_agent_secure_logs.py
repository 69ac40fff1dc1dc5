"""No log line that leaves the site holds content of a secure command: the platform receives them, and is the adversary (PROTOCOL §5)."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from pathlib import Path

import pytest

from relay_agent.protocol.jwe import seal_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.sandbox.server import Sandbox
from tests.agents import SECURE_REQUEST, RunningAgent, page, running, wait_until
from tests.targets import ByteTarget, closed_port, reply

KEY = secrets.token_bytes(32)


@pytest.mark.parametrize("answers", [True, False], ids=["a target that answers", "a target that does not"])
def test_host_and_method_of_a_secure_command_stand_on_stdout_only(sandbox: Sandbox, tmp_path: Path, answers: bool) -> None:
    with ByteTarget() as target, running(RunningAgent(sandbox, tmp_path, {"SECURE_COMMAND_KEY": KEY.hex()})) as agent:
        target.on("/", reply(200))
        port = target.port if answers else closed_port()
        request = {"url": f"http://2130706433:{port}/", "method": "PROPFIND", "encrypt_response": True, "headers": {"Content-Length": "1"}}
        sealed = seal_command(
            json.dumps(request).encode(), Keyring([KEY]), aud=agent.agent_id, exp=int(time.time()) + 60, jti=str(uuid.uuid4())
        )
        command = agent.ask_until_logged({"jwe": sealed}, SECURE_REQUEST)
        (line,) = [line for line in agent.events("command") if line["id"] == command.id]
        assert (line["method"], line["host"], line["port"]) == ("PROPFIND", "2130706433", port)
        assert bool(agent.events("target-failed")) is not answers
        _, bundled = page(agent, "/log")
        wait_until(sandbox, lambda: any(command.id in event["message"] for event in sandbox.log_events(agent.agent_id)))
        assert agent.stop() == 0
    shipped = [event["message"] for event in sandbox.log_events(agent.agent_id)]
    assert [
        text for text in [*shipped, bundled, *command.updates] if "PROPFIND" in text or "2130706433" in text or f":{port}" in text
    ] == []
