"""JWE envelopes of secure commands and their answers: encryption, decryption and checks (PROTOCOL §5, RFC 7516).

Commands and answers are encrypted with the same keys. The envelope's `typ` says which of the two it is, and the function that
opens one refuses the other.
"""

from __future__ import annotations

import base64
import json
import math
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeGuard

from Crypto.Cipher import AES

from relay_agent.core.clock import DAY_SECONDS
from relay_agent.core.errors import SecureCommandError
from relay_agent.core.failures import Code
from relay_agent.protocol.keyring import KEY_BYTES, NO_KEY, Keyring

IV_BYTES = 12
TAG_BYTES = 16
# The header has to be parsed before the tag can be checked: anybody could have written it.
MAX_HEADER_CHARACTERS = 16_384
MAX_VALID_SECONDS = 7 * DAY_SECONDS
"""How far ahead a command's `exp` may be. Its `jti` is remembered until then (PROTOCOL §5)."""
MAX_JTI_CHARACTERS = 1024
_NOT_COMPACT = "is not a compact JWE: that has five base64url parts with dots between them"
COMMAND = "relay-command"
ANSWER = "relay-answer"

# A multiple of four. In pieces, so that no further copy of a body of 10 MB is in memory.
_PIECE = 64 * 1024
"""Characters of base64url that are decoded at once."""
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_KID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Opened:
    """A command's envelope, decrypted. `exp` is in seconds since 1970, rounded up; `jti` is to be remembered until then."""

    plaintext: bytes = field(repr=False)
    jti: str
    exp: int


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands before a compact JWE's ciphertext, decoded. `aad` is the protected header as received."""

    header: dict[str, Any]
    aad: bytes
    iv: bytearray


@dataclass(frozen=True, slots=True)
class _Envelope:
    """The parts of a compact JWE, decoded."""

    head: _Head
    ciphertext: bytearray
    tag: bytearray


@dataclass(frozen=True, slots=True)
class _Verified:
    """Header and plaintext of an envelope whose tag was verified."""

    header: dict[str, Any]
    # In a field without a repr: a traceback that shows local variables must not show the text.
    plaintext: bytes = field(repr=False)


def generate_key() -> str:
    """Return a new random key as base64url, a form that SECURE_COMMAND_KEY takes."""
    return _encode(secrets.token_bytes(KEY_BYTES))


def seal_command(plaintext: bytes, keyring: Keyring, *, aud: str, exp: int, jti: str) -> str:
    """Encrypt a command for the agent `aud` into a compact JWE (`alg` dir, `enc` A256GCM) with the keyring's first key.

    `exp` is in seconds since 1970. `jti` must be new: an agent accepts each once.

    Raises:
        SecureCommandError: ENOKEY, the keyring is empty.
    """
    cipher, head = _start(keyring, {"typ": COMMAND, "aud": aud, "exp": exp, "jti": jti})
    ciphertext, tag = cipher.encrypt_and_digest(plaintext)
    return f"{head}{_encode(ciphertext)}.{_encode(tag)}"


def seal_answer(pieces: Iterable[bytes], keyring: Keyring, *, cid: str, jti: str | None = None) -> Iterator[str]:
    """Encrypt an answer, which may be too large for memory, and yield its compact JWE piece by piece.

    `cid` is the command's id. `jti` is the command's, None if it is not secure; the header has it as `cjti`, empty for None.

    Raises:
        SecureCommandError: ENOKEY, the keyring is empty; raised by the call itself, before the first piece is taken.
    """
    cipher, head = _start(keyring, {"typ": ANSWER, "cid": cid, "cjti": jti or ""})
    return _stream(pieces, cipher, head)


def open_command(jwe: str, keyring: Keyring, *, agent_id: str, now: datetime) -> Opened:
    """Decrypt a command for the agent `agent_id` that is still valid at `now` (an aware datetime).

    The caller must check that the `jti` was not used before.

    Raises:
        SecureCommandError: ENOKEY, the keyring is empty; EDECRYPT, anything else. The text says what is wrong, and contains
            neither keys nor content.
    """
    parts = _split(jwe, keyring)
    del jwe  # Of a body of 10 MB, each form is as long; none is kept longer than it is needed.
    verified = _opened(parts, keyring)
    # Only now: before the tag is verified, anybody could have written the header.
    if verified.header.get("typ", COMMAND) != COMMAND:
        raise _refused(f"typ is not {COMMAND}: this is not a command")
    _check_audience(verified.header, agent_id)
    return Opened(verified.plaintext, _jti(verified.header), _expiry(verified.header, now))


