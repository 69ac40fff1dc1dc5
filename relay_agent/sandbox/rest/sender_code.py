"""How a sender would write a command that somebody sees on the page: in Python with `relay_session`, and for curl.

Owns these texts, which are to be copied and run. It must not render or route.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from relay_agent.core.errors import BadRequest
from relay_agent.core.models import ACTION_HTTP, ACTION_SECURE, HttpRequest
from relay_agent.pipelines.requests_adapter import as_sent, can_send
from relay_agent.protocol.requests import decode_request
from relay_agent.sandbox.commands import Command

_HEAD = """from relay_agent.pipelines import {client}, {names}relay_session
{setup}
session = relay_session({made}{keyring})
"""
_OTHER_ACTION = "# A session sends requests. What was sent has an action of its own, for which there is no call.\n"
_NO_ENCRYPTION = "# What was sent asks for an encrypted answer. A session does so when it is made with a keyring.\n"
_SAMPLE = "https://lims.lab.example/api/samples"
_DEFAULT_SECONDS = 30
_LEAST_TTL_SECONDS = 120
_MAX_CHARACTERS = 20_000
"""A longer body is left out of the texts: nobody copies it by hand."""


@dataclass(frozen=True, slots=True)
class SenderCode:
    """The same command for a task script, for any other Python, and for a shell."""

    task_script: str
    python: str
    curl: str


@dataclass(frozen=True, slots=True)
class _Call:
    """What is written before the session is made, and what is done with it."""

    imports: tuple[str, ...]
    text: str


def sender_code(command: Command, api_target: str) -> SenderCode:
    """Return the texts for a command of the sandbox at `api_target`; the caller's JWT is named, not shown."""
    secure = command.action == ACTION_SECURE
    call = _secure_call() if secure else _call(command.payload) if command.action == ACTION_HTTP else _Call((), _OTHER_ACTION)
    in_task = _head("ContextClient", f'ContextClient(context, "{command.target_id}")', secure, [], call.imports)
    setup = [f'api_target, org_slug, jwt = "{api_target}", "{command.org_slug}", os.environ["JWT"]']
    made = f'CommandClient(api_target, org_slug, jwt, "{command.target_id}")'
    elsewhere = _head("CommandClient", made, secure, setup, call.imports)
    shell = _secure_shell(command, api_target) if secure else _curl(command, api_target)
    return SenderCode(in_task + call.text, elsewhere + call.text, shell)


def _head(client: str, made: str, secure: bool, setup: list[str], imports: tuple[str, ...]) -> str:
    lines = [*setup, 'keyring = Keyring.from_text(os.environ["SECURE_COMMAND_KEY"])'] if secure else setup
    text = _HEAD.format(
        client=client,
        names="Keyring, " if secure else "",
        setup="".join(f"\n{line}" for line in lines),
        made=made,
        keyring=", keyring=keyring" if secure else "",
    )
    modules = sorted({*imports, *(["import os"] if lines else [])})
    return ("\n".join(modules) + f"\n\n{text}" if modules else text).replace("\n\n\n", "\n\n")


def _secure_call() -> _Call:
    call = _call({"url": _SAMPLE})
    return replace(call, text="# What was sent is sealed. Any request is sent like this one:\n" + call.text)


# --- Python ---


def _call(payload: dict[str, Any]) -> _Call:
    try:
        request = decode_request(payload)
        fields = list(decode_request({**payload, "body": None}).headers)
    except BadRequest as error:
        return _Call((), f"# The agent refuses what was sent, and so no call sends it: {' '.join(str(error).split())}\n")
    body = _body(payload.get("body"), request, own_type=any(name.lower() == "content-type" for name, _ in fields))
    if body.as_bytes:
        fields = list(request.headers)  # With the Content-Type that the mode of the body made.
    options = [f"timeout={payload.get('timeout') or _DEFAULT_SECONDS!r}"]
    options += ["verify=False"] if request.ignore_tls_certificate else []
    options += ["allow_redirects=False"] if not request.follow_redirects else []
    call = _prepared if _would_change(request, str(payload["url"]), fields) else _direct
    made = call(request.method, str(payload["url"]), fields, body, options)
    before = body.before + (_NO_ENCRYPTION if request.encrypt_response else "")
    return _Call((*body.imports, *made.imports), f"{before}{made.text}print(answer.status_code, answer.text)\n")


def _direct(method: str, url: str, fields: list[tuple[str, str]], body: _Body, options: list[str]) -> _Call:
    headers = [f"headers={dict(fields)!r}"] if fields else []
    arguments = [json.dumps(method), repr(url), *headers, *body.arguments, *options]
    return _Call((), f"answer = session.request({', '.join(arguments)})\n")


def _would_change(request: HttpRequest, url: str, fields: list[tuple[str, str]]) -> bool:
    """Return whether requests changes or refuses what it is given.

    It rewrites URLs, has each header's name once, refuses a leading blank in a value, and makes capitals of methods.
    """
    repeated = max(Counter(name.lower() for name, _ in fields).values(), default=0) > 1
    refused = any(value[:1].isspace() for _, value in fields)
    return request.method != request.method.upper() or repeated or refused or _rewritten(url, request)


