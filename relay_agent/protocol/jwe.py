"""Secure commands: the keyring, and the JWE envelopes of commands and answers, sealed and opened (PROTOCOL §5, RFC 7516).

This room owns the keys and every use of a cipher. Commands and answers are sealed with the same keys, so each envelope says which
of the two it is, and each is opened by a function that takes no other. It must not remember what it has seen: a `jti` used
before is the journal's to know.
"""

from __future__ import annotations

import base64
import json
import math
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeGuard

from Crypto.Cipher import AES

from relay_agent.core.errors import SecureCommandError
from relay_agent.core.failures import Code
from relay_agent.protocol.keyring import NO_KEY, Keyring

KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16
MAX_HEADER_CHARACTERS = 16_384  # unauthenticated JSON is parsed before the tag is checked: keep it small
MAX_VALID_SECONDS = 7 * 86_400
"""How far ahead the `exp` of a command may lie: so long its `jti` is remembered (PROTOCOL §5)."""
MAX_JTI_CHARACTERS = 1024
COMMAND = "relay-command"
ANSWER = "relay-answer"

_PIECE = 64 * 1024
"""Characters of base64url that are decoded at once: beside a body of 10 MB its text need not stand a third time."""
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_KID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Opened:
    """What a command's envelope held. `exp` is in seconds since 1970, rounded up: `jti` is remembered until then."""

    plaintext: bytes = field(repr=False)
    jti: str
    exp: int


@dataclass(frozen=True, slots=True)
class _Envelope:
    """The parts of a compact JWE, decoded; `aad` is the protected header as it was sent."""

    header: dict[str, Any]
    aad: bytes
    iv: bytearray
    ciphertext: bytearray
    tag: bytearray


@dataclass(frozen=True, slots=True)
class _Verified:
    """What an envelope says, its tag verified. A value of its own, so that no traceback that shows a frame's names shows the text."""

    header: dict[str, Any]
    plaintext: bytes = field(repr=False)


def generate_key() -> str:
    """Make a new random key, as the base64url text that SECURE_COMMAND_KEY takes."""
    return _encode(secrets.token_bytes(KEY_BYTES))


def seal_command(plaintext: bytes, keyring: Keyring, *, aud: str, exp: int, jti: str) -> str:
    """Encrypt a command for the agent `aud` into a compact JWE (`alg` dir, `enc` A256GCM) with the keyring's first key.

    `exp` is in seconds since 1970, `jti` what makes it good for one use.

    Raises:
        SecureCommandError: ENOKEY, the keyring is empty.
    """
    cipher, head = _start(keyring, {"typ": COMMAND, "aud": aud, "exp": exp, "jti": jti})
    ciphertext, tag = cipher.encrypt_and_digest(plaintext)
    return f"{head}{_encode(ciphertext)}.{_encode(tag)}"


def seal_answer(pieces: Iterable[bytes], keyring: Keyring, *, cid: str, jti: str | None = None) -> Iterator[str]:
    """Yield, piece by piece, the compact JWE of what `pieces` give together: answers may be too large for memory.

    `cid` is the id of the command that is answered. `jti` is that command's own, None where it was plain; the envelope says it as
    `cjti`, for a plain one as an empty text: the platform gives out the ids, and could give one out twice (`open_answer`).

    Raises:
        SecureCommandError: ENOKEY, the keyring is empty; at once, before the first piece is taken.
    """
    cipher, head = _start(keyring, {"typ": ANSWER, "cid": cid, "cjti": jti or ""})
    return _stream(pieces, cipher, head)


def open_command(jwe: str, keyring: Keyring, *, agent_id: str, now: datetime) -> Opened:
    """Decrypt a command that was sealed for this agent, and is still valid at `now` (an aware datetime).

    Whether the `jti` was used before is for the caller to check.

    Raises:
        SecureCommandError: ENOKEY where the keyring is empty, EDECRYPT for everything else; the text
            says what is wrong and repeats neither keys nor content.
    """
    parts = _split(jwe, keyring)
    del jwe  # Of a body of 10 MB each form is as long, and none is needed beside the next.
    found = _opened(parts, keyring)
    # Only now: before the tag is verified anybody could have written the header.
    if found.header.get("typ", COMMAND) != COMMAND:
        raise _refused(f"typ is not {COMMAND}: this is no command")
    _check_audience(found.header, agent_id)
    return Opened(found.plaintext, _jti(found.header), _expiry(found.header, now))


