"""Checks whether a certificate is for a host name with an underscore (RFC 9525).

For such names only: unlike other clients, OpenSSL matches no wildcard with them. It checks all other names itself.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Protocol

_LEAST_DOTS = 2
_OF_HOSTS = frozenset({"DNS", "IP Address"})
"""The kinds of alternative names that are for hosts, as `getpeercert` names them."""


class Session(Protocol):
    """A TLS session whose certificate was verified."""

    def getpeercert(self) -> Mapping[str, Any] | None:
        """Return the certificate as `SSLSocket.getpeercert` does."""


def openssl_cannot_judge(host: str) -> bool:
    """Return whether the host has an underscore."""
    return "_" in host


def has_certificate_for(session: Session, host: str) -> bool:
    """Return whether the certificate of a verified session is for a host name; False if Python cannot decode one of its names."""
    try:
        return is_for(session.getpeercert(), host)
    except (ValueError, ssl.SSLError):
        return False


def is_for(certificate: Mapping[str, Any] | None, host: str) -> bool:
    """Return whether a verified certificate, as `SSLSocket.getpeercert` returns it, is for a host name (not an address).

    As in curl, the subject's common name counts only if no alternative name is for a host: neither a DNS name nor an address.
    """
    if not certificate:
        return False
    wanted = host.lower().removesuffix(".")
    return any(_matches(name.lower().removesuffix("."), wanted) for name in _names(certificate))


def _names(certificate: Mapping[str, Any]) -> list[str]:
    alternative = certificate.get("subjectAltName", ())
    if any(kind in _OF_HOSTS for kind, _ in alternative):
        return [name for kind, name in alternative if kind == "DNS"]
    common = [value for part in certificate.get("subject", ()) for label, value in part if label == "commonName"]
    return common[-1:]


def _matches(pattern: str, host: str) -> bool:
    """Match a name, or a wildcard: a star as the whole first label, followed by at least two labels, matches one label."""
    star, _, rest = pattern.partition(".")
    if star != "*":
        return pattern == host and "*" not in pattern
    label, _, parent = host.partition(".")
    return bool(label) and rest == parent and "*" not in rest and pattern.count(".") >= _LEAST_DOTS
