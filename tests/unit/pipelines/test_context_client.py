"""The client that has only `context.run_cmd`: how it is called, when it is given up, and what its bare exceptions mean."""

from __future__ import annotations

import builtins
import importlib
import json
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import requests
import requests_mock

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import PlatformError, PlatformRefused, RateLimited, RelayError, UnknownAgent
from relay_agent.pipelines import relay_session
from relay_agent.pipelines.context_client import ContextClient, GaveUp, LastPause, Ttl
from relay_agent.pipelines.failures import NoAnswer, TooLarge, Unreached
from relay_agent.protocol.requests import decode_request
from tests.sender_side import AGENT, RING, answer, opened, sealed, seconds_ahead

REQUEST = {"method": "GET", "url": "http://target.example/"}
Finished = Callable[[dict[str, Any]], Any]


class Context:
    """Has `run_cmd` as ts-sdk 2.x has it, and nothing else."""

    def __init__(self, finished: Finished) -> None:
        self.called: list[dict[str, Any]] = []
        self._finished = finished

    def run_cmd(
        self,
        target_id: str,
        action: str,
        metadata: dict[str, Any] | None,
        payload: dict[str, Any],
        ttl_sec: int = 300,
        initial_delay_sec: int = 0,
        return_command: bool = False,
    ) -> Any:
        print("Command successfully created")
        assert 60 <= ttl_sec <= 900 and return_command and not initial_delay_sec
        self.called.append({"target_id": target_id, "action": action, "payload": payload, "ttl_sec": ttl_sec})
        json.dumps(payload)
        return self._finished(payload)


def raising(error: BaseException) -> Finished:
    def finished(_payload: dict[str, Any]) -> Any:
        raise error

    return finished


def done(_payload: dict[str, Any]) -> dict[str, Any]:
    status, body = answer(body="hello")
    return {"id": "command-1", "status": status, "responseBody": body}


def test_one_call_has_what_the_sdk_wants_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context(done)
    found = ContextClient(context, AGENT).exchange(REQUEST, timeout_seconds=7)
    assert found.content() == b"hello" and found.command_id == "command-1"
    (call,) = context.called
    assert (call["target_id"], call["action"]) == (AGENT, "TetraScience.Connector.gdc.HttpRequest")
    assert 6 < seconds_ahead(call["payload"]["not_after"]) <= 7
    assert capsys.readouterr() == ("", "")
    print("others print")
    assert capsys.readouterr().out == "others print\n"


@pytest.mark.parametrize("timeout, ttl", [(0.5, 65), (120, 130), (2000, 900)])
def test_the_time_to_live_keeps_within_the_sdk_s_bounds(timeout: float, ttl: int) -> None:
    context = Context(done)
    ContextClient(context, AGENT).exchange(REQUEST, timeout_seconds=timeout)
    assert context.called[0]["ttl_sec"] == ttl


def test_a_keyring_seals_the_request_and_opens_the_answer() -> None:
    def finished(payload: dict[str, Any]) -> dict[str, Any]:
        return {"id": "command-1", "status": "SUCCESS", "responseBody": sealed(answer(body="secret")[1], opened(payload).jti)}

    context = Context(finished)
    assert ContextClient(context, AGENT).exchange(REQUEST, timeout_seconds=7, keyring=RING).content() == b"secret"
    assert context.called[0]["action"] == "TetraScience.Connector.http.Request.V2"