def open_answer(jwe: str, keyring: Keyring, *, cid: str, jti: str | None) -> bytes:
    """Decrypt the answer to the command `cid`, at the sender's side; `jti` is that command's own, None where it was not secure.

    The id alone proves nothing: the platform gives out the ids, and may have the agent answer a plain command of its own under one,
    encrypted (`encrypt_response`), before it gives the same id to a secure command. So the agent always says `cjti`; an envelope
    without it is none of this agent's, but another key holder's, and is taken by its `cid`.

    Raises:
        SecureCommandError: ENOKEY where the keyring is empty, EDECRYPT for everything else: another command's answer, too.
    """
    parts = _split(jwe, keyring)
    del jwe
    found = _opened(parts, keyring)
    header = found.header
    if header.get("typ") != ANSWER:
        raise _refused(f"typ is not {ANSWER}: this is no answer")
    if not isinstance(header.get("cid"), str):
        raise _refused("cid is required, a string: the id of the command that is answered")
    if header["cid"] != cid:
        raise _refused("cid is not this command's id: it is another command's answer")
    if header.get("cjti", jti or "") != (jti or ""):
        asked = "a command that was not secure" if jti is None else "the command with this jti"
        raise _refused(f"cjti does not agree: it is not the answer to {asked}")
    return found.plaintext


def look_inside(jwe: str, keyring: Keyring) -> tuple[str, bytes]:
    """What sort of envelope it is, and what it holds, for a person who has the key: it proves neither for whom it is nor until when.

    Raises:
        SecureCommandError: ENOKEY where the keyring is empty, EDECRYPT where it does not open.
    """
    found = _opened(_split(jwe, keyring), keyring)
    kind = found.header.get("typ", COMMAND)
    return (kind if kind in (COMMAND, ANSWER) else "an unknown typ"), found.plaintext


# Sealing


def _start(keyring: Keyring, claims: dict[str, str | int | None]) -> tuple[Any, str]:
    """A cipher ready for the plaintext, and the JWE's text up to where the ciphertext begins."""
    key = keyring.current
    header: dict[str, Any] = {"alg": "dir", "enc": "A256GCM", "kid": Keyring.kid(key)}
    header |= {name: value for name, value in claims.items() if value is not None}
    protected = _encode(json.dumps(header, separators=(",", ":")).encode("utf-8"))
    iv = secrets.token_bytes(IV_BYTES)
    cipher = AES.new(key, AES.MODE_GCM, nonce=iv, mac_len=TAG_BYTES)
    cipher.update(protected.encode("ascii"))
    return cipher, f"{protected}..{_encode(iv)}."


def _stream(pieces: Iterable[bytes], cipher: Any, head: str) -> Iterator[str]:
    yield head
    rest = b""
    for piece in pieces:
        rest += cipher.encrypt(piece)
        whole = len(rest) - len(rest) % 3  # three bytes make four characters: only whole groups may be joined
        if whole:
            yield _encode(rest[:whole])
            rest = rest[whole:]
    yield f"{_encode(rest)}.{_encode(cipher.digest())}"


def _encode(data: bytes | bytearray) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


# Opening. Nothing is raised from inside an `except`: the exception that would hang on to ours as its
# context may hold what was being read.


def _opened(parts: list[str], keyring: Keyring) -> _Verified:
    """What an envelope holds whose tag is right; its parts are taken out of the list."""
    envelope = _parse(parts)
    parts.clear()
    keys = keyring.named(_name(envelope.header))
    if not keys:
        raise _refused(f"no key with {_shown(envelope.header['kid'])} is set; this agent has {', '.join(keyring.kids)}")
    plaintext = _decrypt(envelope, keys)
    if plaintext is None:
        raise _refused(f"wrong key, or the message was altered; this agent tried {', '.join(keys.kids)}")
    return _Verified(envelope.header, plaintext)


def _split(jwe: object, keyring: Keyring) -> list[str]:
    if not keyring:
        raise SecureCommandError(Code.ENOKEY, NO_KEY)
    parts = jwe.split(".", 5) if isinstance(jwe, str) else []
    if len(parts) != 5:
        raise _refused("is no compact JWE: it takes five base64url parts with dots between them")
    return parts


