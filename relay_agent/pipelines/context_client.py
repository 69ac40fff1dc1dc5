"""The sender's calls through a task script's `context`: one `context.run_cmd` for each exchange (PROTOCOL §1).

Owns how `run_cmd` of ts-sdk 2.3 or later is called, ended in time and kept silent, and what its exceptions mean. It must not need
anything else of the context or of the SDK.
"""

from __future__ import annotations

import builtins
import inspect
import json
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

from relay_agent.core.clock import Deadline
from relay_agent.core.errors import PlatformError, PlatformRefused, RateLimited, UnknownAgent
from relay_agent.pipelines.commands import ANSWER_GRACE_SECONDS, MINIMUM_TTL_SECONDS, UNDER_WAY, Command, check_size, command
from relay_agent.pipelines.encoding import Answer, for_ascii
from relay_agent.pipelines.failures import Kind, NoAnswer, TooLarge, Unreached
from relay_agent.pipelines.network_faults import unreached
from relay_agent.pipelines.threads import Threads
from relay_agent.protocol.keyring import Keyring

MAXIMUM_TTL_SECONDS = 900
"""The longest that ts-sdk accepts; it accepts no less than 60."""
LAST_POLL_SECONDS = 1.0
"""How long before its caller stops waiting the SDK polls for the last time."""
_AROUND_PAYLOAD_BYTES = 1024
"""What the SDK posts beside the payload: ids, action, times."""
_CALL = "context.run_cmd"
_ARGUMENTS = ("target_id", "action", "metadata", "payload", "ttl_sec", "return_command")
_PARAMETER = re.compile(r"Param \w{1,40} (is missing|must be [\w ,.-]{1,100})")
_MOST_OF_A_PAGE = 64 * 1024
"""How much of an answer is searched for the words of a refusal, in characters."""
_THREADS = Threads("relay-context")


class ContextClient:
    """Sends through one agent, using only a task script's `context`. As safe for several threads as `context.run_cmd` is."""

    def __init__(self, context: Any, agent_id: str) -> None:
        if not callable(getattr(context, "run_cmd", None)):
            raise TypeError("context has no run_cmd: a task script's context of ts-sdk 2.3 or later is needed")
        self.agent_id = agent_id
        self._context = context

    def exchange(self, payload: Mapping[str, Any], *, timeout_seconds: float, keyring: Keyring | None = None) -> Answer:
        """Have the agent send one HTTP request (PROTOCOL §3), and return the answer; a `keyring` makes it a secure command.

        Takes at most `timeout_seconds` and 10 more, whatever the SDK is doing.

        Raises:
            NoAnswer: no answer came in time.
            PlatformRefused, UnknownAgent, RateLimited, PlatformError, TooLarge: the platform did not take the command.
            BadAnswer: the answer cannot be read, or the answer to a secure command is not encrypted.
            SecureCommandError: the answer cannot be decrypted, or is another command's.
        """
        until = Deadline(timeout_seconds + ANSWER_GRACE_SECONDS)
        asked = command(payload if keyring else for_ascii(payload), self.agent_id, timeout_seconds, keyring)
        check_size(len(json.dumps(asked.payload)) + _AROUND_PAYLOAD_BYTES)
        call = _Call(self._context.run_cmd, self.agent_id, asked, until)
        # A thread of its own, because the SDK's calls have no time limit. It ends by itself, at the latest with the call under way.
        result = _THREADS.run(call.finished)
        if result not in wait({result}, until.remaining()).done:
            raise call.no_answer(f"{_CALL} has not returned")
        try:
            return asked.read(result.result())
        finally:
            del result  # Otherwise this frame and the exception would keep each other, and the request with them.


class _Call:
    """One call of `run_cmd`, on a thread of its own."""

    def __init__(self, run_cmd: Callable[..., Any], agent_id: str, asked: Command, until: Deadline) -> None:
        self._run_cmd = run_cmd
        self._agent_id = agent_id
        self._asked = asked
        self._until = until
        self._ttl = Ttl(_ttl_seconds(until.seconds), until)

    def finished(self) -> dict[str, Any]:
        """Call it, and return the finished command.

        Raises:
            RelayError: as `ContextClient.exchange`.
        """
        try:
            with _prints.here(), _warnings.here():
                found = self._run_cmd(
                    target_id=self._agent_id,
                    action=self._asked.action,
                    metadata={},
                    payload=self._asked.payload,
                    ttl_sec=self._ttl,
                    return_command=True,
                )
        except Exception as error:  # noqa: BLE001  # The SDK raises bare Exceptions.
            raised = self._meaning(error)
        else:
            return self._checked(found)
        try:
            raise raised from None
        finally:
            del raised

    def no_answer(self, reason: str = "", command_id: str = "", status: str = "") -> NoAnswer:
        """Return the failure of a call that ended, or was given up, before the command was finished."""
        return NoAnswer(command_id, status, round(self._until.elapsed(), 1), reason)

    def _checked(self, found: Any) -> dict[str, Any]:
        status = str(found.get("status", "")) if isinstance(found, dict) else ""
        if not status:
            raise PlatformError(_CALL, "it returned no command: ts-sdk 2.3 or later is needed")
        if status in UNDER_WAY:
            raise self.no_answer("", str(found.get("id", "")), status)
        return dict(found)

    def _meaning(self, error: Exception) -> Exception:
        if isinstance(error, GaveUp) or self._ttl.polled:
            reason = "" if isinstance(error, GaveUp) else f"{_CALL} failed while it waited ({type(error).__name__})"
            return self.no_answer(reason)
        if isinstance(error, requests.RequestException):
            host = urlsplit(error.request.url or "").hostname if error.request is not None else None
            return unreached(_CALL, error, host or "the platform", address="COMMAND_ENDPOINT", proxies="https_proxy")
        if isinstance(error, TypeError) and not self._takes_arguments():
            return PlatformError(_CALL, "it does not take these arguments: ts-sdk 2.3 or later is needed", 400)
        return _refusal(error, self._agent_id)

    def _takes_arguments(self) -> bool:
        try:
            inspect.signature(self._run_cmd).bind(**dict.fromkeys(_ARGUMENTS))
        except (TypeError, ValueError):
            return False
        return True


