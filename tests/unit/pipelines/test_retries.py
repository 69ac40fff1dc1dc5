"""Retries mean what they mean to urllib3, but a request that the target may have acted upon is repeated only where that is allowed."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import requests
from requests import exceptions as failures
from urllib3.util import Retry

from relay_agent.pipelines import CommandClient, Keyring, relay_session
from tests.sender_side import KEY, URL, Platform, answer, failure

REFUSED = failure("ECONNREFUSED", "connect ECONNREFUSED 10.0.0.1:80")
RESET = failure("ECONNRESET", "read ECONNRESET")
FINE = answer(body="hello")


def tried(client: CommandClient, platform: Platform, method: str, retries: Any, *found: Any, keyring: Keyring | None = None) -> Any:
    """What a request comes to, and how many commands it took."""
    left = list(found)
    platform.agent = lambda _payload: left.pop(0) if len(left) > 1 else left[0]
    before = len(platform.created)
    with relay_session(client, retries=retries, keyring=keyring) as session:
        try:
            result: Any = session.request(method, URL, data="x").status_code
        except failures.RequestException as error:
            result = type(error)
    return result, len(platform.created) - before


@pytest.mark.parametrize(
    "method, retries, found, expected",
    [
        ("GET", None, [REFUSED, FINE], (failures.ConnectionError, 1)),
        ("GET", 1, [REFUSED, FINE], (200, 2)),
        ("POST", 1, [REFUSED, FINE], (200, 2)),  # Nothing was sent.
        ("POST", 2, [failure("EEXPIRED", status="REJECTED"), FINE], (200, 2)),
        ("GET", 1, [RESET, FINE], (200, 2)),
        ("POST", 3, [RESET, FINE], (failures.ConnectionError, 1)),
        ("POST", Retry(3, allowed_methods=None), [RESET, FINE], (200, 2)),
        ("POST", Retry(3, allowed_methods=["POST"]), [RESET, FINE], (200, 2)),
        ("GET", Retry(3, read=False), [RESET, FINE], (failures.ConnectionError, 1)),
        ("GET", Retry(3, connect=0), [REFUSED, FINE], (failures.ConnectionError, 1)),
        ("GET", 2, [REFUSED], (failures.ConnectionError, 3)),
        ("GET", 5, [failure("EPOLICY"), FINE], (failures.RequestException, 1)),
        ("GET", 5, [failure("EBADCOMMAND", "url: x"), FINE], (failures.InvalidURL, 1)),
        ("GET", 5, [answer(503), FINE], (503, 1)),  # Only with Retry-After, or where the Retry names the status.
        ("GET", 1, [answer(503, [{"Retry-After": "0"}]), FINE], (200, 2)),
        ("POST", 1, [answer(503, [{"Retry-After": "0"}]), FINE], (503, 1)),
        ("GET", Retry(1, status_forcelist=[500]), [answer(500), FINE], (200, 2)),
        ("GET", Retry(1, status_forcelist=[500]), [answer(500)], (failures.RetryError, 2)),
        ("GET", Retry(1, status_forcelist=[500], raise_on_status=False), [answer(500)], (500, 2)),
    ],
)
def test_a_retry_means_what_it_means_to_urllib3(
    client: CommandClient, platform: Platform, method: str, retries: Any, found: list[Any], expected: Any
) -> None:
    assert tried(client, platform, method, retries, *found) == expected


def test_an_unsealed_failure_of_a_secure_command_proves_nothing(client: CommandClient, platform: Platform) -> None:
    assert tried(client, platform, "POST", 3, REFUSED, keyring=Keyring.from_text(KEY)) == (failures.ConnectionError, 1)
    assert tried(client, platform, "GET", 3, REFUSED, keyring=Keyring.from_text(KEY)) == (failures.ConnectionError, 4)


def test_a_platform_that_lost_the_command_is_not_asked_twice_to_post(client: CommandClient, platform: Platform) -> None:
    platform.refusals = [(500, {}, b"{}")] * 9
    with relay_session(client, retries=3) as session, pytest.raises(failures.ConnectionError, match=r"^500: "):
        session.post(URL)
    assert len(platform.refusals) == 8
    with relay_session(client, retries=3) as session, pytest.raises(failures.ConnectionError):
        session.get(URL)
    assert len(platform.refusals) == 4


def test_back_off_and_retry_after_are_waited_for(client: CommandClient, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", slept.append)
    assert tried(client, platform, "GET", Retry(3, backoff_factor=0.5), REFUSED) == (failures.ConnectionError, 4)
    assert slept == [1.0, 2.0]
    slept.clear()
    assert tried(client, platform, "GET", 1, answer(503, [{"Retry-After": "7"}]), FINE) == (200, 2)
    assert slept == [7]


def test_a_body_that_can_be_read_once_is_sent_with_each_repetition(client: CommandClient, platform: Platform) -> None:
    left = [REFUSED, FINE]
    platform.agent = lambda _payload: left.pop(0)
    with relay_session(client, retries=1) as session:
        session.put(URL, data=iter([b"a", b"b"]))
    assert [command["payload"]["body"]["raw"] for command in platform.created] == ["ab", "ab"]


def test_the_response_knows_its_retries_as_urllib3_s(client: CommandClient, platform: Platform) -> None:
    left = [REFUSED, FINE]
    platform.agent = lambda _payload: left.pop(0)
    with relay_session(client, retries=1) as session:
        assert len(session.get(URL).raw.retries.history) == 1


def test_a_session_of_requests_can_be_pickled_with_the_adapter(client: CommandClient, platform: Platform) -> None:
    with relay_session(client, retries=2) as session, pickle.loads(pickle.dumps(session)) as again:
        assert isinstance(again, requests.Session) and again.get(URL).text == "hello"
        assert again.get_adapter(URL).max_retries.total == 2
