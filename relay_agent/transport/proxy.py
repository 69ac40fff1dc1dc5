"""A proxy as its URL names it (SECURITY §1).

This room owns the grammar of proxy URLs. It must not say which proxy serves which call: that is
`proxies`; and it never shows a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from relay_agent.core.urls import BadUrl, basic_authorization, normal_host, split_host_port

# Ports of a proxy URL that names none: those of its scheme, and the one registered for SOCKS.
DEFAULT_PROXY_PORTS = {"http": 80, "https": 443, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: `host` as in `models.Url`, `username` and `password` percent-decoded, None where not given."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def masked(self) -> str:
        """The URL as it may be shown: `http://user:***@host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        userinfo = "" if self.username is None else quote(self.username, safe="")
        if self.password is not None:
            userinfo += ":***"
        return f"{self.scheme}://{userinfo}{'@' if userinfo else ''}{host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """The value of a Proxy-Authorization header, None where the URL names no user (RFC 7617)."""
        if self.username is None:
            return None
        return basic_authorization(f"{quote(self.username, safe='')}:{quote(self.password or '', safe='')}")


def parse_proxy(text: str) -> Proxy:
    """Read `http://`, `https://` or `socks5h://` with an optional user and password; a bare `host:port` is http.

    Raises:
        BadUrl: says what is wrong, never what stood there, since it may hold a password.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    scheme = scheme.lower()
    if scheme not in DEFAULT_PROXY_PORTS:
        raise BadUrl("must begin with http://, https:// or socks5h://")
    userinfo, _, hostport = rest.removesuffix("/").rpartition("@")
    if any(character in rest.removesuffix("/") for character in "/?#\\") or any(character.isspace() for character in rest):
        raise BadUrl("must end after host and port; in a password write / ? # @ and spaces percent-encoded")
    try:
        host, port = split_host_port(hostport)
        host = normal_host(host)
    except BadUrl as error:
        raise BadUrl(f"{error}; expected: host:port") from None
    username, password = _credentials(userinfo)
    return Proxy(scheme, host, port or DEFAULT_PROXY_PORTS[scheme], username, password)


def _credentials(userinfo: str) -> tuple[str | None, str | None]:
    user, colon, password = userinfo.partition(":")
    if not userinfo:
        return None, None
    try:
        return unquote(user, errors="strict"), unquote(password, errors="strict") if colon else None
    except UnicodeDecodeError:
        raise BadUrl("has a user or password that is not UTF-8 once percent-decoded") from None
