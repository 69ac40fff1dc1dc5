"""Envelopes of secure commands and answers: hostile ones, valid ones with any header, and valid ones that were altered."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from relay_agent.core.errors import SecureCommandError
from relay_agent.core.failures import Code
from relay_agent.protocol import jwe
from relay_agent.protocol.keyring import Keyring
from tests.envelopes import by_hand
from tests.fuzz.harness import PLANTED, Harness, check_refusal, joined, parts, text

KEY = bytes(range(32))
KEYS = Keyring([bytes(32), KEY])
NOW = datetime(2026, 11, 28, tzinfo=UTC)
AGENT, COMMAND_ID, JTI = "agent-1", "command-1", "jti-1"
EXPIRY = int(NOW.timestamp()) + 300
COMMAND = {"alg": "dir", "enc": "A256GCM", "typ": jwe.COMMAND, "aud": AGENT, "exp": EXPIRY, "jti": JTI}
ANSWER = {"alg": "dir", "enc": "A256GCM", "typ": jwe.ANSWER, "cid": COMMAND_ID, "cjti": JTI}
VALID = by_hand(COMMAND, PLANTED.encode(), KEY)
VALID_ANSWER = by_hand(ANSWER, PLANTED.encode(), KEY)
_T = TypeVar("_T")


def hostile(data: bytes) -> None:
    """No text but an envelope is opened, and any is refused for a reason that can be shown."""
    envelope = text(data)
    opened = open_all(envelope)
    assert not any(opened) or envelope.count(".") == 4


def headers(data: bytes) -> None:
    """An envelope that was made with the key is opened if its header keeps the rules, and only as what its header says."""
    header, plaintext = parts(data, 2)
    plaintext += PLANTED.encode()
    command, answer, inside = open_all(by_hand(text(header), plaintext, KEY))
    assert not (command and answer), "both a command and an answer"
    if command is None and answer is None:
        return
    assert inside is not None and inside[1] == plaintext
    claims = json.loads(header)
    if isinstance(command, jwe.Opened):
        assert command.plaintext == plaintext and (claims["aud"], claims["jti"]) == (AGENT, command.jti)
        assert command.exp == math.ceil(claims["exp"]) and 0 <= command.exp - NOW.timestamp() <= jwe.MAX_VALID_SECONDS + 1
        assert command.jti.isprintable() and PLANTED not in repr(command)
    else:
        assert answer == plaintext and claims["cid"] == COMMAND_ID


def altered(data: bytes) -> None:
    """A valid envelope with any change is not opened."""
    start, length, put = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
    for valid, opened in ((VALID, open_command), (VALID_ANSWER, open_answer)):
        where = len(valid) * start[0] // 256
        changed = valid[:where] + text(put) + valid[where + length[0] :]
        assert (attempted(opened, changed) is not None) == (changed == valid), "opened, though altered"


def open_all(envelope: str) -> tuple[jwe.Opened | None, bytes | None, tuple[str, bytes] | None]:
    """What each function makes of an envelope."""
    return (
        attempted(open_command, envelope),
        attempted(open_answer, envelope),
        attempted(lambda each: jwe.look_inside(each, KEYS), envelope),
    )


def open_command(envelope: str) -> jwe.Opened:
    """Open it as this agent."""
    return jwe.open_command(envelope, KEYS, agent_id=AGENT, now=NOW)


def open_answer(envelope: str) -> bytes:
    """Open it as the sender of the command."""
    return jwe.open_answer(envelope, KEYS, cid=COMMAND_ID, jti=JTI)


def attempted(opened: Callable[[str], _T], envelope: str) -> _T | None:
    """Return what was opened; returns None if it was refused as documented."""
    try:
        return opened(envelope)
    except SecureCommandError as error:
        check_refusal(error)
        assert error.code == Code.EDECRYPT
        assert error.__context__ is None, "a traceback would show what was read"
        return None


def header_seeds() -> list[bytes]:
    """Headers that keep the rules, and some that do not."""
    tried: list[dict[str, object]] = [
        dict(COMMAND),
        dict(ANSWER),
        {**COMMAND, "kid": Keyring.kid(KEY)},
        {**COMMAND, "exp": EXPIRY + 0.5, "cid": COMMAND_ID},
        {**COMMAND, "typ": "JWT", "aud": [AGENT], "crit": ["x"]},
        {**COMMAND, "zip": "DEF", "exp": 1e300, "jti": ""},
        {name: value for name, value in COMMAND.items() if name != "typ"},
        {name: value for name, value in ANSWER.items() if name != "cjti"},
    ]
    return [joined(json.dumps(header), "plain") for header in tried]


HARNESSES = [
    Harness("envelope", hostile, lambda: [VALID.encode(), VALID_ANSWER.encode(), b"....", b"a.b.c.d.e"]),
    Harness("envelope-header", headers, header_seeds),
    Harness("envelope-altered", altered, lambda: [b"\0\0", b"\x10\x01A", b"\xf0\x01", b"\x80\0AAAA", b"\0\xff", b"\xff\x01="], 256),
]
