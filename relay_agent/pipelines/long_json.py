"""Reads JSON in pieces, so that a long string in it, such as an answer's body, is never in memory as a whole.

Owns the search for long strings and how they are read. It must not know what an answer is.
"""

from __future__ import annotations

import codecs
import json
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from relay_agent.pipelines.spool import Spool

LONG_BYTES = 64 * 1024
"""A longer string becomes a `LongText`."""
PIECE_BYTES = 64 * 1024

_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""What of a string stands before its end, or before a backslash that ends the piece."""
_WHOLE = re.compile(
    r"(?:[^\\]++|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\[^u])*+", re.DOTALL
)
"""Characters and escapes that are complete: neither half an escape nor half a surrogate pair."""
_PLAIN = re.compile(rb"[ !#-\[\]-~]*+")
"""ASCII without escapes, which is itself."""
_ESCAPE_LENGTH, _PAIR_LENGTH = 6, 12


class LongText:
    """A long string of JSON, kept as it was written there."""

    def __init__(self) -> None:
        self._raw = Spool()

    def add(self, raw: bytes | bytearray) -> None:
        """Add a piece as it is written in the JSON."""
        self._raw.write(raw)

    def pieces(self) -> Iterator[str]:
        """Yield the text piece by piece; may be called again.

        Raises:
            ValueError: it is not a string of JSON.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
        file, rest = self._raw.reader(), ""
        while raw := file.read(PIECE_BYTES):
            if not rest and not decoder.getstate()[0] and _PLAIN.fullmatch(raw):  # As of base64, which most long texts are.
                yield raw.decode("ascii")
                continue
            rest += decoder.decode(raw)
            end = _complete(rest)
            yield _unescaped(rest[:end])
            rest = rest[end:]
        yield _unescaped(rest + decoder.decode(b"", True))

    def text(self) -> str:
        """Return the whole text.

        Raises:
            ValueError: it is not a string of JSON.
        """
        return "".join(self.pieces())

    def close(self) -> None:
        """Free the text."""
        self._raw.close()


def read_json(chunks: Iterable[bytes]) -> Any:
    """Read JSON; each string in it that is longer than LONG_BYTES is a `LongText`, unless it is an object's key.

    Raises:
        ValueError: it is not JSON. Whatever `chunks` raises comes through.
    """
    reader = _Reader()
    for chunk in chunks:
        reader.take(chunk)
    return reader.value()


def as_text(value: Any) -> Any:
    """Return the same JSON with text in the place of each `LongText`.

    Raises:
        ValueError: one is not a string of JSON.
    """
    if isinstance(value, LongText):
        return value.text()
    if isinstance(value, dict):
        return {name: as_text(part) for name, part in value.items()}
    return [as_text(part) for part in value] if isinstance(value, list) else value


class _Reader:
    """Copies everything but long strings, and leaves a mark in the place of each of those."""

    def __init__(self) -> None:
        self._copied = bytearray()
        self._string: bytearray | LongText | None = None
        self._escaped = False
        self._mark = secrets.token_hex(16)
        self._long: dict[str, LongText] = {}

    def take(self, chunk: bytes) -> None:
        at = 0
        while at < len(chunk):
            at = self._between(chunk, at) if self._string is None else self._within(chunk, at)

    def value(self) -> Any:
        if self._string is not None:
            raise ValueError("the JSON ends within a string")
        try:
            value = json.loads(self._copied)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None
        return _restored(value, self._long) if self._long else value

    def _between(self, chunk: bytes, at: int) -> int:
        quote = chunk.find(b'"', at)
        if quote < 0:
            self._copied += chunk[at:]
            return len(chunk)
        self._copied += chunk[at : quote + 1]
        self._string = bytearray()
        return quote + 1

    def _within(self, chunk: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(chunk[at : at + 1])
            return at + 1
        found = _INSIDE.match(chunk, at)
        end = found.end() if found else at
        self._keep(chunk[at:end])
        if end == len(chunk):
            return end
        if chunk[end : end + 1] == b'"':
            self._end()
        else:
            self._keep(b"\\")
            self._escaped = True
        return end + 1

    def _keep(self, raw: bytes) -> None:
        if isinstance(self._string, bytearray):
            self._string += raw
            if len(self._string) > LONG_BYTES:
                long = LongText()
                long.add(self._string)
                self._string = long
        elif self._string is not None:
            self._string.add(raw)

    def _end(self) -> None:
        if isinstance(self._string, LongText):
            mark = f"{self._mark}:{len(self._long)}"
            self._long[mark] = self._string
            self._copied += mark.encode("ascii")
        elif self._string is not None:
            self._copied += self._string
        self._copied += b'"'
        self._string = None


def _restored(value: Any, long: dict[str, LongText]) -> Any:
    if isinstance(value, str):
        return long.get(value, value)
    if isinstance(value, dict):
        return {long[name].text() if name in long else name: _restored(part, long) for name, part in value.items()}
    return [_restored(part, long) for part in value] if isinstance(value, list) else value


def _complete(text: str) -> int:
    """Return where the last complete character or escape ends."""
    at = 0
    while True:
        found = _WHOLE.match(text, at)
        at = found.end() if found else at
        if len(text) - at < _PAIR_LENGTH:
            return at
        at += _ESCAPE_LENGTH  # A high surrogate without its low one, which may stand alone in JSON.


def _unescaped(raw: str) -> str:
    return str(json.loads(f'"{raw}"'))