def _parse(parts: list[str]) -> _Envelope:
    header = _header(parts[0])
    if parts[1]:
        raise _refused("the encrypted key must be empty with alg dir (RFC 7518 §4.5)")
    iv, ciphertext, tag = (_decoded(name, part) for name, part in zip(("IV", "ciphertext", "tag"), parts[2:], strict=True))
    if len(iv) != IV_BYTES:
        raise _refused(f"the IV must be {IV_BYTES} bytes")
    if len(tag) != TAG_BYTES:
        raise _refused(f"the tag must be {TAG_BYTES} bytes")
    return _Envelope(header, parts[0].encode("ascii"), iv, ciphertext, tag)


def _header(part: str) -> dict[str, Any]:
    if len(part) > MAX_HEADER_CHARACTERS:
        raise _refused(f"the protected header is longer than {MAX_HEADER_CHARACTERS} characters")
    header = _json_object(_decoded("protected header", part))
    if header is None:
        raise _refused("the protected header must be one JSON object without repeated names")
    if header.get("alg") != "dir":
        raise _refused("alg must be dir")
    if header.get("enc") != "A256GCM":
        raise _refused("enc must be A256GCM")
    for name in ("crit", "zip"):  # no extension is understood; compression would let a small message grow without bound
        if name in header:
            raise _refused(f"the header parameter {name} is not supported")
    return header


def _decoded(name: str, part: str) -> bytearray:
    """Strict base64url (RFC 7515 §2): no padding, no other character, no stray bits, so one text for the same bytes."""
    canonical = _BASE64URL.fullmatch(part) is not None and len(part) % 4 != 1
    data = bytearray()
    if canonical:
        for start in range(0, len(part), _PIECE):
            piece = part[start : start + _PIECE]
            data += base64.urlsafe_b64decode(piece + "=" * (-len(piece) % 4))
        tail = len(data) - len(data) % 3
        canonical = _encode(data[tail:]) == part[tail // 3 * 4 :]
    if not canonical:
        raise _refused(f"the {name} is not base64url without padding")
    return data


def _json_object(data: bytes | bytearray) -> dict[str, Any] | None:
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("repeated name")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _name(header: dict[str, Any]) -> str | None:
    kid = header.get("kid")
    if "kid" in header and not isinstance(kid, str):
        raise _refused("kid must be a string")
    return kid


def _shown(kid: str) -> str:
    """A kid for the error text, unless it is none of ours: somebody may have put the key itself there."""
    return f"kid {kid}" if _KID.fullmatch(kid) else "the kid that it names (8 hex digits are expected)"


def _decrypt(envelope: _Envelope, keys: Keyring) -> bytes | None:
    for key in keys:
        cipher = AES.new(key, AES.MODE_GCM, nonce=envelope.iv, mac_len=TAG_BYTES)
        cipher.update(envelope.aad)
        try:
            return cipher.decrypt_and_verify(envelope.ciphertext, envelope.tag)
        except ValueError:
            continue
    return None


def _check_audience(header: dict[str, Any], agent_id: str) -> None:
    """One agent, not several: each knows of its own replays only."""
    if not isinstance(header.get("aud"), str):
        raise _refused("aud is required, a string: the id of the agent that the command is for")
    if header["aud"] != agent_id:
        raise _refused("aud is not this agent's id: the message is meant for another agent")


def _jti(header: dict[str, Any]) -> str:
    jti = header.get("jti")
    if not isinstance(jti, str) or not jti:
        raise _refused("jti is required, a string that is not empty: it makes the message good for one use")
    if len(jti) > MAX_JTI_CHARACTERS or not jti.isprintable():
        raise _refused(f"jti must be printable, and at most {MAX_JTI_CHARACTERS} characters")
    return jti


def _expiry(header: dict[str, Any], now: datetime) -> int:
    exp = header.get("exp")
    if not _is_seconds(exp):
        raise _refused("exp is required, a number: seconds since 1970")
    if exp <= now.timestamp():
        raise _refused("exp has passed: the message is no longer valid")
    if exp > now.timestamp() + MAX_VALID_SECONDS:
        raise _refused(f"exp is more than {MAX_VALID_SECONDS // 86_400} days ahead; it is in seconds since 1970, not in milliseconds")
    return math.ceil(exp)


def _is_seconds(value: object) -> TypeGuard[int | float]:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value))


def _refused(reason: str) -> SecureCommandError:
    return SecureCommandError(Code.EDECRYPT, reason)
