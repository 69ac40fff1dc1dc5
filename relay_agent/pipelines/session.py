"""A requests session for the sender's calls to the platform, with the proxies and trusted roots of the settings.

This module owns how that session is built. It must not send anything.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter

from relay_agent.config.network import proxy_router, tls_contexts
from relay_agent.config.settings import Settings
from relay_agent.core.models import host_and_port
from relay_agent.core.urls import parse_url
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.proxy_routing import Leg


def platform_session(settings: Settings) -> requests.Session:
    """Return a session that reaches API_TARGET as the agent does; the caller must close it."""
    session = requests.Session()
    session.trust_env = False
    proxy = proxy_router(settings).route(Leg.PLATFORM, parse_url(settings.api_target)).proxy
    if proxy is not None:
        session.proxies = dict.fromkeys(("http", "https"), _proxy_url(proxy))
    session.mount("https://", _TrustingAdapter(tls_contexts(settings).context(True)))
    return session


class _TrustingAdapter(HTTPAdapter):
    """Verifies both the platform and an HTTPS proxy with one TLS context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        more = {} if proxy.startswith("socks") else {"proxy_ssl_context": self._context}
        return super().proxy_manager_for(proxy, ssl_context=self._context, **more, **kwargs)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing: requests would add certifi's roots to those of the context."""


def _proxy_url(proxy: Proxy) -> str:
    where = host_and_port(proxy.host, proxy.port)
    if proxy.username is None:
        return f"{proxy.scheme}://{where}"
    return f"{proxy.scheme}://{quote(proxy.username, safe='')}:{quote(proxy.password or '', safe='')}@{where}"
