"""The senders' commands: `send`, `keygen`, `encrypt`, `decrypt` (docs/operations.md, "Envelopes").

Owns their options, output and exit codes. It must not know how commands reach the agent (`pipelines`) or how envelopes are made
(`protocol.jwe`).
"""

from __future__ import annotations

import http.client
import json
import math
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from relay_agent.cli.options import OneForWrongUsage, WrongUsage
from relay_agent.config.loading import load_keyring_text, load_settings
from relay_agent.config.settings import Settings
from relay_agent.core.clock import DAY_SECONDS, HOUR_SECONDS
from relay_agent.core.errors import BadRequest, ConfigurationError, RelayError, SecureCommandError
from relay_agent.core.exit_codes import EXIT_HTTP_ERROR
from relay_agent.pipelines.client import CommandClient
from relay_agent.pipelines.commands import DEFAULT_TIMEOUT_SECONDS
from relay_agent.pipelines.encoding import Answer, request_payload
from relay_agent.pipelines.session import platform_session
from relay_agent.protocol.jwe import MAX_VALID_SECONDS, generate_key, look_inside, open_answer, seal_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.protocol.requests import decode_payload, decode_request, take_envelope

DEFAULT_VALID_SECONDS = HOUR_SECONDS
FORM = "application/x-www-form-urlencoded"


class _SenderCommand(OneForWrongUsage):
    """Exits with 1 for every error (docs/operations.md, "Exit codes")."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            reason = "the configuration is invalid:\n  " + "\n  ".join(error.problems)
        except SecureCommandError as error:
            reason = f"{error.code}: {error}"
        except BadRequest as error:
            reason = f"EBADCOMMAND: {error}"
        except RelayError as error:
            reason = str(error)
        raise click.ClickException(reason)


@click.command(
    cls=_SenderCommand,
    epilog="""Examples:
  relay-agent send https://lims.lab.example/api/samples
  relay-agent send -d '{"id": 7}' -H 'Content-Type: application/json' https://lims.lab.example/api/samples
  relay-agent send --secure -o report.pdf https://lims.lab.example/report.pdf""",
)
@click.argument("url")
@click.option("-X", "--request", "method", metavar="M", help="The method; GET by default, POST with -d.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'N: v'", help="A header field; may be repeated.")
@click.option(
    "-d",
    "--data",
    metavar="DATA",
    multiple=True,
    help="The body; @FILE sends a file unchanged, @- sends stdin; several are joined with &.",
)
@click.option("--secure", is_flag=True, help="Encrypt the command and its answer (needs SECURE_COMMAND_KEY).")
@click.option("-i", "--include", is_flag=True, help="Print the status line and the header fields first.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write the body to FILE instead of stdout.")
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True, max=DAY_SECONDS),
    default=DEFAULT_TIMEOUT_SECONDS,
    show_default=True,
    help="The time limit of the whole request, in seconds.",
)
def send(
    url: str,
    method: str | None,
    headers: tuple[str, ...],
    data: tuple[str, ...],
    secure: bool,
    include: bool,
    output: str | None,
    timeout: float,
) -> None:
    """Let the agent call URL, and print the answer.

    Posts a command to the platform (API_TARGET, ORG_SLUG, AGENT_ID, JWT) and waits for its answer; the agent follows redirects.
    Exit codes: 0 success, 22 an HTTP error (400 and above), 1 anything else.
    """
    body = b"&".join(_data(part) for part in data) if data else None
    fields = _fields(headers, form=body is not None)
    payload = request_payload(method or ("GET" if body is None else "POST"), _url(url), fields, body, timeout)
    _judge(payload)
    settings = load_settings()
    keyring = _keyring(settings.secure_key.get()) if secure else None
    answer = _client(settings).exchange(payload, timeout_seconds=timeout, keyring=keyring)
    if not answer.http:
        raise click.ClickException(f"{answer.code}: {answer.message}")
    _print(answer, include, output)
    _finish(answer)


@click.command(
    cls=_SenderCommand,
    epilog="""Example:
  relay-agent keygen > secure-command.key""",
)
def keygen() -> None:
    """Print a new key for secure commands.

    Prints the key to stdout, and its kid and how to use it to stderr. Needs no configuration.
    """
    key = generate_key()
    click.echo(key)
    click.echo(
        f"kid {Keyring.from_text(key).kids[0]}: set SECURE_COMMAND_KEY to this key, for the agent and for every sender.\n"
        "To replace an old key: set `old,new` for the agent, then `new` for the senders, then `new,old` for the agent, and finally `new`\n"
        "(the agent decrypts with every key, and encrypts with the first).",
        err=True,
    )


