"""What a contender is given to do: commands, when they are released, and what each answer must be."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from relay_agent.protocol.jwe import seal_command
from tests.bench.checking import Text, fnv1a
from tests.bench.contenders import keyring
from tests.bench.places import AGENT_ID, HTTP_REQUEST, SECURE_REQUEST
from tests.bench.processes import BareSqs, Target

Json = dict[str, Any]
TEXT = Text()
LIFETIME = timedelta(hours=2)
ONE_GROUP = "g"


@dataclass(slots=True)
class Load:
    """Commands that are ready to be released, and the body that each answer must have."""

    messages: list[Json]
    expected: dict[str, str]
    pause: float | None = None
    sealed: bool = False


@dataclass(frozen=True)
class Maker:
    """Where the commands of a load lead."""

    sqs: BareSqs
    target: Target


@dataclass(frozen=True)
class Work:
    """One kind of work. `fewer` is the number of commands for a contender that is slow."""

    name: str
    title: str
    make: Callable[[Maker, int], Load]
    commands: int
    fewer: int
    patience_seconds: float = 300.0
    whole_job: bool = False
    """Only a contender that makes the agent's promises can do it."""
    always: bool = False
    """Every round has it, even when the bench's time is over: the table is made of these."""
    ships: bool = False
    """The measurement ends when the log lines have been shipped too."""


def gets(maker: Maker, commands: int, path: str, size: int, *, host: Callable[[int], int] = lambda _number: 0) -> Load:
    """GET commands in one group; `path` is followed by the id."""
    messages, expected = [], {}
    for number in range(commands):
        command_id = str(uuid.uuid4())
        join = "&" if "?" in path else "?"
        url = maker.target.url(f"{path}{join}id={command_id}", host(number))
        messages.append(message(maker, command_id, {"method": "GET", "url": url}))
        expected[command_id] = TEXT.answer(command_id, size)
    return Load(messages, expected)


def message(maker: Maker, command_id: str, payload: Json, action: str = HTTP_REQUEST, **more: Any) -> Json:
    """One message of the inbound queue (PROTOCOL §2)."""
    now = datetime.now(UTC)
    text = {
        "commandId": command_id,
        "targetId": AGENT_ID,
        "action": action,
        "createdAt": _iso(now),
        "expiresAt": _iso(now + LIFETIME),
        "body": payload,
        "bodyDelivery": "embedded",
        "responseBodyUploadUrl": f"{maker.sqs.url}/s3/{command_id}",
        **more,
    }
    return {"id": command_id, "body": json.dumps(text), "group": ONE_GROUP}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _apart(load: Load, seconds: float) -> Load:
    for number, each in enumerate(load.messages):
        each["after"] = number * seconds
    return load


def burst(maker: Maker, commands: int) -> Load:
    """All at once, answers of 1 KB."""
    return gets(maker, commands, "/1k", 1000)


def alone(maker: Maker, commands: int) -> Load:
    """One at a time: each is released a while after the last one's answer."""
    load = gets(maker, commands, "/1k", 1000)
    load.pause = 0.03
    return load


def steady(maker: Maker, commands: int) -> Load:
    """50 a second."""
    return _apart(gets(maker, commands, "/1k", 1000), 1 / 50)


def few(maker: Maker, commands: int) -> Load:
    """One a second."""
    return _apart(gets(maker, commands, "/1k", 1000), 1.0)


SLOW_HOSTS = 100
SLOW_MS = 5000


def one_slow(maker: Maker, commands: int) -> Load:
    """A hundred targets in turn; the first takes 5 s."""
    load = gets(maker, commands, "/1k", 1000, host=lambda number: number % SLOW_HOSTS)
    for number in range(0, commands, SLOW_HOSTS):
        each = load.messages[number]
        each["body"] = each["body"].replace("/1k?", f"/1k?ms={SLOW_MS}&")
    return load


def busy_host(maker: Maker, commands: int) -> Load:
    """One host alone, which takes 50 ms each time."""
    return gets(maker, commands, "/1k?ms=50", 1000)


POST_BYTES = 1_000_000


def posts(maker: Maker, commands: int) -> Load:
    """POST with 1 MB: the payload is behind a URL, as the platform does with what does not fit a message."""
    raw = TEXT.answer("post", POST_BYTES)
    summed = f"{fnv1a(raw.encode()):016x}"
    messages, expected = [], {}
    for _ in range(commands):
        command_id = str(uuid.uuid4())
        url = maker.target.url(f"/post?id={command_id}")
        payload = {"method": "POST", "url": url, "headers": [{"Content-Type": "text/plain"}], "body": {"mode": "raw", "raw": raw}}
        kept = maker.sqs.put_blob(f"{command_id}.json", json.dumps(payload).encode())
        messages.append(message(maker, command_id, {}, body=None, bodyDelivery="referenced", bodyUrl=kept))
        expected[command_id] = f"{command_id} {POST_BYTES} {summed}"
    return Load(messages, expected)


def answers_1m(maker: Maker, commands: int) -> Load:
    """Answers of 1 MB."""
    return gets(maker, commands, "/1m", 1_000_000)


def answers_50m(maker: Maker, commands: int) -> Load:
    """Answers of 50 MB."""
    return gets(maker, commands, "/50m", 50_000_000)


def secure(maker: Maker, commands: int) -> Load:
    """Secure commands with sealed answers."""
    keys = keyring()
    expiry = int(time.time() + LIFETIME.total_seconds())
    messages, expected = [], {}
    for _ in range(commands):
        command_id = str(uuid.uuid4())
        request = {"method": "GET", "url": maker.target.url(f"/1k?id={command_id}"), "encrypt_response": True}
        jwe = seal_command(json.dumps(request).encode(), keys, aud=AGENT_ID, exp=expiry, jti=command_id)
        messages.append(message(maker, command_id, {"jwe": jwe}, SECURE_REQUEST))
        expected[command_id] = TEXT.answer(command_id, 1000)
    return Load(messages, expected, sealed=True)


WORKS = (
    Work("alone", "one at a time, nothing beside it", alone, 100, 10, always=True),
    Work("burst", "all at once, in one message group", burst, 3000, 10, always=True, ships=True),
    Work("steady", "50 a second", steady, 200, 0),
    Work("few", "one a second", few, 5, 0),
    Work("one-slow", "100 targets in turn, one takes 5 s", one_slow, 300, 0),
    Work("busy-host", "one host alone that takes 50 ms", busy_host, 200, 0),
    Work("post-1m", "POST with 1 MB", posts, 20, 2),
    Work("answer-1m", "answers of 1 MB", answers_1m, 20, 2),
    Work("answer-50m", "answers of 50 MB", answers_50m, 1, 0),
    Work("secure", "secure commands, sealed answers", secure, 300, 0, whole_job=True),
)
