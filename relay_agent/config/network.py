"""Turns the network settings into what `transport` uses: proxies and trusted roots (SECURITY §1)."""

from __future__ import annotations

from relay_agent.config.settings import Settings
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.tls import TlsContexts


def proxy_router(settings: Settings) -> ProxyRouter:
    """Return the routes that the proxy variables describe."""
    shared = {"http_proxy": settings.http_proxy, "https_proxy": settings.https_proxy, "all_proxy": settings.all_proxy}
    replaced = {Leg.PLATFORM: settings.platform_proxy, Leg.TARGET: settings.target_proxy}
    return ProxyRouter(
        {name: text for name, text in shared.items() if text},
        settings.no_proxy or "",
        {leg: text for leg, text in replaced.items() if text},
    )


def tls_contexts(settings: Settings) -> TlsContexts:
    """Return the TLS contexts that trust the settings' roots."""
    return TlsContexts(settings.ca_bundle, settings.ca_file, roots(settings))


def roots(settings: Settings) -> str:
    """Describe the trusted roots, with the variables that give their files."""
    if settings.requests_ca_bundle:
        base = f"REQUESTS_CA_BUNDLE={settings.requests_ca_bundle}"
    elif settings.ssl_cert_file:
        base = f"SSL_CERT_FILE={settings.ssl_cert_file}"
    else:
        base = "certifi's roots"
    return f"{base} and RELAY_CA_FILE={settings.ca_file}" if settings.ca_file else base
