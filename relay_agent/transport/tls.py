"""TLS contexts: which roots are trusted, and which versions are spoken."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import certifi


class TlsContexts:
    """The TLS contexts of both legs: each made once, when first asked for, and safe to share between threads.

    `ca_bundle` stands in place of certifi's roots, `ca_file` is added to either.
    """

    def __init__(
        self,
        ca_bundle: Path | None = None,
        ca_file: Path | None = None,
        said: str = "certifi's roots, or those of REQUESTS_CA_BUNDLE, and RELAY_CA_FILE",
    ) -> None:
        self.said = said
        """Which roots are trusted, in words."""
        self._roots = (ca_bundle or Path(certifi.where()), *((ca_file,) if ca_file else ()))
        self._contexts: dict[tuple[bool, bool], ssl.SSLContext] = {}
        self._lock = threading.Lock()

    @property
    def roots(self) -> tuple[Path, ...]:
        """The PEM files whose certificates are trusted, for clients that take files only, and for `explain`."""
        return self._roots

    def context(self, verify: bool, *, names: bool = True) -> ssl.SSLContext:
        """Give the client context that verifies certificates and names, or the one that does neither.

        Without `names` it verifies certificates, and the caller must see that they are for the host (`hostnames`).

        Raises:
            OSError: a file of roots cannot be read (it could when the settings were checked).
        """
        kind = verify, names or not verify
        with self._lock:
            if kind not in self._contexts:
                self._contexts[kind] = self._verifying(names) if verify else self._lenient()
            return self._contexts[kind]

    def _base(self) -> ssl.SSLContext:
        # Not create_default_context(): from Python 3.13 on it refuses (VERIFY_X509_STRICT) what the private
        # CAs of a laboratory issue, and it honours SSLKEYLOGFILE.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _verifying(self, names: bool) -> ssl.SSLContext:
        context = self._base()
        context.check_hostname = names
        # Python's own list leaves out RSA key exchange and CBC, which instruments speak and curl takes.
        context.set_ciphers("DEFAULT")
        # An issuing CA given without its root is enough, as it is for curl.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # A body without a length is whole only when TLS says goodbye (RFC 9112 §9.8).
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0x80)
        for path in self._roots:
            context.load_verify_locations(cafile=str(path))
        return context

    def _lenient(self) -> ssl.SSLContext:
        """Take any certificate, and of old instruments their short keys and unsafe renegotiation."""
        context = self._base()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.options |= getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)  # named from Python 3.12 on
        return context
