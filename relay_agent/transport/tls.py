"""TLS contexts: which roots are trusted, which versions and ciphers are accepted."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import certifi


class TlsContexts:
    """The TLS contexts of both legs, each made when it is first used. Any thread may call.

    `ca_bundle` replaces certifi's roots; `ca_file` is added to either. `description` says in words which roots are trusted.
    """

    def __init__(
        self,
        ca_bundle: Path | None = None,
        ca_file: Path | None = None,
        description: str = "certifi's roots, or those of REQUESTS_CA_BUNDLE, and RELAY_CA_FILE",
    ) -> None:
        self.description = description
        self._roots = (ca_bundle or Path(certifi.where()), *((ca_file,) if ca_file else ()))
        self._contexts: dict[tuple[bool, bool], ssl.SSLContext] = {}
        self._lock = threading.Lock()

    @property
    def roots(self) -> tuple[Path, ...]:
        """The PEM files whose certificates are trusted."""
        return self._roots

    def context(self, verify: bool, *, names: bool = True) -> ssl.SSLContext:
        """Return the client context that verifies certificates and names, or the one that verifies neither.

        Without `names` it verifies only certificates, and the caller must check that they are for the host (`hostnames`).

        Raises:
            OSError: a file of roots cannot be read any more.
        """
        kind = verify, names or not verify
        with self._lock:
            if kind not in self._contexts:
                self._contexts[kind] = self._verifying(names) if verify else self._lenient()
            return self._contexts[kind]

    def _base(self) -> ssl.SSLContext:
        # Not create_default_context(): from Python 3.13 on it refuses (VERIFY_X509_STRICT) certificates as private CAs of
        # laboratories issue them, and it writes session keys to SSLKEYLOGFILE.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _verifying(self, names: bool) -> ssl.SSLContext:
        context = self._base()
        context.check_hostname = names
        # Python's own list has no RSA key exchange and no CBC, which instruments need and curl accepts.
        context.set_ciphers("DEFAULT")
        # An issuing CA without its root is enough, as it is for curl.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # A body without a length is complete only if close_notify follows (RFC 9112 §9.8).
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0x80)
        for path in self._roots:
            context.load_verify_locations(cafile=str(path))
        return context

    def _lenient(self) -> ssl.SSLContext:
        """Return a context that accepts any certificate, and the short keys and the unsafe renegotiation of old instruments."""
        context = self._base()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.options |= getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)  # named from Python 3.12 on
        return context