def open_answer(jwe: str, keyring: Keyring, *, cid: str, jti: str | None) -> bytes:
    """Decrypt the answer to the command `cid`, as its sender. `jti` is the command's, None if it is not secure.

    Raises:
        SecureCommandError: ENOKEY, the keyring is empty; EDECRYPT, anything else, for example another command's answer.
    """
    parts = _split(jwe, keyring)
    del jwe
    verified = _opened(parts, keyring)
    _check_answer(verified.header, cid, jti)
    return verified.plaintext


def open_long_answer(pieces: Callable[[], Iterator[str]], keyring: Keyring, *, cid: str, jti: str | None) -> Iterator[bytes]:
    """Decrypt as `open_answer` does, but a JWE that is too large for memory; return the plaintext in pieces.

    `pieces` yields the JWE's text anew whenever it is called: everything is decrypted once to verify the tag, and only then again to be
    used.

    Raises:
        SecureCommandError: as `open_answer`, by the call itself, before any plaintext is returned. What `pieces` raises comes through.
    """
    if not keyring:
        raise SecureCommandError(Code.ENOKEY, NO_KEY)
    head = _head_of(pieces())
    keys = _keys_for(head.header, keyring)
    key = next((key for key in keys if _is_authentic(pieces(), head, key)), None)
    if key is None:
        raise _wrong_key(keys)
    _check_answer(head.header, cid, jti)
    return _decrypted_pieces(pieces(), head, key)


def _check_answer(header: dict[str, Any], cid: str, jti: str | None) -> None:
    if header.get("typ") != ANSWER:
        raise _refused(f"typ is not {ANSWER}: this is not an answer")
    if not isinstance(header.get("cid"), str):
        raise _refused("cid is required, a string: the id of the command that is answered")
    if header["cid"] != cid:
        raise _refused("cid is not this command's id: it is another command's answer")
    # The id alone proves nothing. The platform assigns the ids: it may have the agent answer a plain command of its own, encrypted
    # (`encrypt_response`), and then give the same id to a secure command. This agent therefore always sets `cjti`. An envelope
    # without it comes from another key holder, and is accepted by its `cid`.
    if header.get("cjti", jti or "") != (jti or ""):
        command = "a command that was not secure" if jti is None else "the command with this jti"
        raise _refused(f"cjti does not match: this is not the answer to {command}")


def look_inside(jwe: str, keyring: Keyring) -> tuple[str, bytes]:
    """Return an envelope's `typ` and its plaintext, for a person who has the key; neither recipient nor `exp` is checked.

    Raises:
        SecureCommandError: ENOKEY, the keyring is empty; EDECRYPT, the envelope cannot be decrypted.
    """
    verified = _opened(_split(jwe, keyring), keyring)
    kind = verified.header.get("typ", COMMAND)
    return (kind if kind in (COMMAND, ANSWER) else "an unknown typ"), verified.plaintext


# --- encryption ---


def _start(keyring: Keyring, claims: dict[str, str | int]) -> tuple[Any, str]:
    """Return a cipher that is ready for the plaintext, and the JWE's text before the ciphertext."""
    key = keyring.current
    header: dict[str, Any] = {"alg": "dir", "enc": "A256GCM", "kid": Keyring.kid(key), **claims}
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
        whole = len(rest) - len(rest) % 3  # Three bytes make four characters; only whole groups can be joined.
        if whole:
            yield _encode(rest[:whole])
            rest = rest[whole:]
    yield f"{_encode(rest)}.{_encode(cipher.digest())}"


def _encode(data: bytes | bytearray) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


# --- decryption: nothing is raised inside an `except`, because the context of the new exception could show what was read ---


def _opened(parts: list[str], keyring: Keyring) -> _Verified:
    envelope = _parse(parts)
    parts.clear()  # Frees the text: the caller has no other reference to it.
    keys = _keys_for(envelope.head.header, keyring)
    plaintext = _decrypt(envelope, keys)
    if plaintext is None:
        raise _wrong_key(keys)
    return _Verified(envelope.head.header, plaintext)


def _keys_for(header: dict[str, Any], keyring: Keyring) -> Keyring:
    keys = keyring.named(_name(header))
    if not keys:
        raise _refused(f"no key with {_shown(header['kid'])} is set; set here: {', '.join(keyring.kids)}")
    return keys


def _wrong_key(keys: Keyring) -> SecureCommandError:
    return _refused(f"wrong key, or the message was altered; tried here: {', '.join(keys.kids)}")


def _split(jwe: object, keyring: Keyring) -> list[str]:
    if not keyring:
        raise SecureCommandError(Code.ENOKEY, NO_KEY)
    parts = jwe.split(".", 5) if isinstance(jwe, str) else []
    if len(parts) != 5:
        raise _refused(_NOT_COMPACT)
    return parts