class GaveUp(Exception):
    """Ends the SDK's polling when nobody waits any more."""


class LastPause(float):
    """The pause before the last poll. Added to what the SDK has slept, it is more than any `ttl_sec`.

    So the SDK's loop ends after that poll as it does when the time is over, and `run_cmd` returns the command, with its id and status.
    """

    def __radd__(self, slept: float) -> float:
        """Return what counts as slept."""
        return math.inf


class Ttl(int):
    """The `ttl_sec` of one call: a whole number that also decides when the SDK polls next, and ends its polling.

    `run_cmd` sleeps `min(its own pause, ttl_sec - what it has slept)` before each poll. Its own pauses begin with a second and double, so
    it would see an answer late by as much again as the answer took, and could never be ended.
    """

    _until: Deadline
    polled: bool

    def __new__(cls, seconds: int, until: Deadline) -> Ttl:
        """Make a number of seconds for a call that must end at `until`."""
        self = super().__new__(cls, seconds)
        self._until = until
        self.polled = False
        return self

    def __sub__(self, slept: float) -> float:  # type: ignore[override]
        """Return the pause until the next poll: a tenth of a second at first, later a quarter of the time that has passed."""
        if self._until.passed:
            raise GaveUp
        self.polled = True
        pause = min(max(0.1, self._until.elapsed() * 0.25), 2.0)
        rest = max(self._until.remaining() - LAST_POLL_SECONDS, 0.0)
        return LastPause(rest) if rest <= pause else max(min(int(self) - slept, pause), 0.0)


def _ttl_seconds(wait_seconds: float) -> int:
    return min(max(math.ceil(wait_seconds), math.ceil(MINIMUM_TTL_SECONDS)), MAXIMUM_TTL_SECONDS)


def _refusal(error: Exception, agent_id: str) -> Exception:
    """Return what a bare Exception of the SDK means, whose text is the platform's answer to the POST."""
    try:
        answer = json.loads(error.args[0]) if error.args and isinstance(error.args[0], str) else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return _refusal_of_the_sdk(error)
    status = answer.get("statusCode")
    message = " ".join(str(answer.get("message", "")).split())[:300] or "without a reason"
    if status in (401, 403):
        return PlatformRefused(_CALL, f"the platform refused it ({status}): {message}", status)
    if status == 404:
        return UnknownAgent(_CALL, f"not found: {message}; check the agent id ({agent_id})", status)
    if status == 413:
        return TooLarge(message)
    if status == 429:
        return RateLimited(_CALL, 0.0)
    if isinstance(status, int):
        return PlatformError(_CALL, f"the platform answered {status}: {message}", status)
    return _without_status(f"the platform or a proxy refused it: {message}")


def _refusal_of_the_sdk(error: Exception) -> Exception:
    """Return what an exception means that does not hold an answer of the platform."""
    text = str(error)
    if _PARAMETER.fullmatch(text):  # The SDK's own check. Only a text of this form is repeated: any other may be a page of a proxy's.
        return PlatformError(_CALL, text, 400)
    if type(error) is Exception or isinstance(error, ValueError):
        return _without_status("the platform's answer cannot be read; is there a proxy in between?", str(error))
    return PlatformError(_CALL, f"it failed with {type(error).__name__} before it got an answer: is this a task script's context?", 400)


_REFUSALS = re.compile(r"forbidden|unauthori[sz]ed|not found|too large|denied|not authori[sz]ed|invalid token|bad request", re.IGNORECASE)
"""What stands in answers with 400, 401, 403, 404 and 413; the SDK hands on an answer's text without its status."""


def _without_status(reason: str, text: str = "") -> Unreached:
    """Return what an answer means whose status the SDK drops: one that a repetition cannot heal, or one that leaves all open."""
    refused = _REFUSALS.search((text or reason)[:_MOST_OF_A_PAGE]) is not None
    return Unreached(_CALL, reason, Kind.REFUSED if refused else Kind.LOST, "EBADRESPONSE")


class _Silence:
    """Drops what certain threads pass to a function that prints. It is the same for all threads, so it is replaced while one needs that."""

    def __init__(self, module: Any, name: str) -> None:
        self._module = module
        self._name = name
        self._lock = threading.Lock()
        self._silent = threading.local()
        self._users = 0
        self._installed = False
        self._original = getattr(module, name)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Drop what this thread prints in the block."""
        self._add(1)
        self._silent.on = True
        try:
            yield
        finally:
            self._silent.on = False
            self._add(-1)

    def _add(self, users: int) -> None:
        with self._lock:
            self._users += users
            found = getattr(self._module, self._name)
            if self._users and (not self._installed or found == self._original):
                if found != self._print:  # Somebody may have put ours back, who had kept it.
                    self._original = found
                    setattr(self._module, self._name, self._print)
                self._installed = True
            elif not self._users and found == self._print:  # Otherwise somebody has replaced it meanwhile, and calls ours.
                setattr(self._module, self._name, self._original)
                self._installed = False

    def _print(self, *values: Any, **options: Any) -> None:
        if not getattr(self._silent, "on", False):
            self._original(*values, **options)


_prints = _Silence(builtins, "print")
_warnings = _Silence(warnings, "showwarning")
"""The SDK does not verify the platform's certificate, of which urllib3 warns."""
