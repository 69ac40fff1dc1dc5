"""TLS contexts: which roots are trusted, which versions and ciphers are accepted, what the agent shows of itself, and pinned keys."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import certifi
from pydantic import SecretStr

from relay_agent.core.files import as_file, read_regular


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The certificate by which the agent identifies itself to a target (PEM files); without `key`, `certificate` contains both.

    The fields that end in `_pem` are what the files contained when they were read: later changes of the files change nothing.
    """

    certificate: Path
    key: Path | None = None
    password: SecretStr = field(default=SecretStr(""))
    certificate_pem: bytes = field(default=b"", repr=False)
    key_pem: bytes | None = field(default=None, repr=False)

    def load(self, context: ssl.SSLContext) -> None:
        """Make a context present the certificate.

        Raises:
            OSError: the system gives no file descriptor. ssl.SSLError: the password is wrong, the key is not the certificate's, or one is
                no PEM.
        """
        with as_file(self.certificate_pem) as certificate, as_file(self.key_pem or b"") as key:
            # A function, since OpenSSL would otherwise ask at the terminal for the password of an encrypted key.
            context.load_cert_chain(certificate, None if self.key_pem is None else key, lambda: self.password.get_secret_value().encode())


DEFAULT_ROOTS = "certifi's roots, or those of REQUESTS_CA_BUNDLE, and RELAY_CA_FILE"
"""Which roots are trusted if no target's settings say otherwise, in words."""


class RootsFile:
    """A PEM file of roots, read once."""

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path
        self._first_read = content
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """Return what the file contained when this was first called.

        Raises:
            OSError: it cannot be read.
        """
        with self._lock:
            if self._first_read is None:
                self._first_read = read_regular(self.path)
            return self._first_read


class Roots:
    """The roots that some peers' certificates are checked against: PEM files, each read once. Any thread may call.

    All who trust them share these contexts, unless they show a client certificate: parsing certifi's roots takes 50 ms and 0.7 MB.
    """

    def __init__(self, files: Sequence[Path | RootsFile], description: str = DEFAULT_ROOTS, *, of_table: bool = False) -> None:
        """`description` says in words which roots these are, for whoever may read the policy file if they are `of_table`: its `ca_file`."""
        self._parts = tuple(file if isinstance(file, RootsFile) else RootsFile(file) for file in files)
        self.description = description
        self.of_table = of_table
        self._lock = threading.Lock()
        self._contexts: dict[Hashable, ssl.SSLContext] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The PEM files."""
        return tuple(part.path for part in self._parts)

    @property
    def parts(self) -> tuple[RootsFile, ...]:
        """The files with their contents."""
        return self._parts

    @property
    def setting(self) -> str:
        """The settings that name the files, for whoever may not know the policy's files: the platform."""
        if not self.of_table:
            return self.description
        return f"the ca_file of its [[target]] table{' and RELAY_CA_FILE' if len(self._parts) > 1 else ''}"

    def read(self) -> Roots:
        """Read the files now unless they have been read, and return the roots themselves.

        Raises:
            OSError: a file cannot be read.
        """
        for part in self._parts:
            part.read()
        return self

    def load(self, context: ssl.SSLContext) -> None:
        """Make a context trust the roots.

        Raises:
            OSError: a file cannot be read.
        """
        for part in self._parts:
            with as_file(part.read()) as path:
                context.load_verify_locations(cafile=path)

    def shared(self, kind: Hashable, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Return the context of a kind, made when it is first asked for."""
        with self._lock:
            if kind not in self._contexts:
                self._contexts[kind] = make()
            return self._contexts[kind]


def default_roots(ca_bundle: Path | None, ca_file: Path | None, description: str = DEFAULT_ROOTS) -> Roots:
    """Return certifi's roots, or those of `ca_bundle` in their place, and those of `ca_file` in addition."""
    return Roots((ca_bundle or Path(certifi.where()), *((ca_file,) if ca_file else ())), description)


class TlsContexts:
    """The TLS contexts of both legs, or of some targets, each made when it is first used. Any thread may call.

    They trust `trusted`; without it certifi's roots or those of `ca_bundle`, and those of `ca_file` in addition. `pins` are SHA-256
    digests of public keys (RFC 7469 §2.4): if there are any, the peer's key must be one of them, verified or not. `protocol` is offered
    in the handshake (ALPN, RFC 7301).
    """

    def __init__(
        self,
        ca_bundle: Path | None = None,
        ca_file: Path | None = None,
        *,
        trusted: Roots | None = None,
        client: ClientCertificate | None = None,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        pins: frozenset[bytes] = frozenset(),
        protocol: str | None = "http/1.1",
    ) -> None:
        self.trusted = trusted or default_roots(ca_bundle, ca_file)
        self.client = client
        self.pins = pins
        self.minimum = minimum
        self._protocol = protocol
        # What shows a client certificate is this table's alone.
        self._shared = self.trusted.shared if client is None else Roots(()).shared
        self._anonymous = TlsContexts(trusted=self.trusted, minimum=minimum, pins=pins, protocol=protocol) if client else None

    @property
    def without_client(self) -> TlsContexts:
        """The same contexts, but they show no client certificate."""
        return self._anonymous or self

    @property
    def roots(self) -> tuple[Path, ...]:
        """The PEM files whose certificates are trusted."""
        return self.trusted.files

    @property
    def description(self) -> str:
        """Which roots are trusted, in words."""
        return self.trusted.description

    def context(self, verify: bool, *, names: bool = True) -> ssl.SSLContext:
        """Return the client context that verifies certificates and names, or the one that verifies neither.

        Without `names` it verifies only certificates, and the caller must check that they are for the host (`hostnames`).

        Raises:
            OSError: a file of roots cannot be read, and was not read before; or the system gives no file descriptor.
        """
        names = names or not verify
        kind = verify, names, self.minimum, self._protocol
        return self._shared(kind, lambda: self._verifying(names) if verify else self._lenient())

    def _base(self) -> ssl.SSLContext:
        # Not create_default_context(): from Python 3.13 on it refuses (VERIFY_X509_STRICT) certificates as private CAs of
        # laboratories issue them, and it writes session keys to SSLKEYLOGFILE.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = self.minimum
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        # TLS 1.3 has no renegotiation: servers that ask for a client certificate once they know the path (Apache's SSLVerifyClient in a
        # <Location>) refuse every client that does not offer this (RFC 8446 §4.6.2), also one without a certificate.
        context.post_handshake_auth = True
        if self._protocol is not None:
            context.set_alpn_protocols([self._protocol])
        if self.client is not None:
            self.client.load(context)
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
        self.trusted.load(context)
        return context

    def _lenient(self) -> ssl.SSLContext:
        """Return a context that accepts any certificate, and the short keys and the unsafe renegotiation of old instruments."""
        context = self._base()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.options |= getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)  # named from Python 3.12 on
        return context
