"""Secure commands through a real agent (PROTOCOL §5): envelopes made by an independent JOSE library, each failure with its code.

Forms of keys and headers are tested in the unit tests of `protocol`.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwe
from joserfc.jwk import OctKey

from relay_agent.protocol.keyring import Keyring
from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.server import Sandbox
from tests.agents import SECURE_REQUEST, RunningAgent, body, running
from tests.targets import ByteTarget, reply

KEY, OLD_KEY, FOREIGN_KEY = (secrets.token_bytes(32) for _ in range(3))


class _Roomy(jwe.JWERegistry):
    max_ciphertext_length = 1_000_000


REGISTRY = _Roomy(strict_check_header=False)
MARK = "canary-" + secrets.token_hex(8)


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One real agent with two keys, the first for what it seals."""
    environment: dict[str, str | None] = {"SECURE_COMMAND_KEY": f"{KEY.hex()},{OLD_KEY.hex()}", "RELAY_LOG_LEVEL": "debug"}
    with running(RunningAgent(sandbox, tmp_path_factory.mktemp("agent"), environment)) as started:
        yield started


@pytest.fixture(scope="module")
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(200, [("Content-Type", "text/plain")], f"answer {MARK}"))
        running_target.on("/missing", reply(404, [("Content-Type", "text/plain")], f"nothing {MARK}"))
        yield running_target


def sealed(agent: RunningAgent, request: object, key: bytes = KEY, **header: Any) -> str:
    """A command's JWE as another library makes it; a member that is None is left out."""
    needed = {"aud": agent.agent_id, "exp": int(time.time()) + 60, "jti": str(uuid.uuid4())}
    protected = {"alg": "dir", "enc": "A256GCM", "kid": Keyring.kid(key), "typ": "relay-command", **needed, **header}
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    return jwe.encrypt_compact(
        {name: value for name, value in protected.items() if value is not None}, text, OctKey.import_key(key), registry=REGISTRY
    )


def opened(command: Command, key: bytes = KEY) -> dict[str, Any]:
    """What a command's sealed answer says; it names the command."""
    found = jwe.decrypt_compact(body(command)["jwe"], OctKey.import_key(key), registry=REGISTRY)
    assert found.plaintext is not None
    assert (found.protected["typ"], found.protected["cid"]) == ("relay-answer", command.id)
    value: dict[str, Any] = json.loads(found.plaintext)
    return value


def ask(agent: RunningAgent, envelope: object) -> Command:
    return agent.ask({"jwe": envelope}, SECURE_REQUEST)


def test_a_secure_command_is_opened_and_run(agent: RunningAgent, target: ByteTarget) -> None:
    request = {"method": "POST", "url": target.url("/"), "headers": [{"X-Secret": MARK}], "body": {"mode": "raw", "raw": MARK}}
    command = ask(agent, sealed(agent, request))
    assert command.status == "SUCCESS"
    assert body(command)["body"] == f"answer {MARK}"
    assert (target.last.get("X-Secret"), target.last.body) == (MARK, MARK.encode())


@pytest.mark.parametrize("kid", [Keyring.kid(OLD_KEY), None], ids=["its kid", "no kid"])
def test_every_key_of_the_ring_opens(agent: RunningAgent, target: ByteTarget, kid: str | None) -> None:
    assert ask(agent, sealed(agent, {"url": target.url("/")}, OLD_KEY, kid=kid)).status == "SUCCESS"


@pytest.mark.parametrize("path, status, outcome", [("/", 200, "SUCCESS"), ("/missing", 404, "FAILURE")])
def test_an_encrypted_response_holds_the_body_sealed_with_the_first_key(
    agent: RunningAgent, target: ByteTarget, path: str, status: int, outcome: str
) -> None:
    command = ask(agent, sealed(agent, {"url": target.url(path), "encrypt_response": True}, OLD_KEY))
    answer = body(command)
    assert (command.status, set(answer), answer["statusCode"]) == (outcome, {"statusCode", "jwe"}, status)
    assert not any(MARK in text for text in command.updates)
    inner = opened(command)
    assert MARK in inner["body"]
    assert list(inner) == ["statusCode", "headers", "body", "bodyEncoding", "url", "elapsedMs"]


