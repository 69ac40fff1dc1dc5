"""TLS settings for calls to targets, as a policy file's tables say: roots, client certificate, versions and pinned keys, each checked.

It must not know the rest of a table. What it finds wrong is noted with the file's other mistakes.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import SecretStr

from relay_agent.config.secrets import shown_path
from relay_agent.config.validators import read_certificates
from relay_agent.core.files import read_regular
from relay_agent.transport.tls import ClientCertificate, Roots, RootsFile, TlsContexts, default_roots

NUL = "the name of a file cannot contain a NUL character"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_PIN = re.compile(r"(?:sha256//?)?([A-Za-z0-9+/]{43}=)")
_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


class BaseTrust:
    """The roots that the agent's own settings name, each file read once: `ca_bundle` in place of certifi's, `ca_file` in addition."""

    def __init__(self, ca_bundle: Path | None = None, ca_file: Path | None = None, description: str = "certifi's roots") -> None:
        self.roots = default_roots(ca_bundle, ca_file, description)

    @property
    def added(self) -> tuple[RootsFile, ...]:
        """The file that stays trusted beside a table's own roots, if there is one."""
        return self.roots.parts[1:]


class TlsTable(Protocol):
    """The keys of a `[[target]]` table that are about TLS."""

    @property
    def ca_file(self) -> str | None:
        """The file of roots in place of those of the settings."""

    @property
    def client_cert(self) -> str | None:
        """The file of the client certificate."""

    @property
    def client_key(self) -> str | None:
        """The file of its key, if that is another one."""

    @property
    def client_key_password_file(self) -> str | None:
        """The file of the key's password."""

    @property
    def tls_min(self) -> Literal["1.2", "1.3"] | None:
        """The lowest version."""

    @property
    def pin_sha256(self) -> list[str] | None:
        """The digests of public keys, of which the peer must have one."""


class PolicyReading(Protocol):
    """The policy file that is being read."""

    @property
    def directory(self) -> Path:
        """The directory that the names in it are relative to."""

    def mistake(self, text: str) -> None:
        """Note a mistake."""

    def read(self, where: str, parse: Callable[[], _T], default: _T) -> _T:
        """Return what `parse` makes of a value, or note the mistake in it."""

    def named(self, name: str) -> Path:
        """Return the path of a file that the policy file names, and note that the rules depend on it."""

    def text_of(self, where: str, path: Path) -> str | None:
        """Return the text of a secret's file; None, and a mistake noted, if it has none."""

    def keep_secret(self, value: str) -> None:
        """Note a value that no log line may contain."""

    def use_certificate(self, where: str, path: Path) -> None:
        """Note a PEM file of certificates that is used; `where` names the table and key."""


