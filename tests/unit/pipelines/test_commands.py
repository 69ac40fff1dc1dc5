"""What is posted for an exchange, and what is too large to be posted."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from relay_agent.core.errors import SecureCommandError
from relay_agent.pipelines import relay_session
from relay_agent.pipelines.commands import MAX_COMMAND_BYTES, check_size, command, encoded
from relay_agent.pipelines.encoding import request_payload
from relay_agent.pipelines.failures import TooLarge
from relay_agent.pipelines.testing import LocalAgent
from relay_agent.protocol.keyring import Keyring
from relay_agent.protocol.requests import decode_request
from tests.sender_side import AGENT, RING, opened, seconds_ahead


@pytest.mark.parametrize("timeout, ttl", [(5, 65), (300, 300)])
def test_a_command_lives_as_long_as_the_platform_wants_and_starts_no_later_than_the_caller_wants(timeout: float, ttl: float) -> None:
    asked = command({"url": "http://h/"}, AGENT, timeout, None)
    assert timeout - 1 < seconds_ahead(asked.payload["not_after"]) <= timeout
    assert ttl - 1 < (asked.expires_at - datetime.now(UTC)).total_seconds() <= ttl


def test_a_not_after_of_the_caller_s_own_is_kept() -> None:
    assert command({"not_after": "2030-01-01T00:00:00Z"}, AGENT, 5, None).payload["not_after"] == "2030-01-01T00:00:00Z"


def test_a_secure_command_holds_the_same_request_sealed() -> None:
    asked = command({"url": "http://h/"}, AGENT, 5, RING)
    found = opened(dict(asked.payload))
    inside = json.loads(found.plaintext)
    assert (inside["url"], inside["encrypt_response"], found.jti) == ("http://h/", True, asked.jti)
    assert seconds_ahead(inside["not_after"]) <= 5


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e9, 1e12])
def test_a_timeout_that_is_none_is_a_value_error(timeout: float) -> None:
    words = "timeout must be more than 0 and less than 1e9 seconds"  # As the agent has it.
    with pytest.raises(ValueError, match=words):
        command({}, AGENT, timeout, None)
    with relay_session(LocalAgent(answers={})) as session, pytest.raises(ValueError, match=words):
        session.get("http://target.example/", timeout=timeout)


def test_a_secure_command_is_never_valid_for_longer_than_the_agent_allows() -> None:
    assert opened(dict(command({"url": "http://h/"}, AGENT, 30 * 86_400, RING).payload)).jti


@pytest.mark.parametrize("keyring, fits", [(None, 7_500_000), (RING, 5_500_000)], ids=["plain", "secure"])
@pytest.mark.parametrize("unit", [b"\0", b'"', b"\\", b"\n", b"\x1f\x7f", "ä".encode(), "\u2028".encode(), b"\xff", b"\0a"])
def test_every_body_of_the_size_that_is_said_to_fit_fits(unit: bytes, keyring: Keyring | None, fits: int) -> None:
    body = unit * (fits // len(unit))
    payload = request_payload("POST", "http://h/", [], body, 5.0)
    encoded({"payload": dict(command(payload, AGENT, 5, keyring).payload)})
    assert decode_request(payload).body == body


@pytest.mark.parametrize("keyring, fits", [(None, 10_000_000), (RING, 7_500_000)], ids=["plain", "secure"])
def test_text_of_the_size_that_is_said_to_fit_fits(keyring: Keyring | None, fits: int) -> None:
    for text in ("a", "ä", "日本語"):
        payload = request_payload("POST", "http://h/", [], (text * fits).encode()[: fits - fits % 6], 5.0)
        encoded({"payload": dict(command(payload, AGENT, 5, keyring).payload)})


def test_an_empty_keyring_is_said_before_anything_is_posted() -> None:
    with pytest.raises(SecureCommandError, match="no key"):
        command({}, AGENT, 5, Keyring.from_text(""))


def test_text_is_posted_as_it_is_and_only_a_lone_surrogate_escaped() -> None:
    assert encoded({"a": "é"}) == '{"a":"é"}'.encode()
    assert encoded({"a": "\ud800"}) == b'{"a":"\\ud800"}'


def test_what_is_too_large_is_refused_and_the_message_says_what_fits() -> None:
    check_size(MAX_COMMAND_BYTES)
    with pytest.raises(TooLarge, match=r"10,485,761 bytes.*10 MB of text"):
        check_size(MAX_COMMAND_BYTES + 1)
    with pytest.raises(TooLarge):
        encoded({"a": "x" * MAX_COMMAND_BYTES})
