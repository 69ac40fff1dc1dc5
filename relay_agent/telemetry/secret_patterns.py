"""Patterns that recognise secrets whose values are not known. If a text might be a secret, they mask it.

The texts come from senders, targets and name servers, and a pattern holds the interpreter's lock while it runs. Therefore every
pattern must take time in proportion to the text, whatever the text is: it is tried only where a run of its characters begins, or
reads a bounded number of characters before it fails, or always matches once it has begun. A second check of a match is made by the
function that replaces it, after the match is consumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MASK = "[redacted]"
CUT = "..."

MAX_CHARACTERS = 16 * 1024
"""Characters of a text that are searched; a log line has half as many."""
_MAX_EDGES = 32

_HEADERS = (
    r"(?:proxy-)?authorization|(?:set-)?cookie2?|ts-auth-token|www-authenticate|proxy-authenticate"
    r"|x-(?:api-key|auth-token|access-token|amz-security-token|csrf-token|xsrf-token|vault-token|amz-server-side-encryption-customer-key)"
)
_SURE_WORDS = (
    r"passw(?:or)?d|passphrase|client_?secret|shared_?secret|secret_access_key|secretaccesskey|api_?key|private_?key"
    r"|(?:access|refresh|session|security|auth)_?token|secure_command_key"
)
_WORDS = rf"{_SURE_WORDS}|pwd|secret|jwt|token|id_?token|access_?key(?:_?id)?|signature|sig"

# A quoted value ends at its closing quote or at the end of the text, so that an opening quote always matches.
_QUOTED = r"""(?:"(?:[^"\\]|\\.?)*+"?|'(?:[^'\\]|\\.?)*+'?)"""
# A string in JSON in JSON, at any depth: it ends at a quote after as many backslashes as its opening quote.
_ESCAPED = r"""(?:(?P<mark>\\++["'])(?:(?!(?<!\\)(?P=mark)).)*+(?:(?P=mark))?)"""
_ESCAPED_ONCE = _ESCAPED.replace(r"\\++", r"\\")
# Not a value but the next name, which has the value: `token=` at the end of a line before `"client_secret": "…"`.
_QUOTED_NAME = rf"""\\*+["'](?:{_HEADERS}|{_WORDS})\\*+["']\s*+[:=]"""
_NAME = rf"""{_QUOTED_NAME}|(?:{_WORDS})\s?=|(?:{_SURE_WORDS})\s?:"""
_OPENING = re.compile(r"""\\*+["']""")

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,64}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,64}PRIVATE KEY(?: BLOCK)?-----|\Z)", re.DOTALL
)
_JOSE = re.compile(r"eyJ[A-Za-z0-9_-]{6,}+[A-Za-z0-9_.-]*+=*+")
_URL = re.compile(r"""((?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]*+:(?:\\*+/){2})([^\s/?#"'<>\\]*+)([^\s?#"'<>]*+)([?#][^\s"'<>]*+)?""")
_INNER_AUTHORITY = re.compile(r"(/\\*+/)([^/\\]++)")
_PATH = re.compile(r"""(?<![^\s?#"'<>])([^\s?#"'<>]++)(\?[^\s"'<>]++)""")
_SIGNED = re.compile(r"x-amz-|signature=|[?&]sig=|awsaccesskeyid|googleaccessid|security-?token", re.IGNORECASE)
_SIGNED_PARAMETER = re.compile(
    r"(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|x-goog-signature)(=|%3D|%253D)[^&\s\"'<>]++", re.IGNORECASE
)
_HEADER = re.compile(
    rf"""(?P<name>(?<![\w-])(?:{_HEADERS})(?![\w-]))(?P<gap>\\*+["']\s*+[:=,]\s*+b?|\s*+[:=]\s*+b?)(?:(?!{_QUOTED_NAME})(?:{_QUOTED}|{_ESCAPED_ONCE})|[^\r\n]++)""",
    re.IGNORECASE | re.DOTALL,
)
_ASSIGNED = re.compile(
    rf"""(?P<name>(?<![A-Za-z0-9])(?:(?:{_WORDS})(?=\s?=|%3D|\\*+["'])|(?:{_SURE_WORDS})(?=\s?:)))"""
    rf"""(?P<gap>\s?[=:]\s*+|%3D|\\*+["']\s*+[:=,]\s*+b?)(?!{_NAME})(?:{_QUOTED}|{_ESCAPED}|(?:\[redacted\]|[^\s&,;"'<>)\]}}])++)""",
    re.IGNORECASE | re.DOTALL,
)
# After `basic`, lower-case letters alone are a word and not a token, unless they are more than words have.
_SCHEME = re.compile(
    r"\b((?i:bearer))(?:\s++|%20|\+)[A-Za-z0-9+/_.~-]{6,}+=*+"
    r"|\b((?i:basic|negotiate|ntlm))(?:\s++|%20|\+)(?=[a-z+/_.~-]{0,64}+[A-Za-z0-9+/_.~=-])[A-Za-z0-9+/_.~-]{5,}+=*+"
    r"|\b((?i:digest))\s++\w++=[^\r\n]*+"
)
_ACCESS_KEY_ID = re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{12,}+")
_RUN = re.compile(r"(?<![A-Za-z0-9/+_-])([A-Za-z0-9/+_-]{40,}+)={0,2}+")
_SECRET_KEY = re.compile(r"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_KINDS = re.compile(r"[a-z]"), re.compile(r"[A-Z]"), re.compile(r"[0-9]")
_BLOB_CHARACTERS = 100

# Short runs of letters and digits, joined by . _ -, match none of the patterns above; nearly every field is such a text.
_HARMLESS = re.compile(r"(?:[A-Za-z0-9]{0,15}+[._\0-]++)*+[A-Za-z0-9]{0,15}+")

# No pattern needs anything after one of these characters to match: a text that is cut here has only whole secrets.
_EDGE = re.compile(r"""[\s"'<>]""")

_SECRET_HEADER = re.compile(_HEADERS, re.IGNORECASE)
SENSITIVE_FIELD = re.compile(rf"(?:{_HEADERS}|{_WORDS}|body|payload|headers?|query|credentials)", re.IGNORECASE)


def is_secret_header(name: str) -> bool:
    """Return whether a header field of this name holds a secret."""
    return _SECRET_HEADER.fullmatch(name) is not None


def harmless(text: str) -> bool:
    """Return whether the text certainly matches no pattern; a quick check before the slow ones. It is false for a text that is too long."""
    return len(text) <= MAX_CHARACTERS and _HARMLESS.fullmatch(text) is not None and "eyJ" not in text


def shown_target(target: str) -> str:
    """Return a URL's path and query for display: the query masked, and the path too if the query has a signature."""
    path, mark, query = target.partition("?")
    hidden = len(path) > MAX_CHARACTERS or len(query) > MAX_CHARACTERS or _SIGNED.search(mark + query)
    path = f"/{MASK}" if hidden else redact_text(path)
    return f"{path}?{MASK}" if query else path


def redact_text(text: str) -> str:
    """Return the text with everything masked that looks like a secret, and shortened if it is too long to be searched."""
    return text if harmless(text) else on_head(text, mask_patterns)


def on_head(text: str, mask: Callable[[str], str], splits: Callable[[int], bool] = lambda edge: False) -> str:
    """Mask the part of the text that is searched, and leave out the rest, with any token that the bound would cut in two.

    `splits` returns whether a cut at a position would split a secret, which `mask` would then not find.
    """
    if len(text) <= MAX_CHARACTERS:
        return mask(text)
    edges = [edge.start() for edge in _EDGE.finditer(text, 0, MAX_CHARACTERS)]
    end = next((edge for edge in reversed(edges[-_MAX_EDGES:]) if not splits(edge)), 0)
    return (mask(text[:end]) if end else MASK) + CUT


def mask_patterns(text: str) -> str:
    """Mask everything that looks like a secret; the length of the text must be bounded already."""
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _URL.sub(_bare_url, text)
    text = _PATH.sub(_bare_path, text)
    text = _SIGNED_PARAMETER.sub(rf"\1\2{MASK}", text)
    text = _HEADER.sub(_masked, text)
    text = _ASSIGNED.sub(_masked, text)
    text = _SCHEME.sub(lambda match: f"{match[1] or match[2] or match[3]} {MASK}", text)
    text = _JOSE.sub(MASK, text)
    text = _ACCESS_KEY_ID.sub(MASK, text)
    return _RUN.sub(_masked_run, text)


def _bare_url(match: re.Match[str]) -> str:
    scheme, authority, path, rest = match.groups()
    shown = _bare_authority(authority, ends=not path and not rest)
    if shown is None:
        return f"{scheme}{MASK}"  # User info with a bare '/' or '?' in its password: its end is not known.
    if rest and _SIGNED.search(rest):
        path = f"/{MASK}"  # The path names the object to which the signature gives access.
    path = _INNER_AUTHORITY.sub(lambda inner: f"{inner[1]}{_bare_authority(inner[2], ends=True) or MASK}", path)
    return f"{scheme}{shown}{path}{_bare_rest(rest)}"


def _bare_rest(rest: str | None) -> str:
    return f"{rest[0]}{MASK}" if rest and len(rest) > 1 else ""


def _bare_authority(authority: str, ends: bool) -> str | None:
    """Return the authority without user info; returns None if it has a port that is not a number.

    With `ends`, punctuation at the end is the sentence's, not the port's.
    """
    _, at, host = authority.rpartition("@")
    bare = host.rstrip(",;:)") if ends else host
    name, colon, port = bare.rpartition(":")
    if colon and name and not port.isdigit() and not bare.endswith("]") and port:
        return None
    return f"{f'{MASK}@' if at else ''}{host}"


def _bare_path(match: re.Match[str]) -> str:
    """Mask a path without scheme and host, as in messages of urllib3."""
    path, query = match.groups()
    if "/" not in path or query.startswith(f"?{MASK}"):
        return match[0]
    if _SIGNED.search(query):
        path = f"{path.partition('/')[0]}/{MASK}"
    return f"{path}?{MASK}"


def _masked(match: re.Match[str]) -> str:
    value = match[0][match.end("gap") - match.start() :]
    opening = _OPENING.match(value)
    mark = opening[0] if opening and value.endswith(opening[0]) and len(value) >= 2 * len(opening[0]) else ""
    return f"{match['name']}{match['gap']}{mark}{MASK}{mark}"


def _masked_run(match: re.Match[str]) -> str:
    """Mask a run of base64 that has all three kinds of characters if it is long, or has a part as long as AWS's secret keys.

    Always the whole run: if only such a part of a known secret were masked, the rest would no longer be recognised.
    """
    if not all(kind.search(match[1]) for kind in _KINDS):
        return match[0]
    return MASK if len(match[1]) >= _BLOB_CHARACTERS or _SECRET_KEY.search(match[0]) else match[0]
