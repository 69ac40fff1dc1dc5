"""For which hosts a certificate is, where OpenSSL does not say it as every other client does (RFC 9525).

This room owns names with an underscore: OpenSSL lets no wildcard stand for one, nor beside one. It must not be asked for any other:
what OpenSSL can judge, it judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEAST_DOTS = 2


def openssl_cannot_judge(host: str) -> bool:
    """Whether the host has an underscore. An address has none."""
    return "_" in host


def is_for(certificate: Mapping[str, Any] | None, host: str) -> bool:
    """Whether a verified certificate, as `SSLSocket.getpeercert` has it, is for a host name (not an address).

    As curl and OpenSSL: a name of the subject counts only where there is no alternative name at all.
    """
    if not certificate:
        return False
    wanted = host.lower().removesuffix(".")
    return any(_matches(name.lower().removesuffix("."), wanted) for name in _names(certificate))


def _names(certificate: Mapping[str, Any]) -> list[str]:
    alternative = certificate.get("subjectAltName")
    if alternative:
        return [name for kind, name in alternative if kind == "DNS"]
    common = [value for part in certificate.get("subject", ()) for label, value in part if label == "commonName"]
    return common[-1:]


def _matches(pattern: str, host: str) -> bool:
    """A star is a whole first label, stands for one label, and has at least two more behind it."""
    star, _, rest = pattern.partition(".")
    if star != "*":
        return pattern == host and "*" not in pattern
    label, _, parent = host.partition(".")
    return bool(label) and rest == parent and "*" not in rest and pattern.count(".") >= _LEAST_DOTS
