"""Parameters of a media type, as `Content-Type` gives them (RFC 9110 §8.3.1, §5.6.6).

This room owns their grammar, read as leniently as browsers do, each character once. It must not know what a parameter means.
"""

from __future__ import annotations

MAX_CHARACTERS = 8 * 1024
"""A longer value says nothing: no parameter that anybody means to be read stands in one."""
_BLANKS = " \t\r\n"


def parameter(content_type: str, name: str) -> str | None:
    """The value of the first parameter of that name, in any case; None where there is none.

    `charset*=` of RFC 2231 is another name: HTTP never had it for media types.
    """
    if len(content_type) > MAX_CHARACTERS:
        return None
    wanted, place = name.lower(), content_type.find(";")
    while 0 <= place < len(content_type):
        found, value, place = _next(content_type, place + 1)
        if found == wanted and value is not None:
            return value
    return None


def _next(text: str, start: int) -> tuple[str, str | None, int]:
    """The name and the value that begin at `start`, and the semicolon, or the end, behind them; None for a value that is not there."""
    end = _find(text, ";", start)
    equals = text.find("=", start, end)
    if equals < 0:
        return text[start:end].strip(_BLANKS).lower(), None, end
    name = text[start:equals].strip(_BLANKS).lower()
    opening = equals + 1
    while opening < len(text) and text[opening] in _BLANKS:
        opening += 1
    if text[opening : opening + 1] == '"':
        value, closing = _quoted(text, opening + 1)
        return name, value, _find(text, ";", closing)
    return name, text[opening:end].strip(_BLANKS) or None, end


def _quoted(text: str, start: int) -> tuple[str, int]:
    """A quoted string from behind its first mark: its text, and the place behind its last; without one it ends with the text."""
    pieces: list[str] = []
    place = start
    while place < len(text) and text[place] != '"':
        if text[place] == "\\" and place + 1 < len(text):
            place += 1
        pieces.append(text[place])
        place += 1
    return "".join(pieces), place + 1


def _find(text: str, what: str, start: int) -> int:
    place = text.find(what, start)
    return len(text) if place < 0 else place