def _rewritten(url: str, request: HttpRequest) -> bool:
    if not can_send(url):
        return True
    return decode_request({"url": as_sent(url)}).url != request.url


def _prepared(method: str, url: str, fields: list[tuple[str, str]], body: _Body, options: list[str]) -> _Call:
    # Any URL that requests takes: the next lines put the real one in its place.
    arguments = ", ".join([json.dumps(method), repr(url if can_send(url) else _SAMPLE), *body.arguments])
    lines = [
        f"request = session.prepare_request(requests.Request({arguments}))",
        f"fields = {fields!r}",
        "names = {name.lower() for name, _ in fields}",
        "kept = [(name, value) for name, value in request.headers.items() if name.lower() not in names]",
        "request.headers = HTTPHeaderDict([*kept, *fields])  # requests itself has each name once",
        *([f"request.method = {method!r}  # requests itself makes capitals of it"] if method != method.upper() else []),
        f"request.url = {url!r}  # requests itself may rewrite it",
        f"answer = session.send(request, {', '.join(options)})",
    ]
    return _Call(("import requests", "from urllib3 import HTTPHeaderDict"), "\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class _Body:
    """How the body is written: the arguments of requests for it, and the lines that they need before them."""

    arguments: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    before: str = ""
    as_bytes: bool = False


def _body(body: Any, request: HttpRequest, *, own_type: bool) -> _Body:
    """Return the body in the words of requests if they make the same of it, else its bytes."""
    data = request.body if isinstance(request.body, bytes) else b""
    if not data:
        return _Body(as_bytes=True)
    value = body.get(str(body.get("mode"))) if isinstance(body, dict) else body
    if len(json.dumps(value)) > _MAX_CHARACTERS:
        before = f"# The body is too long to be shown here: put its {len(data):,} bytes into this file first.\n"
        return _Body(("data=body",), (), f'{before}with open("body.bin", "rb") as file:\n    body = file.read()\n\n', as_bytes=True)
    mode = body.get("mode") if isinstance(body, dict) else "raw"
    if mode == "raw":
        return _Body((f"data={str(value)!r}.encode()",))
    if mode == "urlencoded" and not own_type:
        return _Body((f"data={[(part['key'], part.get('value', '')) for part in _parts(value)]!r}",))
    files = [_file(part) for part in _parts(value)] if mode == "formdata" and not own_type else []
    if files:
        return _Body((f"files=[{', '.join(files)}]",))
    return _Body((f"data=base64.b64decode({base64.b64encode(data).decode()!r})",), ("import base64",), as_bytes=True)


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    return (part for part in value if part.get("disabled") is not True)


def _file(part: dict[str, Any]) -> str:
    """Return one part of a form, as `files` of requests takes it: name, file name, content, type."""
    if part.get("type") != "file":
        content = [repr(part.get("value", "")), *([repr(part["contentType"])] if part.get("contentType") else [])]
        return f"({part['key']!r}, (None, {', '.join(content)}))"
    data = base64.b64decode(part["base64"])
    kind = part.get("contentType") or "application/octet-stream"
    return f"({part['key']!r}, ({part.get('filename', 'file')!r}, {data!r}, {kind!r}))"


# --- a shell ---


def _curl(command: Command, api_target: str) -> str:
    # Without `not_after`, which has passed when this is run: the agent starts it until it expires.
    payload = {name: value for name, value in command.payload.items() if name != "not_after"}
    if len(json.dumps(payload)) > _MAX_CHARACTERS:
        return "# The payload is too long to be shown here, and so there is no command to copy: use Python, or relay-agent send -d @FILE.\n"
    body = json.dumps({"targetId": command.target_id, "action": command.action, "payload": payload})
    quoted = f"{shlex.quote(body[:-1] + ', ' + _EXPIRES)}\"$(date -u -d '+{_ttl_seconds(payload)} seconds' +%FT%TZ)\"{shlex.quote(_END)}"
    fields = f'-H "ts-auth-token: $JWT" -H {shlex.quote(f"x-org-slug: {command.org_slug}")}'
    return (
        f"curl {shlex.quote(api_target + '/v1/commands')} {fields} -H 'Content-Type: application/json' \\\n  -d {quoted}\n"
        f'# The response holds "id". Repeat this until "status" is SUCCESS, FAILURE, REJECTED or EXPIRED:\n'
        f"curl {shlex.quote(api_target + '/v1/commands')}/ID {fields}\n"
    )


_EXPIRES, _END = '"expiresAt": "', '"}'


def _ttl_seconds(payload: dict[str, Any]) -> int:
    """Return how long the command lives: longer than its request may take."""
    timeout = payload.get("timeout")
    return max(_LEAST_TTL_SECONDS, int(min(timeout, 1e9)) + 60) if isinstance(timeout, int | float) else _LEAST_TTL_SECONDS


def _secure_shell(command: Command, api_target: str) -> str:
    settings = {"API_TARGET": api_target, "ORG_SLUG": command.org_slug, "AGENT_ID": command.target_id}
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    return (
        "# What was sent is sealed, and the agent accepts it only once: sent again, it ends as EREPLAY.\n"
        "# This seals and sends a new request, with the key in SECURE_COMMAND_KEY and the token in JWT:\n"
        f"{given} relay-agent send --secure {_SAMPLE}\n"
    )
