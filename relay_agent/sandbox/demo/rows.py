"""The demo's commands, one of each kind, and how their answers are judged.

This module owns the requests and the judgement of the answers. It must not send anything through the platform, or print.
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from relay_agent.pipelines.encoding import Answer, request_payload

SLOW = "slow, 3 s"
_SLOW_SECONDS = 3.0
_FAST_SECONDS = 1.0
_BIG_BYTES = 5_000_000
_TIMEOUT_SECONDS = 10.0
_NO_SUCH_NAME = "no-such-name.invalid"  # RFC 6761 §6.4: such a name never exists.
_SAMPLE_ID = "S-000417"
_SAMPLE = json.dumps({"sample": _SAMPLE_ID, "well": "A01"})
_JSON = (("Content-Type", "application/json"),)


class Unexpected(Exception):
    """The answer is not the expected one; the message says why."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The URLs to send requests to: the target's two base URLs, and one whose port refuses connections."""

    http_url: str
    https_url: str
    refused_url: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer to one command. `seconds` is the time from its creation to its final status, by the platform's clock.

    `command` is the answer of `GET /v1/commands/{id}`; `under_way` names the commands that were not finished when this one was.
    """

    answer: Answer
    command: Mapping[str, Any] = field(repr=False)
    seconds: float
    referenced: bool = False
    under_way: frozenset[str] = frozenset()

    @property
    def summary(self) -> str:
        """Status and code, such as `FAILURE ECONNREFUSED`."""
        return f"{self.answer.status} {self.answer.status_code or self.answer.code}"

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            Unexpected: it is not one.
        """
        try:
            value = json.loads(self.answer.content())
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Unexpected("the body is not a JSON object")
        return value


Judge = Callable[[Completed, Addresses], str]
"""Returns in a few words what was right, or raises Unexpected."""


@dataclass(frozen=True, slots=True)
class Row:
    """One command: its name, the request in words, its payload, and the judge of its answer.

    `secure` sends it encrypted and asks for an encrypted answer; `background` lets the next rows start before it is finished.
    """

    name: str
    request: str
    payload: Callable[[Addresses], dict[str, Any]]
    judge: Judge
    secure: bool = False
    background: bool = False


def expect(holds: bool, problem: str) -> None:
    """Raise Unexpected with the problem if the condition does not hold."""
    if not holds:
        raise Unexpected(problem)


def expect_summary(completed: Completed, summary: str) -> None:
    """Raise Unexpected if status and code are not these."""
    expect(completed.summary == summary, f"should be {summary}")


def _get(path: str) -> Callable[[Addresses], dict[str, Any]]:
    return lambda addresses: request_payload("GET", addresses.http_url + path, (), None, _TIMEOUT_SECONDS)


def _post(addresses: Addresses) -> dict[str, Any]:
    return request_payload("POST", f"{addresses.http_url}/echo", _JSON, _SAMPLE.encode(), _TIMEOUT_SECONDS)


def _judge_json(completed: Completed, _addresses: Addresses) -> str:
    expect_summary(completed, "SUCCESS 200")
    reader = completed.json()
    expect(reader.get("serial") == "PR-1042", "the body is not the target's")
    return f"{reader.get('instrument')} PR-1042 is {reader.get('status')}"


def _judge_echo(completed: Completed, _addresses: Addresses) -> str:
    expect_summary(completed, "SUCCESS 200")
    echo = completed.json()
    expect(echo.get("method") == "POST" and echo.get("body") == _SAMPLE, "the target did not get what was sent")
    expect(list(_JSON[0]) in echo.get("headers", []), "the target did not get the Content-Type")
    return "the target received method, type and body unchanged"


def _judge_secure(completed: Completed, addresses: Addresses) -> str:
    _judge_echo(completed, addresses)
    expect("jwe" in (completed.command.get("responseBody") or {}), "the answer should be encrypted")
    expect(_SAMPLE_ID not in json.dumps(completed.command), "the platform should not have seen the sample")
    return "decrypted here; the platform saw only envelopes"


def _judge_404(completed: Completed, _addresses: Addresses) -> str:
    expect_summary(completed, "FAILURE 404")
    expect(completed.json() == {"status": 404}, "the body is not the target's")
    return "the target's own status and body"


def _judge_refused(completed: Completed, addresses: Addresses) -> str:
    expect_summary(completed, "FAILURE ECONNREFUSED")
    expect("statusCode" not in completed.answer.body, "there should be no statusCode")
    return f"no HTTP status: nothing listens at {urlsplit(addresses.refused_url).netloc}"


