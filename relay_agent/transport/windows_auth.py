"""NTLM and Negotiate (RFC 4559), by pyspnego: the extra `windows-auth`.

pyspnego is imported only if a policy file names one of them: it takes 10 MB. Each handshake authenticates one connection. This module
must not send anything.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

from relay_agent.transport.authentication import Call, Handshake
from relay_agent.transport.challenges import Challenge

_NTLM_NEGOTIATE = b"NTLMSSP\0\1\0\0\0"
"""How NTLM's first message begins, inside the first of Negotiate too."""


@dataclass(frozen=True, slots=True)
class Windows:
    r"""A user (`DOMAIN\\user` or `user@domain`) and a password for NTLM or Negotiate."""

    scheme: Literal["ntlm", "negotiate"]
    user: str
    password: SecretStr
    per_connection = True

    def handshake(self, call: Call) -> Handshake:
        """Return what authenticates one exchange."""
        return _Handshake(self, call.host)


def import_library() -> None:
    """Load pyspnego.

    Raises:
        ImportError: it is not installed, or does not run here.
    """
    importlib.import_module("spnego.channel_bindings")


class _Handshake:
    """Opens with a first token once it is asked; each further token answers one of the peer's, on the same connection."""

    def __init__(self, credentials: Windows, host: str) -> None:
        self._credentials = credentials
        self._host = host
        self._asked = False
        self._context: Any = None
        self._next: bytes | None = None
        self._certificate: bytes | None = None
        self.opening = False

    @property
    def bound(self) -> bool:
        """Whether a token is ready that answers one of the peer's."""
        return self._next is not None

    def connected(self, certificate: bytes | None) -> None:
        """Restart the handshake on a new connection; the earlier exchange is discarded."""
        self._context = self._next = None
        self._certificate = certificate

    def challenged(self, challenges: Sequence[Challenge]) -> bool:
        """Take the peer's token, or its request for one. A request after tokens were sent means that they were refused."""
        found = next((one for one in challenges if one.scheme == self._credentials.scheme), None)
        if found is None:
            return False
        self._asked = True
        if self._context is None:
            return True
        try:
            token = base64.b64decode(found.token, validate=True)
            self._next = self._context.step(token) if token and not self._context.complete else None
        except Exception:  # noqa: BLE001 - the token is the peer's, and pyspnego raises whatever its parsers meet
            return False
        return self._next is not None

    def authorization(self) -> str | None:
        self.opening = False
        token, self._next = self._next, None
        if token is None:
            if not self._asked or self._context is not None:
                return None
            self._context = self._new_context()
            token = self._context.step()
            # Kerberos' first token may be its last, and then the request is executed: only before NTLM's is it certain to be refused.
            self.opening = _NTLM_NEGOTIATE in token
        return f"{_SCHEMES[self._credentials.scheme]} {base64.b64encode(token).decode()}"

    def _new_context(self) -> Any:
        import spnego

        return spnego.client(
            self._credentials.user,
            self._credentials.password.get_secret_value(),
            hostname=self._host,
            service="HTTP",
            protocol=self._credentials.scheme,
            channel_bindings=None if self._certificate is None else _bindings(self._certificate),
        )


_SCHEMES = {"ntlm": "NTLM", "negotiate": "Negotiate"}


def _bindings(certificate: bytes) -> Any:
    """Bind the handshake to the TLS connection's certificate (`tls-server-end-point`, RFC 5929 §4), which Extended Protection demands."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from spnego.channel_bindings import GssChannelBindings

    try:
        read = x509.load_der_x509_certificate(certificate)
        signed = read.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None  # A server that does not demand the binding accepts the handshake without.
    algorithm = hashes.SHA256() if signed is None or isinstance(signed, hashes.MD5 | hashes.SHA1) else signed
    return GssChannelBindings(application_data=b"tls-server-end-point:" + read.fingerprint(algorithm))
