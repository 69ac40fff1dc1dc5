"""Turns the network settings into what `transport` uses: proxies, trusted roots, and the rules of the policy file."""

from __future__ import annotations

from pathlib import Path

from relay_agent.config.policy_file import LoadedPolicy, load_policy
from relay_agent.config.settings import Settings
from relay_agent.core.errors import ConfigurationError, Mistake
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.target_settings import CallRules
from relay_agent.transport.tls import TlsContexts

SYSLOG_SETTINGS = frozenset({"log_syslog", "ca_file", "requests_ca_bundle", "ssl_cert_file"})
"""What the delivery of log lines by syslog needs."""


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
    return TlsContexts(trusted=settings.trust.roots)


def syslog_tls(settings: Settings) -> TlsContexts:
    """Return the TLS contexts for the log receiver: they trust the settings' roots, and offer no HTTP."""
    return TlsContexts(trusted=settings.trust.roots, protocol=None)


def load_rules(settings: Settings, file: Path | None = None) -> LoadedPolicy:
    """Read the policy file, or another `file`; without one, every call is allowed but for the built-in denials.

    Raises:
        ConfigurationError: the file has mistakes.
    """
    path, admin = file or settings.policy_file, settings.admin_endpoint
    if path is None:
        return LoadedPolicy(CallRules(Policy(admin)))
    return load_policy(path, admin, settings.trust)


def roots(settings: Settings) -> str:
    """Describe the trusted roots, with the variables that give their files."""
    return settings.trust.roots.description


def read_roots(settings: Settings) -> None:
    """Read the files of trusted roots, so that later changes of them change nothing.

    Raises:
        ConfigurationError: a file cannot be read any more.
    """
    try:
        settings.trust.roots.read()
    except OSError as error:
        name = "RELAY_CA_FILE" if settings.ca_file and error.filename == str(settings.ca_file) else "REQUESTS_CA_BUNDLE"
        raise ConfigurationError(Mistake(name, f"cannot read {error.filename} ({error.strerror})")) from None
