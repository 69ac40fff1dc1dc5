"""The grammar of proxy URLs (README.md, "Configuration"). A password is never shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from relay_agent.core.models import host_and_port
from relay_agent.core.urls import BadUrl, basic_authorization, normal_host, split_host_port

DEFAULT_PROXY_PORTS = {"http": 80, "https": 443, "socks5h": 1080}
"""Port of a proxy whose URL names none, by scheme."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: `host` as in `models.Url`; `username` and `password` are percent-decoded, None if not given."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def masked(self) -> str:
        """The URL without the password, for logs and messages: `http://user:***@host:port`."""
        userinfo = "" if self.username is None else quote(self.username, safe="")
        if self.password is not None:
            userinfo += ":***"
        return f"{self.scheme}://{userinfo}{'@' if userinfo else ''}{host_and_port(self.host, self.port)}"

    @property
    def authorization(self) -> str | None:
        """The value of a Proxy-Authorization header (RFC 7617), None if the URL names no user."""
        if self.username is None:
            return None
        return basic_authorization(f"{quote(self.username, safe='')}:{quote(self.password or '', safe='')}")


def parse_proxy(text: str) -> Proxy:
    """Parse `http://`, `https://` or `socks5h://` with an optional user and password; a bare `host:port` means http.

    Raises:
        BadUrl: it is not a proxy's URL. The text repeats no part of it, since it may contain a password.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    scheme = scheme.lower()
    if scheme not in DEFAULT_PROXY_PORTS:
        raise BadUrl("must begin with http://, https:// or socks5h://")
    userinfo, _, hostport = rest.removesuffix("/").rpartition("@")
    if any(character in rest.removesuffix("/") for character in "/?#\\") or any(character.isspace() for character in rest):
        raise BadUrl("must end after host and port; percent-encode / ? # @ and spaces in a password")
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
        userinfo.encode("utf-8")  # A variable whose bytes are not UTF-8 holds halves of surrogate pairs.
        return unquote(user, errors="strict"), unquote(password, errors="strict") if colon else None
    except UnicodeError:
        raise BadUrl("has a user or password that is not UTF-8 once percent-decoded") from None