def _judge_name(completed: Completed, _addresses: Addresses) -> str:
    expect("statusCode" not in completed.answer.body, "there should be no statusCode")
    if completed.answer.status == "FAILURE" and completed.answer.code in ("EAI_AGAIN", "ETIMEDOUT"):
        return "this machine's DNS server does not answer; otherwise the code is ENOTFOUND"
    expect_summary(completed, "FAILURE ENOTFOUND")
    return "no HTTP status: the name does not exist"


def _judge_slow(completed: Completed, _addresses: Addresses) -> str:
    expect_summary(completed, "SUCCESS 200")
    expect(completed.seconds >= _SLOW_SECONDS, f"should have taken {_SLOW_SECONDS:g} s")
    return "did not delay the others"


def _judge_fast(completed: Completed, _addresses: Addresses) -> str:
    expect_summary(completed, "SUCCESS 200")
    expect(completed.seconds < _FAST_SECONDS, f"should take less than {_FAST_SECONDS:g} s")
    expect(SLOW in completed.under_way, "the slow command should still have been running")
    return "finished while the slow command was running"


def _judge_download(completed: Completed, direct: bytes) -> str:
    expect_summary(completed, "SUCCESS 200")
    content = completed.answer.content()
    digest = hashlib.sha256(content).hexdigest()
    expect(digest == hashlib.sha256(direct).hexdigest(), f"{len(content):,} bytes, not the {len(direct):,} that a direct call gets")
    return f"{len(content):,} bytes, SHA-256 {digest[:8]}, as in a direct call"


def _judge_binary(completed: Completed, addresses: Addresses) -> str:
    return _judge_download(completed, fetch(f"{addresses.http_url}/binary"))


def _judge_big(completed: Completed, addresses: Addresses) -> str:
    note = _judge_download(completed, fetch(f"{addresses.http_url}/big?bytes={_BIG_BYTES}"))
    expect(completed.referenced, "the answer should have been sent through S3")
    return f"through S3: {note}"


def _judge_redirect(completed: Completed, addresses: Addresses) -> str:
    expect_summary(completed, "SUCCESS 200")
    expect(completed.answer.body.get("url") == f"{addresses.http_url}/cookies", "should have ended at /cookies")
    cookie = completed.json().get("cookie")
    expect(cookie == "session=demo; step=1", "the cookies of the first answer should have been sent to the second page")
    return f"followed to /cookies with Cookie: {cookie}"


def _judge_https(completed: Completed, addresses: Addresses) -> str:
    _judge_json(completed, addresses)
    return "certificate verified against RELAY_CA_FILE"


ROWS = (
    Row("JSON GET", "GET /json", _get("/json"), _judge_json),
    Row("JSON POST", "POST /echo", _post, _judge_echo),
    Row("encrypted (V2)", "POST /echo", _post, _judge_secure, secure=True),
    Row("404", "GET /status/404", _get("/status/404"), _judge_404),
    Row(
        "refused port",
        "GET /",
        lambda addresses: request_payload("GET", addresses.refused_url, (), None, _TIMEOUT_SECONDS),
        _judge_refused,
    ),
    Row(
        "unknown name",
        f"GET {_NO_SUCH_NAME}",
        lambda _addresses: request_payload("GET", f"http://{_NO_SUCH_NAME}/", (), None, _TIMEOUT_SECONDS),
        _judge_name,
    ),
    Row(SLOW, "GET /slow?seconds=3", _get(f"/slow?seconds={_SLOW_SECONDS:g}"), _judge_slow, background=True),
    Row("fast, in parallel", "GET /json", _get("/json"), _judge_fast),
    Row("binary download", "GET /binary", _get("/binary"), _judge_binary),
    Row("5 MB answer", "GET /big", _get(f"/big?bytes={_BIG_BYTES}"), _judge_big),
    Row("redirect, cookies", "GET /redirect", _get("/redirect"), _judge_redirect),
    Row(
        "HTTPS",
        "GET https /json",
        lambda addresses: request_payload("GET", f"{addresses.https_url}/json", (), None, _TIMEOUT_SECONDS),
        _judge_https,
    ),
)


def fetch(url: str) -> bytes:
    """Get a plain-HTTP URL directly, not through the platform and the agent.

    Raises:
        Unexpected: the target does not answer.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        raise Unexpected(f"a direct call fails too ({type(error).__name__})") from None
    finally:
        connection.close()
