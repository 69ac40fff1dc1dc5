"""The senders' commands `send`, `keygen`, `encrypt`, `decrypt`: what they accept, print and end with."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay_agent.cli.send import decrypt, encrypt, keygen, send
from relay_agent.protocol.jwe import MAX_VALID_SECONDS, generate_key, seal_answer, seal_command
from relay_agent.protocol.keyring import Keyring
from tests.sender_side import AGENT, KEY, RING, TOKEN, URL, Platform, answer, failure, opened, sealed, seconds_ahead


@pytest.fixture
def configured(environment: pytest.MonkeyPatch, served: tuple[Platform, str]) -> dict[str, str]:
    return {"API_TARGET": served[1], "ORG_SLUG": "acme", "AGENT_ID": AGENT, "JWT": TOKEN}


def run(command: Any, *args: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(command, args, input=stdin, env=env)


def test_send_prints_the_body_byte_for_byte(configured: dict[str, str], platform: Platform) -> None:
    platform.agent = lambda _payload: answer(body=base64.b64encode(b"\x00\xff\r\n").decode(), encoding="base64")
    result = run(send, URL, env=configured)
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"\x00\xff\r\n", "")
    payload = platform.created[0]["payload"]
    assert 59 < seconds_ahead(payload.pop("not_after")) <= 60
    assert payload == {"method": "GET", "url": URL, "headers": [], "timeout": 60.0}


def test_send_d_posts_a_form_as_curl_does(configured: dict[str, str], platform: Platform) -> None:
    run(send, "-d", "a=1&b=\u00e9", "target.example/x", env=configured)
    payload = platform.created[0]["payload"]
    assert (payload["method"], payload["url"]) == ("POST", "http://target.example/x")
    assert payload["headers"] == [{"Content-Type": "application/x-www-form-urlencoded"}]
    assert payload["body"] == {"mode": "raw", "raw": "a=1&b=\u00e9"}


def test_send_h_keeps_order_repeats_and_bytes(configured: dict[str, str], platform: Platform) -> None:
    lines = ["X-A: 1", "content-type:text/csv", "X-A:  \u00e9 ", "X-E;"]
    run(send, URL, "-X", "PUT", "-d", "x", *[part for line in lines for part in ("-H", line)], env=configured)
    payload = platform.created[0]["payload"]
    assert payload["method"] == "PUT"
    assert payload["headers"] == [{"X-A": "1"}, {"content-type": "text/csv"}, {"X-A": "\u00c3\u00a9"}, {"X-E": ""}]


def test_send_h_without_a_value_takes_the_default_away(configured: dict[str, str], platform: Platform) -> None:
    run(send, URL, "-H", "Content-Type:", "-d", "x", env=configured)
    assert platform.created[0]["payload"]["headers"] == []


def test_send_d_takes_a_file_and_stdin_as_they_are(configured: dict[str, str], platform: Platform) -> None:
    Path("data.csv").write_bytes(b"a,b\r\n1,2\n")
    run(send, URL, "-d", "@data.csv", env=configured)
    run(send, URL, "-d", "@-", env=configured, stdin=b"\xff")
    assert platform.created[0]["payload"]["body"]["raw"] == "a,b\r\n1,2\n"
    assert platform.created[1]["payload"]["body"] == {"mode": "base64", "base64": "/w=="}


def test_send_timeout_is_the_commands_own_and_its_expiry(configured: dict[str, str], platform: Platform) -> None:
    run(send, URL, "--timeout", "2.5", env=configured)
    run(send, URL, "--timeout", "300", env=configured)
    assert [command["payload"]["timeout"] for command in platform.created] == [2.5, 300.0]
    ahead = [seconds_ahead(command["expiresAt"]) for command in platform.created]
    assert 60 < ahead[0] < 70 and 290 < ahead[1] <= 300


def test_send_i_prints_the_head_and_o_writes_the_body(configured: dict[str, str], platform: Platform) -> None:
    platform.agent = lambda _payload: answer(201, [{"Content-Type": "text/plain"}, {"Set-Cookie": ["a=1", "b=2"]}], "body")
    head = b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
    assert run(send, "-i", URL, env=configured).stdout_bytes == head + b"body"
    result = run(send, "-i", "-o", "out", URL, env=configured)
    assert result.stdout_bytes == head and Path("out").read_bytes() == b"body"


def test_send_ends_with_22_on_an_http_error_and_prints_its_body(configured: dict[str, str], platform: Platform) -> None:
    platform.agent = lambda _payload: answer(404, body="no such sample")
    result = run(send, URL, env=configured)
    assert (result.exit_code, result.stdout, result.stderr) == (22, "no such sample", "HTTP 404 Not Found\n")


@pytest.mark.parametrize(
    "found, words",
    [
        (failure("ECONNREFUSED", "connect ECONNREFUSED 10.1.2.3:443"), "ECONNREFUSED: connect ECONNREFUSED 10.1.2.3:443"),
        (failure("UNKNOWN_COMMAND", "not ours", "REJECTED"), "UNKNOWN_COMMAND: not ours"),
        (("EXPIRED", None), "EXPIRED: the agent did not answer before"),
        (("SUCCESS", {"statusCode": 200, "body": 5}), "body must be a string"),
        (("FAILURE", {"statusCode": 200, "headers": [], "code": "ECONNRESET", "message": "lost"}), "ECONNRESET: lost"),
    ],
)
def test_send_ends_with_1_and_says_why(configured: dict[str, str], platform: Platform, found: Any, words: str) -> None:
    platform.agent = lambda _payload: found
    result = run(send, URL, env=configured)
    assert (result.exit_code, result.stdout) == (1, "") and words in result.stderr


@pytest.mark.parametrize(
    "args, words",
    [
        (["ftp://x/"], "EBADCOMMAND: url: must be http or https"),
        (["http://x/", "-H", "nonsense"], "-H takes 'Name: value'"),
        (["http://x/", "-H", "a b: c"], "EBADCOMMAND: headers[0]"),
        (["http://x/", "-d", "@missing"], "cannot read missing: No such file"),
        (["http://x/", "--timeout", "soon"], "Invalid value for '--timeout'"),
        (["http://x/", "--timeout", "0"], "Invalid value for '--timeout'"),
        (["http://x/", "--nonsense"], "No such option"),
        ([], "Missing argument 'URL'"),
        (["http://x/", "--secure"], "ENOKEY: SECURE_COMMAND_KEY is not set"),
    ],
)
def test_send_refuses_a_mistake_before_anything_is_sent(
    configured: dict[str, str], platform: Platform, args: list[str], words: str
) -> None:
    result = run(send, *args, env=configured)
    assert result.exit_code == 1 and words in result.stderr and not platform.created


def test_send_without_a_configuration_names_all_that_is_missing(environment: pytest.MonkeyPatch) -> None:
    result = run(send, URL)
    assert result.exit_code == 1
    for name in ("API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT"):
        assert f"{name}: is not set" in result.stderr


def test_send_reports_what_is_wrong_with_the_platform(configured: dict[str, str], platform: Platform) -> None:
    platform.refusals = [(403, {}, b"")]
    result = run(send, URL, env=configured)
    assert result.exit_code == 1 and "JWT and ORG_SLUG" in result.stderr and TOKEN not in result.output
    result = run(send, URL, env=configured | {"API_TARGET": "http://127.0.0.1:9"})
    assert result.exit_code == 1 and "cannot reach 127.0.0.1" in result.stderr


def test_send_secure_encrypts_both_ways(configured: dict[str, str], platform: Platform) -> None:
    def agent(payload: dict[str, Any]) -> tuple[str, Any]:
        question = opened(payload)
        status, found = answer(418, body=json.loads(question.plaintext)["body"]["raw"])
        return status, sealed(found, question.jti)

    platform.agent = agent
    result = run(send, "--secure", "-d", "hush", URL, env=configured | {"SECURE_COMMAND_KEY": KEY})
    assert (result.exit_code, result.stdout) == (22, "hush")
    assert "hush" not in json.dumps(platform.created) and KEY not in result.output


def test_keygen_prints_a_new_key_alone_on_stdout(environment: pytest.MonkeyPatch) -> None:
    first, second = run(keygen), run(keygen)
    assert first.exit_code == 0 and first.stdout != second.stdout
    keyring = Keyring.from_text(first.stdout)
    assert first.stdout == first.stdout.strip() + "\n" and keyring.kids[0] in first.stderr
    assert first.stdout.strip() not in first.stderr


def test_encrypt_makes_the_payload_of_a_secure_command(environment: pytest.MonkeyPatch) -> None:
    request = b'{"method": "GET", "url": "https://target.example/"}\n'
    result = run(encrypt, "--exp", "60", env={"SECURE_COMMAND_KEY": KEY, "AGENT_ID": AGENT}, stdin=request)
    assert result.exit_code == 0, result.output
    jwe = json.loads(result.stdout)["jwe"]
    found = opened({"jwe": jwe})
    assert found.plaintext == request.strip()
    assert 50 < found.exp - datetime.now(UTC).timestamp() <= 61
    header = json.loads(base64.urlsafe_b64decode(jwe.split(".")[0] + "=="))
    assert (header["typ"], header["aud"]) == ("relay-command", AGENT)


def test_encrypt_needs_nothing_but_the_key_and_for_whom_it_is(environment: pytest.MonkeyPatch) -> None:
    Path("key").write_text(KEY, encoding="ascii")
    request, given = b'{"url": "http://x/"}', {"SECURE_COMMAND_KEY_FILE": "key"}
    result = run(encrypt, "--jti", "once", "--agent-id", "any", env=given | {"AGENT_ID": AGENT}, stdin=request)
    found = opened(json.loads(result.stdout), "any")
    assert (found.jti, found.exp > datetime.now(UTC).timestamp() + 3000) == ("once", True)
    result = run(encrypt, env=given, stdin=request)
    assert (result.exit_code, result.stdout, "AGENT_ID" in result.stderr) == (1, "", True)


def test_encrypt_makes_two_envelopes_of_one_request_good_for_one_use_each(environment: pytest.MonkeyPatch) -> None:
    given = {"SECURE_COMMAND_KEY": KEY, "AGENT_ID": AGENT}
    made = [run(encrypt, env=given, stdin=b'{"url": "http://x/"}').stdout for _ in range(2)]
    assert len({opened(json.loads(text)).jti for text in made}) == 2


def test_encrypt_makes_nothing_that_the_agent_would_find_too_long_valid(environment: pytest.MonkeyPatch) -> None:
    given = {"SECURE_COMMAND_KEY": KEY, "AGENT_ID": AGENT}
    result = run(encrypt, "--exp", str(MAX_VALID_SECONDS + 1), env=given, stdin=b'{"url": "http://x/"}')
    assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize(
    "wrap", [lambda jwe: jwe, lambda jwe: json.dumps({"jwe": jwe}), lambda jwe: json.dumps({"statusCode": 200, "jwe": jwe})]
)
def test_decrypt_prints_what_an_envelope_holds(environment: pytest.MonkeyPatch, wrap: Callable[[str], str]) -> None:
    for kind, jwe in (
        ("relay-command", seal_command(b'{"a": "\xc3\xa9"}', RING, aud="another agent", exp=1, jti="one")),
        ("relay-answer", "".join(seal_answer([b'{"a": "\xc3\xa9"}'], RING, cid="any"))),
    ):
        result = run(decrypt, env={"SECURE_COMMAND_KEY": KEY}, stdin=f" {wrap(jwe)}\n".encode())
        assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b'{"a": "\xc3\xa9"}', f"typ: {kind}\n")


def test_decrypt_with_a_command_s_id_and_jti_opens_its_answer_and_no_other(environment: pytest.MonkeyPatch) -> None:
    def opens(*options: str, cid: str = "mine", jti: str | None = "once") -> bool:
        text = json.dumps(sealed(answer(body="canary")[1], jti, cid)).encode()
        result = run(decrypt, *options, env={"SECURE_COMMAND_KEY": KEY}, stdin=text)
        assert (result.exit_code == 0) == ("canary" in result.output)
        return result.exit_code == 0

    secure, plain = ("--command", "mine", "--jti", "once"), ("--command", "mine")
    assert opens(*secure)
    assert opens(*plain, jti=None)
    assert not opens(*secure, cid="another's")
    assert not opens(*secure, jti="another's")
    assert not opens(*secure, jti=None)
    assert not opens(*plain)
    assert not opens("--jti", "once")


@pytest.mark.parametrize(
    "command, stdin, key, words",
    [
        (encrypt, b"[1]", KEY, "EBADCOMMAND: payload: must be an object"),
        (encrypt, b"{", KEY, "EBADCOMMAND: payload"),
        (encrypt, b"\xff", KEY, "EBADCOMMAND: payload"),
        (encrypt, b'{"url": 5}', KEY, "EBADCOMMAND: url"),
        (encrypt, b'{"url": "http://x/"}', "", "ENOKEY"),
        (encrypt, b'{"url": "http://x/"}', "canary-no-key", "SECURE_COMMAND_KEY: "),
        (decrypt, b"x", "", "ENOKEY"),
        (decrypt, b"", KEY, "EDECRYPT"),
        (decrypt, b"\xff.a.b.c.d", KEY, "EDECRYPT"),
        (decrypt, b'{"jwe": 1}', KEY, "jwe"),
        (decrypt, sealed(answer(body="canary")[1], None, ring=Keyring.from_text(generate_key()))["jwe"].encode(), KEY, "EDECRYPT: no key"),
    ],
    ids=range(11),
)
def test_a_refused_envelope_ends_with_1_and_nothing_secret(
    environment: pytest.MonkeyPatch, command: Any, stdin: bytes, key: str, words: str
) -> None:
    result = run(command, env={"SECURE_COMMAND_KEY": key}, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "") and words in result.stderr
    assert "canary" not in result.output and (not key or key not in result.output)


@pytest.mark.parametrize("command", [send, keygen, encrypt, decrypt])
def test_every_help_shows_an_example(environment: pytest.MonkeyPatch, command: Any) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0 and f"relay-agent {command.name}" in result.stdout and "Example" in result.stdout