class TlsReader:
    """Reads and checks what the tables of one policy file say about TLS: each file once, however many tables name it.

    It parses no roots but those of `ca_file`, and makes no context: each is made when a target is called first.
    """

    def __init__(self, file: PolicyReading, trust: BaseTrust) -> None:
        self._file = file
        self._trust = trust
        self._certificates: dict[Path, bytes | ValueError] = {}
        self._roots: dict[Path, Roots] = {}
        self._clients: dict[ClientCertificate, ClientCertificate | ValueError] = {}

    def contexts(self, where: str, table: TlsTable) -> TlsContexts | None:
        """Return the contexts of a table; None if it names nothing of its own, or has a mistake, which is noted."""
        roots = self._trust.roots if table.ca_file is None else self._own_roots(where, table.ca_file)
        client = self._client(where, table)
        pins = frozenset(
            pin
            for text in table.pin_sha256 or ()
            if (pin := self._file.read(f"{where}: pin_sha256", lambda text=text: _pin(text), b""))  # type: ignore[misc]
        )
        if roots is None or not (table.ca_file or client or pins or table.tls_min):
            return None
        return TlsContexts(trusted=roots, client=client, minimum=_VERSIONS[table.tls_min or "1.2"], pins=pins)

    def _own_roots(self, where: str, name: str) -> Roots | None:
        found = self._certificate(where, "ca_file", name)
        if found is None:
            return None
        path, content = found
        if path not in self._roots:
            files = (RootsFile(path, content), *self._trust.added)
            self._roots[path] = Roots(files, " and ".join(str(file.path) for file in files), of_table=True)
        return self._roots[path]

    def _certificate(self, where: str, key: str, name: str) -> tuple[Path, bytes] | None:
        path = self._file.named(name)
        self._file.use_certificate(f"{where}: {key}", path)
        if "\0" in name:
            self._file.mistake(f"{where}: {key}: {NUL}")
            return None
        read = partial(read_certificates, beside=self._file.directory)
        content = self._file.read(f"{where}: {key}", lambda: _once(self._certificates, path, read), None)
        return None if content is None else (path, content)

    def _client(self, where: str, table: TlsTable) -> ClientCertificate | None:
        if table.client_cert is None:
            for key in ("client_key", "client_key_password_file"):
                if getattr(table, key) is not None:
                    self._file.mistake(f"{where}: {key}: there is no client_cert")
            return None
        certificate = self._certificate(where, "client_cert", table.client_cert)
        key_file = None if table.client_key is None else self._file.named(table.client_key)
        password = ""
        if table.client_key_password_file is not None:
            password = self._file.text_of(f"{where}: client_key_password_file", self._file.named(table.client_key_password_file)) or ""
            if password:
                self._file.keep_secret(password)
        if certificate is None or (table.client_key_password_file is not None and not password):
            return None
        client = ClientCertificate(certificate[0], key_file, SecretStr(password), certificate[1])
        return self._file.read(where, lambda: _once(self._clients, client, partial(_tried, beside=self._file.directory)), None)


def _once(known: dict[_K, _T | ValueError], key: _K, read: Callable[[_K], _T]) -> _T:
    """Return what `read` makes of a key, or raise its ValueError, without a second call for the same key."""
    if key not in known:
        try:
            known[key] = read(key)
        except ValueError as error:
            known[key] = error
    found = known[key]
    if isinstance(found, ValueError):
        raise found
    return found


def _tried(client: ClientCertificate, beside: Path) -> ClientCertificate:
    """Return the client certificate with the content of its key's file, once OpenSSL has loaded both."""
    try:
        if client.key is not None:
            client = replace(client, key_pem=read_regular(client.key))
        client.load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except ssl.SSLError as error:
        raise ValueError(_UNUSABLE.get(error.reason or "") or _why_unusable(client)) from None
    except OSError as error:
        raise ValueError(f"client_key: cannot read {shown_path(client.key or '', beside)} ({error.strerror})") from None
    except ValueError:
        if "\0" in str(client.key):
            raise ValueError(f"client_key: {NUL}") from None
        raise
    return client


def _why_unusable(client: ClientCertificate) -> str:
    """Say why OpenSSL can load a certificate, but not its key."""
    content = client.certificate_pem if client.key_pem is None else client.key_pem
    key = "client_cert" if client.key is None else "client_key"
    if b"PRIVATE KEY-----" not in content:
        return "client_cert contains no private key; name it with `client_key`" if client.key is None else "client_key: it is no PEM key"
    if not any(mark in content for mark in (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")):
        return f"{key}: its key is damaged"
    if not client.password.get_secret_value():
        return f"{key}: the key is encrypted: name its password's file with `client_key_password_file`"
    return "client_key_password_file: the password is wrong, or the key is damaged"


_UNUSABLE = {"KEY_VALUES_MISMATCH": "client_key: it is not the key of client_cert"}


def _pin(text: str) -> bytes:
    """Read the digest of a public key in base64, with or without `sha256/` before it."""
    match = _PIN.fullmatch(text)
    if match is None:
        raise ValueError("must be the SHA-256 digest of a public key in base64, 44 characters (RFC 7469)")
    return base64.b64decode(match[1])
