"""What a secret looks like: the patterns by which one is taken out of text.

This room owns the shapes. It must not know any secret by value (that is `redact`), and it errs on
the side of taking too much.

Text comes from senders, targets and name servers, and a pattern holds the interpreter's lock while it runs: every pattern here
takes time in proportion to the text, whatever stands in it. Each is one of: tried only where a run of its characters begins,
bounded in what it looks at before it fails, or sure to match once it has begun. What needs a second look at a run gets it in
the function that replaces the match, after the match is consumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MASK = "[redacted]"
CUT = "..."

MOST_CHARACTERS = 16 * 1024
"""How much of a text is looked at; a log line holds half of it."""
_MOST_EDGES = 32

_HEADERS = (
    r"(?:proxy-)?authorization|(?:set-)?cookie2?|ts-auth-token|www-authenticate|proxy-authenticate"
    r"|x-(?:api-key|auth-token|access-token|amz-security-token|csrf-token|xsrf-token|vault-token|amz-server-side-encryption-customer-key)"
)
_SURE_WORDS = (
    r"passw(?:or)?d|passphrase|client_?secret|shared_?secret|secret_access_key|secretaccesskey|api_?key|private_?key"
    r"|(?:access|refresh|session|security|auth)_?token|secure_command_key"
)
_WORDS = rf"{_SURE_WORDS}|pwd|secret|jwt|token|id_?token|access_?key(?:_?id)?|signature|sig"

# A quoted value ends at its closing quote or with the text, so that an opening quote always matches.
_QUOTED = r"""(?:"(?:[^"\\]|\\.?)*+"?|'(?:[^'\\]|\\.?)*+'?)"""
# A string in JSON in JSON, however deep: it ends at a quote with as many backslashes before it as its opening one has.
_ESCAPED = r"""(?:(?P<mark>\\++["'])(?:(?!(?<!\\)(?P=mark)).)*+(?:(?P=mark))?)"""
_ESCAPED_ONCE = _ESCAPED.replace(r"\\++", r"\\")
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
    rf"""(?P<name>(?<![\w-])(?:{_HEADERS})(?![\w-]))(?P<gap>\\*+["']\s*+[:=,]\s*+b?|\s*+[:=]\s*+b?)(?:{_QUOTED}|{_ESCAPED_ONCE}|[^\r\n]++)""",
    re.IGNORECASE | re.DOTALL,
)
_ASSIGNED = re.compile(
    rf"""(?P<name>(?<![A-Za-z0-9])(?:(?:{_WORDS})(?=\s?=|%3D|\\*+["'])|(?:{_SURE_WORDS})(?=\s?:)))"""
    rf"""(?P<gap>\s?[=:]\s*+|%3D|\\*+["']\s*+[:=,]\s*+b?)(?:{_QUOTED}|{_ESCAPED}|(?:\[redacted\]|[^\s&,;"'<>)\]}}])++)""",
    re.IGNORECASE | re.DOTALL,
)
# After `basic` stands a word, not a token, if lower case is all there is of it; of what is longer than words are that is not asked.
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

# Short runs of letters and digits joined by . _ - hold none of the shapes above; nearly every field is such a text.
_HARMLESS = re.compile(r"(?:[A-Za-z0-9]{0,15}+[._\0-]++)*+[A-Za-z0-9]{0,15}+")

# No shape reaches over one of these to something that decides whether it is one: a text cut here holds its secrets whole.
_EDGE = re.compile(r"""[\s"'<>]""")

SENSITIVE_FIELD = re.compile(rf"(?:{_HEADERS}|{_WORDS}|body|payload|headers?|query|credentials)", re.IGNORECASE)


def harmless(text: str) -> bool:
    """Whether the text surely holds none of these shapes: a quick look before the slow one. One that is too long is not looked at."""
    return len(text) <= MOST_CHARACTERS and _HARMLESS.fullmatch(text) is not None and "eyJ" not in text


def shown_target(target: str) -> str:
    """A URL's path and query as they may be shown: no query, and no path that a signature in the query opens (SECURITY §4)."""
    path, mark, query = target.partition("?")
    unseen = len(path) > MOST_CHARACTERS or len(query) > MOST_CHARACTERS or _SIGNED.search(mark + query)
    path = f"/{MASK}" if unseen else redact_text(path)
    return f"{path}?{MASK}" if query else path


def redact_text(text: str) -> str:
    """The text without whatever looks like a secret; those known by value take a `Redactor`. What is too long is cut first."""
    return text if harmless(text) else on_head(text, mask_shapes)


def on_head(text: str, mask: Callable[[str], str], splits: Callable[[int], bool] = lambda edge: False) -> str:
    """Mask as much of the text as is looked at; the rest is not shown, nor a token that the bound would cut in two.

    `splits` says whether a cut at this place would leave a part of a secret that `mask` finds only whole.
    """
    if len(text) <= MOST_CHARACTERS:
        return mask(text)
    edges = [edge.start() for edge in _EDGE.finditer(text, 0, MOST_CHARACTERS)]
    end = next((edge for edge in reversed(edges[-_MOST_EDGES:]) if not splits(edge)), 0)
    return (mask(text[:end]) if end else MASK) + CUT


def mask_shapes(text: str) -> str:
    """The same for a text that is bounded already."""
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
        return f"{scheme}{MASK}"  # user info with a bare '/' or '?' in its password: nobody can tell where it ends
    if rest and _SIGNED.search(rest):
        path = f"/{MASK}"  # a signed path names what the signature opens (SECURITY §4)
    path = _INNER_AUTHORITY.sub(lambda inner: f"{inner[1]}{_bare_authority(inner[2], ends=True) or MASK}", path)
    return f"{scheme}{shown}{path}{_bare_rest(rest)}"


def _bare_rest(rest: str | None) -> str:
    return f"{rest[0]}{MASK}" if rest and len(rest) > 1 else ""


def _bare_authority(authority: str, ends: bool) -> str | None:
    """Without user info; None if what looks like a port is none. What `ends` a clause is not the port's."""
    _, at, host = authority.rpartition("@")
    bare = host.rstrip(",;:)") if ends else host
    name, colon, port = bare.rpartition(":")
    if colon and name and not port.isdigit() and not bare.endswith("]") and port:
        return None
    return f"{f'{MASK}@' if at else ''}{host}"


def _bare_path(match: re.Match[str]) -> str:
    """The same for a path without scheme and host, as urllib3's messages have it."""
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
    """A run of base64's characters of all three kinds: masked where it is long, else what of it is as long as AWS's secret keys."""
    if not all(kind.search(match[1]) for kind in _KINDS):
        return match[0]
    return MASK if len(match[1]) >= _BLOB_CHARACTERS else _SECRET_KEY.sub(MASK, match[0])