def refusal(status: int, message: str = "words") -> Exception:
    return Exception(json.dumps({"statusCode": status, "error": "x", "message": message}))


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (refusal(401), PlatformRefused, "refused it"),
        (refusal(403), PlatformRefused, "refused it"),
        (refusal(404, "no agent-1 here"), UnknownAgent, "no agent-1 here"),
        (refusal(413), TooLarge, "words"),
        (refusal(429), RateLimited, "429"),
        (refusal(400, "bad\nthing"), PlatformError, "400: bad thing"),
        (refusal(503), PlatformError, "503"),
        (Exception("<html>secret page</html>"), Unreached, "cannot be read"),
        (Exception(), Unreached, "cannot be read"),
        (Exception("Param target_id is missing secret"), Unreached, "cannot be read"),
        (Exception("Param target_id is missing"), PlatformError, "Param target_id is missing"),
        (Exception("Param ttl_sec must be between 60 and 900 seconds"), PlatformError, "between 60 and 900 seconds"),
        (Exception("Param initial_delay_sec must be non-negative and less than 60 seconds"), PlatformError, "must be non-negative"),
        (KeyError("secret"), PlatformError, "failed with KeyError"),
        (TypeError("secret"), PlatformError, "failed with TypeError"),
        (ValueError("secret"), Unreached, "cannot be read"),
        (Exception('{"message": "Forbidden"}'), Unreached, "refused it: Forbidden"),
        (Exception("<html>502 Bad Gateway</html>"), Unreached, "cannot be read"),
        (requests.ConnectionError("x"), Unreached, "cannot reach the platform: check COMMAND_ENDPOINT"),
    ],
)
def test_each_bare_exception_has_its_meaning(error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        ContextClient(Context(raising(error)), AGENT).exchange(REQUEST, timeout_seconds=7)
    assert isinstance(caught.value, RelayError) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        Exception("Param ttl_sec must be between 60 and 900 seconds"),
        Exception("Param org_slug is missing"),
        KeyError("x"),
        Exception("<html>Forbidden</html>"),
        Exception('{"message": "Forbidden"}'),
    ],
)
def test_what_the_sdk_or_a_proxy_refuses_is_nothing_that_a_repetition_heals(error: Exception) -> None:
    context = Context(raising(error))
    with relay_session(ContextClient(context, AGENT), retries=2) as session, pytest.raises(requests.RequestException) as caught:
        session.get("http://target.example/")
    assert not isinstance(caught.value, requests.ConnectionError) and len(context.called) == 1


@pytest.mark.parametrize(
    "text", ['{"message": "Too Many Requests"}', '{"message": "Internal server error"}', "<html>502 Bad Gateway</html>"]
)
def test_an_answer_that_leaves_all_open_is_repeated_only_where_that_is_safe(text: str) -> None:
    for method, calls in (("GET", 3), ("POST", 1)):
        context = Context(raising(Exception(text)))
        with relay_session(ContextClient(context, AGENT), retries=2) as session, pytest.raises(requests.ConnectionError):
            session.request(method, "http://target.example/")
        assert len(context.called) == calls


def test_an_sdk_that_is_too_old_is_named() -> None:
    class Old:
        def run_cmd(self, target_id: str, action: str, metadata: Any, payload: Any, ttl_sec: int = 300) -> Any: ...

    with pytest.raises(PlatformError, match=r"ts-sdk 2\.3 or later"):
        ContextClient(Old(), AGENT).exchange(REQUEST, timeout_seconds=7)


@pytest.mark.parametrize("status, words", [("PENDING", "is the agent running, and is its queue enabled"), ("PROCESSING", "still working")])
def test_a_command_that_the_sdk_was_still_polling_is_named_with_its_status(
    monkeypatch: pytest.MonkeyPatch, status: str, words: str
) -> None:
    """By the polling of ts-sdk itself."""
    command = importlib.import_module("ts_sdk.task.__util_command")
    monkeypatch.setenv("PIPELINES_COMMUNICATION_FORMAT", "v0")
    monkeypatch.setenv("COMMAND_ENDPOINT", "http://platform.example")
    monkeypatch.setattr("relay_agent.pipelines.context_client.ANSWER_GRACE_SECONDS", 1.7)

    class Sdk:
        def run_cmd(self, **given: Any) -> Any:
            ordered = [given[name] for name in ("target_id", "action", "metadata", "payload", "ttl_sec")]
            return command.run_command({}, "acme", *ordered, return_command=given["return_command"])

    with requests_mock.Mocker() as platform, pytest.raises(NoAnswer, match=words) as caught:
        platform.post("http://platform.example/internal", json={"id": "command-7"})
        platform.get("http://platform.example/internal/command-7", json={"id": "command-7", "status": status})
        ContextClient(Sdk(), AGENT).exchange(REQUEST, timeout_seconds=0.1)
    assert (caught.value.status, caught.value.command_id) == (status, "command-7")
    assert "no answer within " in str(caught.value) and "(command command-7)" in str(caught.value)