def _parse(parts: list[str]) -> _Envelope:
    return _Envelope(_parse_head(parts[:3]), _decoded("ciphertext", parts[3]), _tag(parts[4]))


def _parse_head(parts: list[str]) -> _Head:
    header = _header(parts[0])
    if parts[1]:
        raise _refused("the encrypted key must be empty with alg dir (RFC 7518 §4.5)")
    iv = _decoded("IV", parts[2])
    if len(iv) != IV_BYTES:
        raise _refused(f"the IV must be {IV_BYTES} bytes")
    return _Head(header, parts[0].encode("ascii"), iv)


def _tag(part: str) -> bytearray:
    tag = _decoded("tag", part)
    if len(tag) != TAG_BYTES:
        raise _refused(f"the tag must be {TAG_BYTES} bytes")
    return tag


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
    for name in ("crit", "zip"):  # No extension is known, and a small compressed message could grow without bound.
        if name in header:
            raise _refused(f"the header parameter {name} is not supported")
    return header


def _decoded(name: str, part: str) -> bytearray:
    """Decode strict base64url (RFC 7515 §2): no padding, no other characters, no unused bits that are set."""
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
    # Only a text of a kid's form is shown: a sender may have put the key itself there by mistake.
    return f"kid {kid}" if _KID.fullmatch(kid) else "the kid that it names (8 hex digits are expected)"


def _decrypt(envelope: _Envelope, keys: Keyring) -> bytes | None:
    for key in keys:
        cipher = AES.new(key, AES.MODE_GCM, nonce=envelope.head.iv, mac_len=TAG_BYTES)
        cipher.update(envelope.head.aad)
        try:
            return cipher.decrypt_and_verify(envelope.ciphertext, envelope.tag)
        except ValueError:
            continue
    return None


def _numbered(pieces: Iterator[str]) -> Iterator[tuple[int, str]]:
    """Yield the text of a JWE's five parts piece by piece, each with the number of its part."""
    number = 0
    for text in pieces:
        first, *following = text.split(".", 5)
        yield number, first
        for part in following:
            number += 1
            if number > 4:
                raise _refused(_NOT_COMPACT)
            yield number, part
    if number != 4:
        raise _refused(_NOT_COMPACT)


def _head_of(pieces: Iterator[str]) -> _Head:
    """Read what stands before the ciphertext. A part that is too long for what it is is cut, and so refused."""
    parts = ["", "", ""]
    for number, text in _numbered(pieces):
        if number > 2:
            return _parse_head(parts)
        if len(parts[number]) <= MAX_HEADER_CHARACTERS:
            parts[number] += text[: MAX_HEADER_CHARACTERS + 1]
    raise _refused(_NOT_COMPACT)


def _decrypted_pieces(pieces: Iterator[str], head: _Head, key: bytes) -> Iterator[bytes]:
    """Yield the plaintext, which is authentic only if no ValueError is raised at the end."""
    cipher = AES.new(key, AES.MODE_GCM, nonce=head.iv, mac_len=TAG_BYTES)
    cipher.update(head.aad)
    rest = tag = ""
    for number, text in _numbered(pieces):
        if number == 3:
            rest += text
            whole = len(rest) - len(rest) % 4
            yield cipher.decrypt(_decoded("ciphertext", rest[:whole]))
            rest = rest[whole:]
        elif number == 4 and len(tag) <= MAX_HEADER_CHARACTERS:
            tag += text
    yield cipher.decrypt(_decoded("ciphertext", rest))
    cipher.verify(_tag(tag))


def _is_authentic(pieces: Iterator[str], head: _Head, key: bytes) -> bool:
    """Return whether the tag is right, of which only the reading of the last piece decides."""
    decrypted = _decrypted_pieces(pieces, head, key)
    try:
        for _ in decrypted:
            pass
    except ValueError:
        return False
    return True


def _check_audience(header: dict[str, Any], agent_id: str) -> None:
    # A list of agents is refused: an agent recognises only a `jti` that it has used itself.
    if not isinstance(header.get("aud"), str):
        raise _refused("aud is required, a string: the id of the agent that the command is for")
    if header["aud"] != agent_id:
        raise _refused("aud is not this agent's id: the message is meant for another agent")


def _jti(header: dict[str, Any]) -> str:
    jti = header.get("jti")
    if not isinstance(jti, str) or not jti:
        raise _refused("jti is required, a string that is not empty: a message with the same jti is accepted once")
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
        raise _refused(f"exp is more than {MAX_VALID_SECONDS // DAY_SECONDS} days ahead; it is in seconds since 1970, not in milliseconds")
    return math.ceil(exp)


def _is_seconds(value: object) -> TypeGuard[int | float]:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value))


def _refused(reason: str) -> SecureCommandError:
    return SecureCommandError(Code.EDECRYPT, reason)
