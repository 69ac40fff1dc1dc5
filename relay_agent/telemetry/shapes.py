"""What a secret looks like: the patterns by which one is taken out of text.

This room owns the shapes. It must not know any secret by value (that is `redact`), and it errs on
the side of taking too much.
"""

from __future__ import annotations

import re

MASK = "[redacted]"

_HEADERS = (
    r"(?:proxy-)?authorization|(?:set-)?cookie2?|ts-auth-token|www-authenticate|proxy-authenticate"
    r"|x-(?:api-key|auth-token|access-token|amz-security-token|csrf-token|xsrf-token|vault-token|amz-server-side-encryption-customer-key)"
)
_SURE_WORDS = (
    r"passw(?:or)?d|passphrase|client_?secret|shared_?secret|secret_access_key|secretaccesskey|api_?key|private_?key"
    r"|(?:access|refresh|session|security|auth)_?token|secure_command_key"
)
_WORDS = rf"{_SURE_WORDS}|pwd|secret|jwt|token|id_?token|access_?key(?:_?id)?|signature|sig"
_QUOTED = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\\(?P<mark>["']).*?(?<!\\)\\(?P=mark))"""

_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_JOSE = re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*=*")
_URL = re.compile(r"""([A-Za-z][A-Za-z0-9+.-]{0,15}:(?:\\?/){2})([^\s/?#"'<>\\]*@)?([^\s/?#"'<>\\]*)([^\s?#"'<>]*)([?#][^\s"'<>]*)?""")
_PATH = re.compile(r"""(?<![^\s?#"'<>])([^\s?#"'<>]++)(\?[^\s"'<>]+)""")
_SIGNED = re.compile(r"x-amz-|signature=|[?&]sig=|awsaccesskeyid|googleaccessid|security-?token", re.IGNORECASE)
_SIGNED_PARAMETER = re.compile(
    r"(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|x-goog-signature)(=|%3D|%253D)[^&\s\"'<>]+", re.IGNORECASE
)
_HEADER = re.compile(
    rf"""(?P<name>(?<![\w-])(?:{_HEADERS})(?![\w-]))(?P<gap>\\?["']\s*[:=,]\s*b?|\s*[:=]\s*b?)(?:{_QUOTED}|[^\r\n]+)""",
    re.IGNORECASE | re.DOTALL,
)
_ASSIGNED = re.compile(
    rf"""(?P<name>(?<![A-Za-z0-9])(?:(?:{_WORDS})(?=\s?=|%3D|\\?["'])|(?:{_SURE_WORDS})(?=\s?:)))"""
    rf"""(?P<gap>\s?[=:]\s*|%3D|\\?["']\s*[:=,]\s*b?)(?:{_QUOTED}|\[redacted\]|["'][^\r\n]*|[^\s&,;"'<>)\]}}]+)""",
    re.IGNORECASE | re.DOTALL,
)
_SCHEME = re.compile(
    r"\b((?i:bearer))(?:\s+|%20|\+)[A-Za-z0-9+/_.~-]{6,}=*"
    r"|\b((?i:basic|negotiate|ntlm))(?:\s+|%20|\+)(?=[a-z+/_.~-]*[A-Z0-9=])[A-Za-z0-9+/_.~-]{5,}=*|\b((?i:digest))\s+\w+=[^\r\n]*"
)
_ACCESS_KEY_ID = re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{12,}")
_MIXED = r"(?=[A-Za-z0-9/+_-]*[a-z])(?=[A-Za-z0-9/+_-]*[A-Z])(?=[A-Za-z0-9/+_-]*[0-9])"
_SECRET_KEY = re.compile(rf"(?<![A-Za-z0-9/+=]){_MIXED}[A-Za-z0-9/+]{{40}}(?![A-Za-z0-9/+=])")
_BLOB = re.compile(rf"(?<![A-Za-z0-9/+_=-]){_MIXED}[A-Za-z0-9/+_-]{{100,}}={{0,2}}")

# Short runs of letters and digits joined by . _ - hold none of the shapes above; nearly every field is such a text.
_HARMLESS = re.compile(r"(?:[A-Za-z0-9]{0,15}+[._\0-]++)*+[A-Za-z0-9]{0,15}+")

SENSITIVE_FIELD = re.compile(rf"(?:{_HEADERS}|{_WORDS}|body|payload|headers?|query|credentials)", re.IGNORECASE)


def harmless(text: str) -> bool:
    """Whether the text surely holds none of these shapes: a quick look before the slow one."""
    return _HARMLESS.fullmatch(text) is not None and "eyJ" not in text


def shown_target(target: str) -> str:
    """A URL's path and query as they may be shown: no query, and no path that a signature in the query opens (SECURITY §4)."""
    path, mark, query = target.partition("?")
    path = f"/{MASK}" if _SIGNED.search(mark + query) else redact_text(path)
    return f"{path}?{MASK}" if query else path


def redact_text(text: str) -> str:
    """The text without whatever looks like a secret; those known by value take a `Redactor`."""
    if harmless(text):
        return text
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _URL.sub(_bare_url, text)
    text = _PATH.sub(_bare_path, text)
    text = _SIGNED_PARAMETER.sub(rf"\1\2{MASK}", text)
    text = _HEADER.sub(_masked, text)
    text = _ASSIGNED.sub(_masked, text)
    text = _SCHEME.sub(lambda match: f"{match[1] or match[2] or match[3]} {MASK}", text)
    for shape in (_JOSE, _ACCESS_KEY_ID, _SECRET_KEY, _BLOB):
        text = shape.sub(MASK, text)
    return text


def _bare_url(match: re.Match[str]) -> str:
    scheme, userinfo, host, path, rest = match.groups()
    bare = host if path or rest else host.rstrip(",;:)")  # What ends a clause is not the port's.
    name, colon, port = bare.rpartition(":")
    if colon and name and not port.isdigit() and not bare.endswith("]") and port:
        return f"{scheme}{MASK}"  # user info with a bare '/' or '?' in its password: nobody can tell where it ends
    if rest and _SIGNED.search(rest):
        path = f"/{MASK}"  # a signed path names what the signature opens (SECURITY §4)
    mark = f"{rest[0]}{MASK}" if rest and len(rest) > 1 else ""
    return f"{scheme}{f'{MASK}@' if userinfo else ''}{host}{path}{mark}"


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
    mark = re.match(r"""\\?["']|""", value)
    quote_mark = mark[0] if mark and value.endswith(mark[0]) and len(value) > 1 else ""
    return f"{match['name']}{match['gap']}{quote_mark}{MASK}{quote_mark}"