def test_an_encrypted_response_over_the_limit_is_uploaded_sealed(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/large", reply(200, [("Content-Type", "text/plain")], "a" * 400_000))
    command = ask(agent, sealed(agent, {"url": target.url("/large"), "encrypt_response": True}))
    assert json.loads(command.updates[-1])["responseBodyDelivery"] == "referenced"
    assert opened(command)["body"] == "a" * 400_000


def test_a_plain_command_may_have_its_response_encrypted(agent: RunningAgent, target: ByteTarget) -> None:
    command = agent.get(target.url("/"), encrypt_response=True)
    assert opened(command)["statusCode"] == 200


def test_a_referenced_secure_command_is_run(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/referenced", reply())
    request = {"method": "POST", "url": target.url("/referenced"), "body": "x" * 400_000}
    command = agent.ask({"jwe": sealed(agent, request)}, SECURE_REQUEST)
    assert command.delivery == "referenced"
    assert (command.status, len(target.last.body)) == ("SUCCESS", 400_000)


def altered(text: str) -> str:
    head, _, tail = text.rpartition(".")
    return f"{head}.{'B' if tail[0] == 'A' else 'A'}{tail[1:]}"


def broken(agent: RunningAgent) -> dict[str, object]:
    """Envelopes that must not open."""
    request = {"url": "http://127.0.0.1:9/", "headers": [{"X-Secret": MARK}]}
    return {
        "an unknown key": sealed(agent, request, FOREIGN_KEY),
        "a wrong key": sealed(agent, request, FOREIGN_KEY, kid=None),
        "altered": altered(sealed(agent, request)),
        "an answer": sealed(agent, request, typ="relay-answer"),
        "for another agent": sealed(agent, request, aud=str(uuid.uuid4())),
        "for nobody": sealed(agent, request, aud=None),
        "over": sealed(agent, request, exp=int(time.time()) - 1),
        "exp is text": sealed(agent, request, exp="tomorrow"),
        "exp in milliseconds": sealed(agent, request, exp=int(time.time() + 60) * 1000),
        "without exp": sealed(agent, request, exp=None),
        "without jti": sealed(agent, request, jti=None),
        "no jwe": "not.a.jwe",
        "empty": "",
    }


BROKEN = (
    "an unknown key",
    "a wrong key",
    "altered",
    "an answer",
    "for another agent",
    "for nobody",
    "over",
    "exp is text",
    "exp in milliseconds",
    "without exp",
    "without jti",
    "no jwe",
    "empty",
)


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_opened_is_edecrypt(agent: RunningAgent, name: str) -> None:
    command = ask(agent, broken(agent)[name])
    assert (command.status, body(command)["code"]) == ("FAILURE", "EDECRYPT")
    assert "statusCode" not in body(command)


def test_the_sealed_answer_of_a_command_is_no_command(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/oracle", reply(200, [("Content-Type", "text/plain")], f"answer {MARK}"))
    answer = ask(agent, sealed(agent, {"url": target.url("/oracle"), "encrypt_response": True}))
    posted_back = ask(agent, body(answer)["jwe"])
    assert (posted_back.status, body(posted_back)["code"]) == ("FAILURE", "EDECRYPT")
    assert sum(request.target == "/oracle" for request in target.requests) == 1


@pytest.mark.parametrize("payload", [{}, {"jwe": 7}, {"jwe": None}, {"url": "http://127.0.0.1:9/"}])
def test_a_payload_without_an_envelope_is_ebadcommand(agent: RunningAgent, payload: dict[str, object]) -> None:
    command = agent.ask(payload, SECURE_REQUEST)
    assert (command.status, body(command)["code"]) == ("FAILURE", "EBADCOMMAND")


@pytest.mark.parametrize("plaintext", [b"no json " + MARK.encode(), b"[]", b"\xff", b'{"url": 7}', b'{"url": NaN}'], ids=range(5))
def test_an_envelope_that_holds_no_request_is_ebadcommand(agent: RunningAgent, plaintext: bytes) -> None:
    command = ask(agent, sealed(agent, plaintext))
    assert (command.status, body(command)["code"]) == ("FAILURE", "EBADCOMMAND")
    assert MARK not in command.updates[-1]


def test_a_jti_is_refused_under_another_command_id(agent: RunningAgent, target: ByteTarget) -> None:
    target.on("/once", reply())
    envelope = sealed(agent, {"method": "POST", "url": target.url("/once")})
    assert ask(agent, envelope).status == "SUCCESS"
    again = ask(agent, envelope)
    assert (again.status, body(again)["code"]) == ("FAILURE", "EREPLAY")
    assert sum(request.target == "/once" for request in target.requests) == 1


def test_neither_key_nor_plaintext_stands_in_a_log_line_or_a_failure(agent: RunningAgent) -> None:
    secrets_of_ours = [MARK, KEY.hex(), OLD_KEY.hex()]
    assert [line for line in agent.lines.raw if any(secret in line for secret in secrets_of_ours)] == []
    failures = [command for command in agent.sandbox.commands.all() if command.target_id == agent.agent_id and command.status == "FAILURE"]
    codes = [text for command in failures for text in command.updates if '"code"' in text]
    assert len(codes) > 10
    assert [text for text in codes if any(secret in text for secret in secrets_of_ours)] == []
