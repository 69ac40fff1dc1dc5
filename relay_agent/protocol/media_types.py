"""Parameters of a media type in `Content-Type` (RFC 9110 §8.3.1, §5.6.6), parsed as leniently as browsers do, in linear time."""

from __future__ import annotations

MAX_CHARACTERS = 8 * 1024
"""Length above which a `Content-Type` is not parsed."""
_BLANKS = " \t\r\n"


def parameter(content_type: str, name: str) -> str | None:
    """Return the value of the first parameter of that name, whatever its case; returns None if there is none.

    `charset*=` of RFC 2231 counts as another name: HTTP does not have it for media types.
    """
    if len(content_type) > MAX_CHARACTERS:
        return None
    wanted, position = name.lower(), content_type.find(";")
    while 0 <= position < len(content_type):
        found, value, position = _next(content_type, position + 1)
        if found == wanted and value is not None:
            return value
    return None


def _next(text: str, start: int) -> tuple[str, str | None, int]:
    """Return name and value (None if empty) of the parameter at `start`, and the position of the semicolon, or the end, after it."""
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
    """Return the quoted string whose opening quote is before `start`, and the position after its closing quote, which may be missing."""
    characters: list[str] = []
    position = start
    while position < len(text) and text[position] != '"':
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        characters.append(text[position])
        position += 1
    return "".join(characters), position + 1


def _find(text: str, character: str, start: int) -> int:
    position = text.find(character, start)
    return len(text) if position < 0 else position
