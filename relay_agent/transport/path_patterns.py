"""The path patterns of rules, and the readings of a path that they are compared with (docs/policy.md).

Patterns are an administrator's, paths are foreign: every comparison takes time linear in the foreign text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from relay_agent.transport.host_patterns import shown_host

MAX_DECODINGS = 3
"""How often a path may be percent-encoded before it counts as ambiguous; each round is a reading of its own."""
_PERCENT = ord("%")
_HEX = {ord(digit): value for value, digit in enumerate("0123456789abcdef")} | {
    ord(digit): value for value, digit in enumerate("ABCDEF", start=10)
}
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
_ENCODED_UNIT = re.compile(rb"%u[0-9a-f]{4}", re.IGNORECASE)
"""A character as JavaScript's `escape` writes it; IIS and Jetty decode it."""
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_OVERLONG = re.compile(rb"(?:[\xc0\xc1]|(?:\xe0|\xf0\x80)[\x80\x81])[\x80-\xbf]")
"""An ASCII character in more bytes of UTF-8 than it needs, which is invalid; some servers decode it (RFC 3629 §10)."""
_SYNTAX = re.compile(rb"[\x00-\x1f\x7f./\\;%?#]")
_RAW_PARAMETER = re.compile(r"(?:;|%(?:25)*3b)[^/]*", re.IGNORECASE)
_PARAMETER = re.compile(r"(?:;|%(?:25)*3b).*?(?=[/\\]|%(?:25)*(?:2f|5c)|$)", re.IGNORECASE | re.DOTALL)
_SEPARATOR = re.compile(r"[;\\]|%(?:25)*(?:2f|5c|3b)", re.IGNORECASE)
"""What servers take for a character of its segment, or for an end of the segment or of its name."""
_PARAMETERS = re.compile(rb";[^/]*")
_ENDINGS = re.compile(rb"[;?#][^/]*")
_QUERY = re.compile(rb"[?#]")
_DECODED_QUERY = re.compile(r"[?#]")
_HOST = re.compile(rb"//[^/]*")
_SPECIAL_HOST = re.compile(rb"//+[^/]*")
_STEP_UP = b".."
_STEPS = (_STEP_UP, b".", b"")
"""The segments that a server may drop, or take as a step."""


@dataclass(frozen=True, slots=True)
class PathReadings:
    """What servers may take a path for: they differ in what they decode, cut and resolve, and nobody knows which one a target is."""

    paths: frozenset[str]
    """Each way to read it. Empty if steps up or characters are written so that servers disagree on them: then it may be any path at all."""

    def all_match(self, patterns: Sequence[PathPattern]) -> bool:
        """Return whether one of the patterns matches, however a server reads the path: what an allow rule needs."""
        if not self.paths:
            return any(pattern.matches_all for pattern in patterns)
        return all(_any_matches(patterns, path) for path in self.paths)

    def any_match(self, patterns: Sequence[PathPattern]) -> bool:
        """Return whether one of the patterns matches if a server reads the path in some way: enough for a deny rule."""
        return not self.paths or any(_any_matches(patterns, path) for path in self.paths)


def _any_matches(patterns: Sequence[PathPattern], path: str) -> bool:
    return any(pattern.matches(path) for pattern in patterns)


def path_readings(target: str) -> PathReadings:
    """Return the readings of a request target's path; the query is left out. Bytes that are not UTF-8 become surrogates.

    They differ in: how often the path is percent-decoded, at least once; whether an encoded slash and a backslash separate segments;
    whether `;parameters` are cut, before or after that; whether a decoded `?` or `#` ends the path; whether `..` is a step up, and whether
    it may climb out of an empty segment (RFC 3986 §5.2.4) or these are dropped first; whether what follows two slashes is a host; whether
    overlong UTF-8 is decoded. Empty segments and `.` are left out in the end: they name nothing that the path without them does not.
    """
    path = target.partition("?")[0].encode("utf-8", "surrogateescape")
    found: set[str] = set()
    for text in {path, *_without_host(path)}:
        readings = _readings(text)
        if not readings:
            return PathReadings(frozenset())
        found |= readings
    return PathReadings(frozenset(found))


