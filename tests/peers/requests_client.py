"""Plain requests as a client."""

from __future__ import annotations

import warnings
from pathlib import Path

import requests
import urllib3

from tests.peers.outcome import Kind, Result, grouped
from tests.peers.script import Ask, Script

_MARKS: tuple[tuple[str, Kind], ...] = (("RemoteDisconnected", "reset"), ("ConnectionReset", "reset"), ("BrokenPipe", "reset"))


class Requests:
    """Requests, with a session for each script."""

    name = "requests"

    def __init__(self, authority: Path, limit_seconds: float) -> None:
        self._authority = str(authority)
        self._limit = limit_seconds

    def run(self, script: Script, port: int) -> list[Result]:
        """Make the requests in one session."""
        with requests.Session() as session:
            session.trust_env = False
            session.verify = self._authority
            session.max_redirects = 10
            return [self._one(session, script, ask, port) for ask in script.asks]

    def _one(self, session: requests.Session, script: Script, ask: Ask, port: int) -> Result:
        url = f"{'http' if script.tls is None else 'https'}://{ask.at}:{port}{ask.path}"
        headers = {} if ask.host is None else {"Host": ask.host}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = session.request(ask.method, url, data=ask.body or None, headers=headers, timeout=self._limit)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return Result(_kind(error), detail=f"{type(error).__name__}: {error}"[:300])
        # It turns an empty fold into a second space.
        fields = [(name, value.replace("  ", " ")) for name, value in found.raw.headers.iteritems()]
        return Result("answer", found.status_code, grouped(fields, port), found.content)


def _kind(error: Exception) -> Kind:
    if isinstance(error, requests.Timeout):
        return "timeout"
    if isinstance(error, requests.TooManyRedirects):
        return "redirects"
    if isinstance(error, requests.exceptions.SSLError):
        return "tls"
    text = repr(error)
    if "ECONNREFUSED" in text or "Connection refused" in text:
        return "refused"
    return next((kind for mark, kind in _MARKS if mark in text), "bad")
