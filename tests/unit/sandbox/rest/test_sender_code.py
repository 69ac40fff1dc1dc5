"""The texts to copy: run, they send the same request again."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

import relay_agent.pipelines
from relay_agent.core.clock import iso
from relay_agent.core.models import ACTION_HTTP, ACTION_SECURE, HttpRequest
from relay_agent.pipelines.testing import LocalAgent
from relay_agent.protocol.requests import decode_request
from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.rest.sender_code import sender_code
from tests.sender_side import KEY

URL = 'https://lims.lab.example/api/it\'s?q=a%20b&"c"'
AS_SENT = str(requests.Request("GET", URL).prepare().url)
URLS = [
    "http://.lims.example/a",
    "http://*.example/a",
    URL,
    AS_SENT,
    "https://lims.lab.example/a/../b/%7e",
    "https://LIMS.lab.example:443/",
    "https://lims.lab.example/\u00e9[1]",
]
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def command(payload: dict[str, Any], action: str = ACTION_HTTP) -> Command:
    return Command("c-1", "acme", "agent-1", action, NOW, NOW + timedelta(minutes=2), NOW, payload)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> LocalAgent:
    """An agent that answers everything, in the place of both clients."""
    made = LocalAgent(answers=dict.fromkeys((*URLS, "https://lims.lab.example/api/samples"), (200, "fine")))
    for name in ("ContextClient", "CommandClient"):
        monkeypatch.setattr(relay_agent.pipelines, name, lambda *_arguments: made, raising=False)
    monkeypatch.setenv("JWT", "a.b.c")
    monkeypatch.setenv("SECURE_COMMAND_KEY", KEY)
    return made


PAYLOADS: list[dict[str, Any]] = [
    {"url": URL},
    {
        "method": "POST",
        "url": URL,
        "headers": [{"X-A": 'it\'s "x"'}, {"X-B": ["1", "2"]}],
        "body": {"mode": "raw", "raw": "é'\n\\"},
        "timeout": 7,
    },
    {"method": "PUT", "url": URL, "headers": {"X-A": "1"}, "body": "text", "ignore_tls_certificate": True, "follow_redirects": False},
    {"method": "PUT", "url": URL, "body": {"mode": "base64", "base64": "/wA="}},
    {"method": "POST", "url": URL, "body": {"mode": "urlencoded", "urlencoded": [{"key": "a", "value": "1 2"}, {"key": "é"}]}},
    {
        "method": "POST",
        "url": URL,
        "body": {"mode": "urlencoded", "urlencoded": [{"key": "a", "disabled": True}, {"key": "a", "value": "2"}]},
    },
    {"method": "POST", "url": URL, "headers": {"content-type": "x/y"}, "body": {"mode": "urlencoded", "urlencoded": [{"key": "a"}]}},
    {"method": "POST", "url": URL, "headers": [{"X-Two": "a"}, {"X-One": "1"}, {"x-two": "b"}], "body": "text"},
    {"method": "get", "url": URL},
    {"method": "DELETE", "url": URL, "body": {"mode": "raw", "raw": ""}},
    {"url": URL, "headers": {"X-A": " 1 "}},
    {"url": URL, "encrypt_response": True},
    {
        "method": "POST",
        "url": URL,
        "headers": [{"X-Two": "a"}, {"X-Two": "b"}],
        "body": {
            "mode": "formdata",
            "formdata": [
                {"key": "f", "type": "file", "filename": "ä.bin", "contentType": "text/csv", "base64": "SGVsbG8="},
                {"key": "g", "type": "file", "base64": "/wA="},
                {"key": "k", "value": "v'é", "type": "text"},
                {"key": "j", "value": "{}", "contentType": "application/json"},
                {"key": "left out", "value": "x", "disabled": True},
            ],
        },
    },
    {
        "method": "POST",
        "url": URL,
        "headers": {"Content-Type": "multipart/form-data; boundary=b0"},
        "body": {"mode": "formdata", "formdata": [{"key": "k", "value": "v"}]},
    },
    {"method": "POST", "url": URL, "body": {"mode": "formdata", "formdata": []}},
]


def fields_of(request: HttpRequest) -> tuple[dict[str, list[str]], bytes]:
    """The header fields by name, and the body; of a form without the boundary, which is a new one each time."""
    fields: dict[str, list[str]] = {}
    for name, value in request.headers:
        fields.setdefault(name.lower(), []).append(value)
    body = request.body or b""
    assert isinstance(body, bytes)
    boundary = re.search(r"boundary=([0-9a-f]{32})", str(fields.get("content-type")))
    if boundary:
        fields["content-type"] = [fields["content-type"][0].replace(boundary[1], "B")]
        body = body.replace(boundary[1].encode(), b"B")
    return fields, body


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_python_run_sends_the_same_request(payload: dict[str, Any], agent: LocalAgent, capsys: pytest.CaptureFixture[str]) -> None:
    code = sender_code(command(payload), "http://127.0.0.1:8088")
    expected = decode_request(payload)
    for text in (code.task_script, code.python):
        exec(text, {"context": object()})
        assert capsys.readouterr().out == "200 fine\n"
        sent = decode_request(agent.requests.pop())
        assert (sent.method, sent.ignore_tls_certificate) == (expected.method, expected.ignore_tls_certificate)
        assert sent.url == expected.url
        (wanted, body), (found, found_body) = fields_of(expected), fields_of(sent)
        assert {name: found.get(name) for name in wanted} == wanted and found_body == body
        assert set(found) - set(wanted) <= {"user-agent", "accept", "accept-encoding", "connection"}  # What requests adds to any request.


@pytest.mark.parametrize("url", URLS)
def test_python_run_asks_for_the_same_url(url: str, agent: LocalAgent) -> None:
    """By itself requests would refuse the first two, and make `/b/~` of the fifth."""
    exec(sender_code(command({"url": url}), "http://h").python, {})
    assert decode_request(agent.requests.pop()).url == decode_request({"url": url}).url


def test_a_secure_command_is_shown_as_any_that_is_sealed(agent: LocalAgent, capsys: pytest.CaptureFixture[str]) -> None:
    code = sender_code(command({"jwe": "a.b.c.d.e"}, ACTION_SECURE), "http://127.0.0.1:8088")
    for text in (code.task_script, code.python):
        exec(text, {"context": object()})
        assert "keyring=keyring" in text and capsys.readouterr().out == "200 fine\n"


def test_what_can_be_sent_only_once_is_not_sent_again_by_a_shell() -> None:
    text = sender_code(command({"jwe": "a.b.c.d.e"}, ACTION_SECURE), "http://127.0.0.1:8088").curl
    assert "EREPLAY" in text and "a.b.c" not in text and "curl" not in text
    shown = in_a_shell(text, "relay-agent")
    assert shown == ["send", "--secure", "https://lims.lab.example/api/samples", ""]


@pytest.mark.parametrize("body", ["x" * 30_000, {"mode": "base64", "base64": "AAAA" * 9_000}], ids=["text", "bytes"])
def test_a_body_that_is_not_shown_is_never_replaced_by_another(
    body: Any, agent: LocalAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    payload = {"url": URL, "method": "POST", "body": body}
    long = sender_code(command(payload), "http://h")
    assert len(long.python + long.curl) < 3000
    assert "too long to be shown" in long.curl and in_a_shell(long.curl, "curl") == [""]
    with pytest.raises(FileNotFoundError, match=r"body\.bin"):
        exec(long.python, {})
    assert not agent.requests
    expected = decode_request(payload).body
    assert isinstance(expected, bytes) and f"{len(expected):,} bytes" in long.python
    (tmp_path / "body.bin").write_bytes(expected)
    exec(long.python, {})
    assert decode_request(agent.requests[0]).body == expected


@pytest.mark.parametrize(
    "payload, action, words",
    [
        ({"url": "ftp://h/"}, ACTION_HTTP, "refuses what was sent, and so no call sends it: url: must be http or https"),
        ({"url": URL, "body": {"mode": "formdata", "formdata": [{}]}}, ACTION_HTTP, "refuses what was sent"),
        ({"url": URL}, "TetraScience.Connector.Nonsense", "an action of its own"),
    ],
)
def test_what_no_session_sends_is_said(payload: dict[str, Any], action: str, words: str, agent: LocalAgent) -> None:
    code = sender_code(command(payload, action), "http://h")
    exec(code.python, {})
    assert words in code.python and words in code.task_script and not agent.requests


def in_a_shell(text: str, program: str) -> list[str]:
    """The arguments of the first call of a program, which only prints them."""
    shown = subprocess.run(
        ["bash", "-c", program + '() { printf "%s\\0" "$@"; }\n' + text],
        env={"JWT": "a.b.c", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    ).stdout.decode()
    return shown.split("\0")


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_curl_s_words_are_those_of_a_shell(payload: dict[str, Any]) -> None:
    """Run with a curl that prints its arguments; the tests of the page use the real one's routes."""
    passed = {"not_after": iso(NOW), **payload}
    text = sender_code(command(passed), "http://127.0.0.1:8088").curl
    first = in_a_shell(text, "curl")
    assert first[0] == "http://127.0.0.1:8088/v1/commands" and "ts-auth-token: a.b.c" in first
    posted = json.loads(first[first.index("-d") + 1])
    assert posted["payload"] == payload and datetime.fromisoformat(posted["expiresAt"]) > datetime.now(UTC) + timedelta(seconds=100)
    assert (posted["targetId"], posted["action"]) == ("agent-1", ACTION_HTTP)


def test_a_copied_command_lives_longer_than_its_request_may_take() -> None:
    first = in_a_shell(sender_code(command({"url": URL, "timeout": 600}), "http://h").curl, "curl")
    posted = json.loads(first[first.index("-d") + 1])
    assert datetime.fromisoformat(posted["expiresAt"]) > datetime.now(UTC) + timedelta(seconds=630)