def _without_host(path: bytes) -> Iterator[bytes]:
    """Yield what servers take for the path if they take a request target for a reference, as if `//host/path` named a host."""
    if match := _HOST.match(path):  # RFC 3986 §4.2, as in the JDK's HttpServer and Python's urlsplit
        yield path[match.end() :] or b"/"
    slashed = path.replace(b"\\", b"/")
    if match := _SPECIAL_HOST.match(slashed):  # WHATWG URL §4.4, as in Node's `new URL(req.url, base)`
        yield slashed[match.end() :] or b"/"


def _readings(path: bytes) -> set[str]:
    """Return the readings of a path that begins with no host; none if it may be any path at all."""
    decoded = _decodings(path)
    if decoded is None or _has_odd_character(path, decoded) or _cuts_ambiguously(path, decoded) or _climbs_ambiguously(path, decoded[-1]):
        return set()
    found = {reading for text in _texts(path, decoded) for reading in _resolutions(text.split(b"/"))}
    return found | {_before_query(reading) for reading in found}


def _decodings(path: bytes) -> list[bytes] | None:
    """Return the path after one round of percent-decoding, two, and so on until nothing changes; None if that takes too many."""
    found = [unquote_to_bytes(path)]
    while (further := unquote_to_bytes(found[-1])) != found[-1]:
        if len(found) == MAX_DECODINGS:
            return None
        found.append(further)
    return found


def _has_odd_character(path: bytes, decoded: Sequence[bytes]) -> bool:
    """Return whether there is a control character, at which servers cut, or which they drop, or what only some decode: `%uXXXX`, or
    overlong UTF-8 of a character that separates, steps or encodes.
    """
    return (
        _CONTROL.search(decoded[-1]) is not None
        or any(_ENCODED_UNIT.search(text) for text in (path, *decoded))
        or any(_SYNTAX.search(_shortest(found)) for found in _OVERLONG.findall(decoded[-1]))
    )


def _shortest(text: bytes) -> bytes:
    """Return the text as servers see it that decode overlong UTF-8 of ASCII characters."""
    return _OVERLONG.sub(lambda match: bytes(((match[0][-2] & 1) << 6 | match[0][-1] & 0x3F,)), text)


def _cuts_ambiguously(path: bytes, decoded: Sequence[bytes]) -> bool:
    """Return whether a `;` appears while separators are still encoded: what it cuts then depends on who decodes how often before."""
    given, separators = path.count(b";"), _separators(decoded[-1])
    return any(text.count(b";") > given and _separators(text) < separators for text in decoded[:-1])


def _separators(text: bytes) -> int:
    return text.count(b"/") + text.count(b"\\")


def _climbs_ambiguously(path: bytes, decoded: bytes) -> bool:
    """Return whether some server may see a step up that another one takes for a name or part of a query, or may climb by it elsewhere.

    One could then be led where no single reading leads: past `..;` but not `..%3b`, or past both. So every step, and everything between
    steps, must be written plainly.
    """
    plain, simplest = path.split(b"/"), _ENDINGS.sub(b"", decoded.replace(b"\\", b"/")).split(b"/")
    if _STEP_UP not in simplest:
        return False
    return (
        _QUERY.search(decoded) is not None
        or len(plain) != len(simplest)
        or any(plain.count(step) != simplest.count(step) for step in _STEPS)
    )


def _texts(path: bytes, decoded: Sequence[bytes]) -> set[bytes]:
    """Return what the path may be once it is decoded and cut, steps included."""
    texts = {_opaque(path), *decoded}
    for early in {_cut(path), _cut(path.replace(b"\\", b"/"))} - {path}:  # Parameters are cut before anything is decoded.
        texts |= {_opaque(early), *(_decodings(early) or ())}
    texts |= {text.replace(b"\\", b"/") for text in texts}
    texts |= set(map(_cut, texts))
    return texts | set(map(_shortest, texts))


def _opaque(path: bytes) -> bytes:
    """Return the path decoded, but for `%2F`, which is a character of its segment (RFC 3986 §2.2)."""
    return unquote_to_bytes(_ENCODED_SLASH.sub(b"%252F", path))


def _cut(path: bytes) -> bytes:
    return _PARAMETERS.sub(b"", path)


def _before_query(reading: str) -> str:
    """Return the part of a reading that is the path to a server that decodes first, and then looks for the query."""
    path = _DECODED_QUERY.split(reading, maxsplit=1)[0]
    return path[:-1] if path.endswith("/.") else path


