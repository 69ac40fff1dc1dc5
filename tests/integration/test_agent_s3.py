"""An S3 that refuses or is unreachable: log and page give cause and cure, for answers and for commands' bodies.

The texts are tested in `tests/unit/relay/test_uploader.py` and `tests/unit/diagnostics/test_causes.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay_agent.diagnostics import platform_causes
from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import ThreadedAgent, page, running, wait_until
from tests.targets import ByteTarget, reply


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on(
            "/large", reply(200, [("Content-Type", "text/plain")], "".join(chr(33 + place * 7 % 90) for place in range(3_000_000)))
        )
        running_target.on("/small", reply(200))
        yield running_target


def reported(agent: ThreadedAgent, event: str) -> dict[str, Any]:
    """The line, of which the page must say the same."""
    line = agent.wait_log(event)
    status = json.loads(page(agent, "/status.json")[1])
    assert (line["cause"], line["cure"]) in [(one["cause"], one["cure"]) for one in status["warnings"]]
    return line


def test_a_bucket_that_refuses_an_answer_is_logged_with_cause_and_cure(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        with sandbox.inject(Fault("s3", "PutObject", status=403, code="AccessDenied")) as fault:
            assert agent.get(target.url("/large")).status == "FAILURE"
            assert fault.hits == 1
            assert "Amazon S3 answers 403" in reported(agent, "upload-refused")["cause"]
        assert agent.get(target.url("/large")).status == "SUCCESS"
        wait_until(sandbox, lambda: "Amazon S3" not in page(agent, "/")[1])


def test_a_block_page_instead_of_s3_is_retried_and_logged(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    blocked = Fault("s3", "PutObject", status=403, headers={"content-type": "text/html"}, body="<html>Blocked</html>")
    with running(ThreadedAgent(sandbox, tmp_path)) as agent, sandbox.inject(blocked):
        command = agent.create({"method": "GET", "url": target.url("/large")})
        assert agent.wait_log("upload-failed")["cause"] == platform_causes.NOT_S3.cause
        assert sandbox.wait_final(command.id).status == "SUCCESS"


def test_a_body_that_s3_refuses_is_reported(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with running(ThreadedAgent(sandbox, tmp_path)) as agent:
        asked = {"method": "POST", "url": target.url("/small"), "body": {"mode": "raw", "raw": "x" * 300_000}}
        with sandbox.inject(Fault("s3", "GetObject", status=403, code="AccessDenied")):
            assert agent.ask(asked, delivery="referenced").status == "FAILURE"
            assert "Amazon S3 answers 403" in reported(agent, "download-failed")["cause"]
        assert agent.ask(asked, delivery="referenced").status == "SUCCESS"
        agent.wait_log("download-recovered")
