"""The keys `auth` and `proxy_auth` of a `[[target]]` table: one scheme, a user and a password.

See docs/policy.md, "Targets and proxies that ask for Digest or NTLM".

This module owns their form. What a secret may look like, and where mistakes are noted, is given by `policy_file`.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from relay_agent.config.misspelling import unknown_key
from relay_agent.transport.authentication import Credentials
from relay_agent.transport.digest import Digest
from relay_agent.transport.windows_auth import Windows, import_library

SCHEMES = ("digest", "ntlm", "negotiate")
_KEYS = ("user", "password")


def read_credentials(
    where: str, given: object, secret: Callable[[str, object], str | None], mistake: Callable[[str], None]
) -> Credentials | None:
    """Return the credentials of one key; None if there is a mistake, of which `mistake` is given the text.

    `secret` returns the value of a secret, or notes the mistake in it and returns None.
    """
    if not isinstance(given, dict) or len(given) != 1:
        mistake(f"{where}: must have exactly one of {', '.join(SCHEMES)}")
        return None
    (scheme, table), *_ = given.items()
    if scheme not in SCHEMES:
        mistake(f"{where}: {unknown_key(scheme, SCHEMES)}")
        return None
    here = f"{where}.{scheme}"
    if not isinstance(table, dict):
        mistake(f"{here}: must be a table with {' and '.join(_KEYS)}")
        return None
    unknown = [key for key in table if key not in _KEYS]
    missing = [key for key in _KEYS if key not in table]
    for key in unknown:
        mistake(f"{here}: {unknown_key(key, _KEYS)}")
    for key in missing:
        mistake(f"{here}: '{key}' is missing")
    if unknown or missing:
        return None
    user, password = table["user"], secret(f"{here}.password is unusable", table["password"])
    if not isinstance(user, str) or not user.isprintable() or not user:
        mistake(f"{here}.user: must be a text of printable characters")
        return None
    if password == "":
        mistake(f"{here}.password is empty")
    return _made(here, scheme, user, password, mistake) if password else None


def _made(where: str, scheme: str, user: str, password: str, mistake: Callable[[str], None]) -> Credentials | None:
    if scheme == "digest":
        return Digest(user, SecretStr(password))
    try:
        import_library()
    except ImportError:
        mistake(f"{where}: needs the package pyspnego; install it with: pip install 'tdp-relay-agent[windows-auth]'")
        return None
    return Windows("ntlm" if scheme == "ntlm" else "negotiate", user, SecretStr(password))