def _resolutions(segments: Sequence[bytes]) -> Iterator[str]:
    """Yield the paths that the segments may mean."""
    yield _joined(_without_steps(segments), segments[-1])
    if _STEP_UP in segments:
        yield _joined([segment for segment in segments if segment not in (b"", b".")], segments[-1])
        # The first segment is what stands before the leading slash.
        yield _joined([segment for segment in _without_steps(segments[1:], dropped=(b".",)) if segment], segments[-1])


def _without_steps(segments: Sequence[bytes], dropped: Sequence[bytes] = (b"", b".")) -> list[bytes]:
    kept: list[bytes] = []
    for segment in segments:
        if segment == _STEP_UP:
            del kept[-1:]
        elif segment not in dropped:
            kept.append(segment)
    return kept


def _joined(kept: Sequence[bytes], last: bytes) -> str:
    ends_open = last in _STEPS and kept and kept[-1] != _STEP_UP
    return ("/" + b"/".join(kept).decode("utf-8", "surrogateescape")) + ("/" if ends_open else "")


def normal_path(target: str) -> str:
    """Return the path of a request target in its simplest form, in which patterns are written.

    Percent-decoded until nothing changes, backslashes as slashes, `;parameters` cut from each segment, empty and dot segments resolved.
    The query is left out. Bytes that are not UTF-8 become surrogates.
    """
    path = _fully_decoded(target.partition("?")[0].encode("utf-8", "surrogateescape")).replace(b"\\", b"/")
    segments = _cut(path).split(b"/")
    return _joined(_without_steps(segments), segments[-1])


def _fully_decoded(data: bytes) -> bytes:
    """Undo percent-encoding, however often it was applied, in one pass: `%252525…` would otherwise take quadratic time."""
    if b"%" not in data:
        return data
    out = bytearray()
    for byte in data:
        out.append(byte)
        while len(out) >= 3 and out[-3] == _PERCENT and out[-2] in _HEX and out[-1] in _HEX:
            out[-3:] = bytes((_HEX[out[-2]] * 16 + _HEX[out[-1]],))
    return bytes(out)


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A path in which each `*` stands for any characters, slashes too."""

    parts: tuple[str, ...]
    """The texts between the asterisks."""

    @property
    def matches_all(self) -> bool:
        """Whether every path matches."""
        return self.parts in (("", ""), ("/", ""))

    def matches(self, path: str) -> bool:
        """Return whether one reading of a path matches."""
        first, *middle = self.parts
        if not middle:
            return path == first
        last = middle.pop()
        end = len(path) - len(last)
        if not (path.startswith(first) and path.endswith(last) and end >= len(first)):
            return False
        at = len(first)
        for part in middle:  # The leftmost match of each part leaves the most for the next.
            found = path.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


def _simplest(text: str) -> list[str]:
    """Return the patterns to write in place of one that is not in its simplest form.

    Each separator that servers read differently becomes an asterisk, since all readings of a path must match an allow rule. For
    parameters there are also patterns without them.
    """
    lead = "" if text.startswith("/") else "/"
    without = (_PARAMETER.sub("", text), _RAW_PARAMETER.sub("", text))
    forms = [re.sub(r"\*{2,}", "*", _SEPARATOR.sub("*", each)) for each in (*without, text)]
    return list(dict.fromkeys(normal_path(lead + each).removeprefix(lead) for each in forms))


def parse_path(text: str) -> PathPattern:
    """Read a path pattern.

    Raises:
        ValueError: no path in its simplest form can match it.
    """
    if not text.startswith(("/", "*")):
        raise ValueError(f"'{shown_host(text) if '@' in text or '://' in text else text}' does not begin with / or *")
    if "?" in text or "#" in text:
        # Not what follows, which may be a secret of a URL.
        raise ValueError(f"'{re.split('[?#]', text, maxsplit=1)[0]}' contains ? or #; rules do not look at the query")
    lead = "" if text.startswith("/") else "/"
    plain = normal_path(lead + text).removeprefix(lead)
    if any("\ud800" <= character <= "\udfff" for character in plain):
        raise ValueError("a path has percent-encoded bytes that are not UTF-8; write * in their place")
    if plain != text:
        cures = " and ".join(f"'{each}'" for each in _simplest(text))
        raise ValueError(f"'{text}' is not in its simplest form, in which paths are compared; write {cures}")
    return PathPattern(tuple(text.split("*")))