def test_text_that_is_longer_in_the_sdk_s_json_than_as_base64_goes_as_base64() -> None:
    context = Context(done)
    with relay_session(ContextClient(context, AGENT)) as session:
        for body in ("ä" * 2_000_000, "\0" * 2_000_000, "a" * 10_000_000, "ä"):
            session.post("http://target.example/", data=body.encode())
            assert decode_request(context.called[-1]["payload"]).body == body.encode()
    assert [call["payload"]["body"]["mode"] for call in context.called] == ["base64", "base64", "raw", "raw"]


@pytest.mark.parametrize("found", [None, {}, "text", {"statusCode": 200}])
def test_what_is_no_command_says_which_sdk_is_needed(found: Any) -> None:
    with pytest.raises(PlatformError, match="ts-sdk"):
        ContextClient(Context(lambda _payload: found), AGENT).exchange(REQUEST, timeout_seconds=7)


def test_a_command_that_is_not_finished_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="still PENDING"):
        ContextClient(Context(lambda _payload: {"id": "c", "status": "PENDING"}), AGENT).exchange(REQUEST, timeout_seconds=7)


def test_nobody_waits_longer_than_the_timeout_and_its_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_agent.pipelines.context_client.ANSWER_GRACE_SECONDS", 0.2)
    gate = threading.Event()
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        ContextClient(Context(lambda _payload: gate.wait(30)), AGENT).exchange(REQUEST, timeout_seconds=0.1)
    assert time.monotonic() - began < 5
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "relay-context":
            thread.join(5)


def test_the_sdk_polls_early_and_its_polling_ends_in_time() -> None:
    now = [0.0]
    until = Deadline(40.0, lambda: now[0])
    ttl = Ttl(65, until)
    assert ttl - 0 == 0.1 and ttl == 65 and json.dumps(ttl) == "65" and ttl.polled
    pauses, slept = [], 0.0
    while slept < ttl:
        pauses.append(ttl - slept)
        slept += pauses[-1]
        now[0] += pauses[-1].real if isinstance(pauses[-1], LastPause) else pauses[-1]
    assert max(pauses) == 2.0 and len(pauses) < 50
    assert now[0] == 39.0 and isinstance(pauses[-1], LastPause)
    now[0] = 40.0
    with pytest.raises(GaveUp):
        ttl - slept


def test_print_is_the_original_again_whoever_replaced_it_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    original = builtins.print
    ContextClient(Context(done), AGENT).exchange(REQUEST, timeout_seconds=7)
    assert builtins.print is original

    def replaced(_payload: dict[str, Any]) -> Any:
        before = builtins.print
        builtins.print = lambda *values, **options: before(*values, **options)
        return done(_payload)

    try:
        for _ in range(2):
            ContextClient(Context(replaced), AGENT).exchange(REQUEST, timeout_seconds=7)
        print("still there")
    finally:
        builtins.print = original
    assert capsys.readouterr().out == "still there\n"


def test_what_is_no_context_is_said_at_once() -> None:
    with pytest.raises(TypeError, match="run_cmd"):
        ContextClient(object(), AGENT)


def test_too_large_a_request_is_never_handed_to_the_sdk() -> None:
    context = Context(done)
    with pytest.raises(TooLarge):
        ContextClient(context, AGENT).exchange({**REQUEST, "body": "é" * 2_000_000}, timeout_seconds=7)  # The SDK posts ASCII.
    assert not context.called


def test_a_warning_of_the_sdk_s_is_dropped_and_others_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    def warned(payload: dict[str, Any]) -> Any:
        warnings.warn("Unverified HTTPS request", UserWarning, stacklevel=1)
        return done(payload)

    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_rest: print(f"shown: {message}")
            ContextClient(Context(warned), AGENT).exchange(REQUEST, timeout_seconds=7)
            warnings.warn("mine", UserWarning, stacklevel=1)
        assert capsys.readouterr() == ("shown: mine\n", "")


def test_print_is_silent_again_after_somebody_put_the_original_back(capsys: pytest.CaptureFixture[str]) -> None:
    original = builtins.print

    def put_back(payload: dict[str, Any]) -> Any:
        builtins.print = original
        return done(payload)

    ContextClient(Context(put_back), AGENT).exchange(REQUEST, timeout_seconds=7)
    capsys.readouterr()
    ContextClient(Context(done), AGENT).exchange(REQUEST, timeout_seconds=7)
    assert capsys.readouterr() == ("", "") and builtins.print is original