@click.command(
    cls=_SenderCommand,
    epilog="""Example:
  echo '{"method": "GET", "url": "https://lims.lab.example/"}' | relay-agent encrypt --exp 300""",
)
@click.option(
    "--exp",
    "seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True, max=MAX_VALID_SECONDS),
    default=DEFAULT_VALID_SECONDS,
    show_default=True,
    help="How long the envelope is valid, in seconds; at most seven days.",
)
@click.option("--jti", metavar="ID", help="The id that lets the agent accept the envelope only once; random by default.")
@click.option("--agent-id", metavar="ID", help="The agent that may open it; AGENT_ID by default.")
def encrypt(seconds: float, jti: str | None, agent_id: str | None) -> None:
    """Encrypt a request from stdin for a secure command.

    Prints the payload {"jwe": "..."} of TetraScience.Connector.http.Request.V2, which only the named agent accepts, and only once.
    Needs SECURE_COMMAND_KEY, and AGENT_ID or --agent-id.
    """
    text = sys.stdin.buffer.read().strip()
    _judge(decode_payload(text))
    key, configured = load_keyring_text()
    keyring = _keyring(key)
    aud = agent_id or configured
    if not aud:
        raise click.ClickException("the envelope must name its agent: set AGENT_ID, or use --agent-id")
    exp = math.ceil((datetime.now(UTC) + timedelta(seconds=seconds)).timestamp())
    click.echo(json.dumps({"jwe": seal_command(text, keyring, aud=aud, exp=exp, jti=jti or str(uuid.uuid4()))}))


@click.command(
    cls=_SenderCommand,
    epilog="""Examples:
  relay-agent decrypt < response-body.json
  relay-agent decrypt --command 6f0c2a4e-6f1b-4c57-9f0e-4f6f5f0b8f0a --jti run-7 < response-body.json""",
)
@click.option("--command", "command_id", metavar="ID", help="Decrypt it only if it is the answer to this command.")
@click.option("--jti", metavar="ID", help="With --command: the jti of the command, if that was secure.")
def decrypt(command_id: str | None, jti: str | None) -> None:
    """Decrypt an envelope from stdin, and print its content.

    Accepts a JWE, or the JSON object of a request or response that contains one; prints to stderr whether it is a relay-command or a
    relay-answer. Only --command with --jti proves that it is the answer to a certain command. Needs SECURE_COMMAND_KEY.
    """
    if jti is not None and command_id is None:
        raise WrongUsage("--jti needs --command")
    text = sys.stdin.buffer.read().strip()
    jwe = take_envelope(decode_payload(text)) if text.startswith(b"{") else text.decode("ascii", "replace")
    key, _ = load_keyring_text()
    keyring = _keyring(key)
    if command_id is not None:
        _write(open_answer(jwe, keyring, cid=command_id, jti=jti))
        return
    kind, plaintext = look_inside(jwe, keyring)
    click.echo(f"typ: {kind}", err=True)
    _write(plaintext)


COMMANDS = (send, keygen, encrypt, decrypt)


def _judge(payload: object) -> None:
    """Report here what the agent would refuse, before anything is sent (PROTOCOL §3)."""
    for warning in decode_request(payload).warnings:
        click.echo(f"warning: {warning}", err=True)


def _keyring(text: str | None) -> Keyring:
    keyring = Keyring.from_text(text or "")
    if not keyring:
        raise click.ClickException("ENOKEY: SECURE_COMMAND_KEY is not set; set it (or SECURE_COMMAND_KEY_FILE) to the agent's key")
    return keyring


def _client(settings: Settings) -> CommandClient:
    return CommandClient(settings.api_target, settings.org_slug, settings.token.get(), settings.agent_id, platform_session(settings))


def _url(url: str) -> str:
    return url if "://" in url else f"http://{url}"  # as curl does


def _data(data: str) -> bytes:
    if not data.startswith("@"):
        return os.fsencode(data)
    if data == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise click.ClickException(f"cannot read {data[1:]}: {error.strerror}") from None


def _fields(lines: tuple[str, ...], *, form: bool) -> list[tuple[str, str]]:
    """Read header lines like curl: `N: v`, `N;` for an empty value, `N:` for no such header."""
    fields = [_field(line) for line in lines]
    if form and not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", FORM))
    return [(name, value) for name, value in fields if value is not None]


def _field(line: str) -> tuple[str, str | None]:
    name, colon, value = line.partition(":")
    if not colon and not name.endswith(";"):
        raise click.ClickException("-H takes 'Name: value'")
    if not colon:
        return name[:-1], ""
    value = value.strip(" \t")
    # The bytes typed are the bytes sent; the command carries them as ISO-8859-1 (PROTOCOL §3).
    return name, os.fsencode(value).decode("latin-1") if value else None


def _print(answer: Answer, include: bool, output: str | None) -> None:
    content = answer.content()
    if include:
        _write(_head(answer))
    if output is None or output == "-":
        _write(content)
        return
    try:
        Path(output).write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from None


def _head(answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status_code} {_reason(answer)}".rstrip(), *(f"{name}: {value}" for name, value in answer.headers())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1", "replace")


def _reason(answer: Answer) -> str:
    return http.client.responses.get(answer.status_code or 0, "")


def _write(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        # The rest stays in the buffer: keep the interpreter from writing it again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.ClickException(f"cannot write the answer: {error.strerror}") from None


def _finish(answer: Answer) -> None:
    if answer.status_code is not None and answer.status_code >= 400:
        click.echo(f"HTTP {answer.status_code} {_reason(answer)}".rstrip(), err=True)
        sys.exit(EXIT_HTTP_ERROR)
    if answer.status != "SUCCESS":
        raise click.ClickException(f"the command ended as {answer.status}")
