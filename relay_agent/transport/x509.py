"""Reads names, issuer and validity of an X.509 certificate in DER form, for messages.

Python's ssl gives the certificate of a peer that was not verified only as bytes. It must not decide whether to trust one.
"""

from __future__ import annotations

import binascii
import hashlib
import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from Crypto.Util.asn1 import DerObject, DerObjectId, DerSequence, DerSetOf

from relay_agent.core.urls import literal_address

_LABELS = {"2.5.4.3": "CN", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST"}
_ALT_NAMES = "2.5.29.17"
_EXTENSIONS, _VERSION = b"\xa3", b"\xa0"
_UTC_TIME = 0x17
_BMP_STRING, _UTF8_STRING = 0x1E, 0x0C
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87
_MOST_NAMES = 100
_MOST_PARTS = 10
MAX_CERTIFICATE = 256 * 1024
"""Bytes above which a certificate is not read. Real ones have a few thousand, and OpenSSL takes 100 KB by default."""
# Those that are compared have ten; decoding is quadratic in the length.
_MAX_OBJECT_ID = 64
"""Bytes above which an object identifier is not decoded."""
_PEM = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----([^-]*)-----END")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Subject and issuer as `CN=…, O=…`; `names` are the hosts that it is for; times are in UTC."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]

    def left(self, now: datetime) -> timedelta:
        """Return how long it is still valid; negative if it has expired."""
        return self.not_after - now


def read_certificate(der: bytes) -> Certificate | None:
    """Read an X.509 certificate (RFC 5280 §4.1), which anybody may have made; returns None if it cannot be read."""
    if len(der) > MAX_CERTIFICATE:
        return None
    try:
        return _read(der)
    except (ValueError, IndexError, TypeError, EOFError, OverflowError):
        return None


def certificates_in(pem: bytes) -> list[bytes]:
    """Return the certificates in the text of a PEM file (RFC 7468 §5), each in DER form; a private key in it is passed over."""
    found = []
    for match in _PEM.finditer(pem):
        try:
            found.append(_first_object(binascii.a2b_base64(match[1])))
        except (ValueError, IndexError):
            continue
    return found


def _first_object(der: bytes) -> bytes:
    """Return the first object of DER: OpenSSL's trusted certificates have another one behind."""
    length, head = der[1], 2
    if length & 0x80:
        head += length & 0x7F
        length = int.from_bytes(der[2:head])
    return der[: head + length]


def public_key_digest(der: bytes) -> bytes | None:
    """Return the SHA-256 digest of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4); returns None if it cannot be read."""
    if len(der) > MAX_CERTIFICATE:
        return None
    try:
        return hashlib.sha256(_fields(der)[5]).digest()
    except (ValueError, IndexError, TypeError, EOFError, OverflowError):
        return None


def _fields(der: bytes) -> list[bytes]:
    """Return the fields of a TBSCertificate after the version (RFC 5280 §4.1)."""
    fields = _sequence(_sequence(der)[0])
    return fields[1:] if fields[0][:1] == _VERSION else fields


def _read(der: bytes) -> Certificate:
    fields = _fields(der)
    _serial, _algorithm, issuer, validity, subject = fields[:5]
    not_before, not_after = (_moment(part) for part in _sequence(validity))
    extensions = next((part for part in fields[6:] if part[:1] == _EXTENSIONS), None)
    return Certificate(_name(subject), _name(issuer), not_before, not_after, _alt_names(extensions) if extensions else ())


def _sequence(der: bytes) -> list[bytes]:
    """Return the members, each as DER; an integer, which nothing here needs, as no bytes."""
    found = DerSequence().decode(der)
    members = (found[index] for index in range(len(found)))
    return [member if isinstance(member, bytes) else b"" for member in members]


def _object(der: bytes) -> DerObject:
    found = DerObject()
    found.decode(der)
    return found


def _object_id(der: bytes) -> str:
    return str(DerObjectId().decode(der).value) if len(der) <= _MAX_OBJECT_ID else ""


def _name(der: bytes) -> str:
    """Return a distinguished name as people read it, the most specific part first."""
    parts: list[str] = []
    for relative in _sequence(der):
        for pair in DerSetOf().decode(relative):
            kind, value = _sequence(pair if isinstance(pair, bytes) else b"")
            label = _LABELS.get(_object_id(kind))
            if label and len(parts) < _MOST_PARTS:
                parts.append(f"{label}={_text(value)}")
    return ", ".join(reversed(parts)) or "(no name)"


def _text(der: bytes) -> str:
    encoding = {_BMP_STRING: "utf-16-be", _UTF8_STRING: "utf-8"}.get(der[0], "latin-1")
    return printable(_object(der).payload.decode(encoding, "replace"))


def printable(text: str) -> str:
    """Return at most 100 characters of a text, without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:100])


def _moment(der: bytes) -> datetime:
    text = _object(der).payload.decode("ascii")
    moment = datetime.strptime(text, "%y%m%d%H%M%SZ" if der[0] == _UTC_TIME else "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    # RFC 5280 §4.1.2.5.1: two digits below 50 mean this century; strptime has the limit at 69.
    return moment.replace(year=moment.year - 100) if der[0] == _UTC_TIME and moment.year >= 2050 else moment


def _alt_names(extensions: bytes) -> tuple[str, ...]:
    for extension in _sequence(_object(extensions).payload):
        parts = _sequence(extension)
        if _object_id(parts[0]) == _ALT_NAMES:
            found = [_alt_name(part) for part in _sequence(_object(parts[-1]).payload)[:_MOST_NAMES]]
            return tuple(name for name in found if name)
    return ()


def _alt_name(der: bytes) -> str | None:
    if der[0] == _DNS_NAME:
        name = printable(_object(der).payload.decode("latin-1"))
        # squid re-signs like this. A client that looks for the address does not find it here (RFC 9110 §4.3.5).
        return f"{name} (as a name, not as an address)" if literal_address(name) else name
    if der[0] == _IP_ADDRESS:
        return str(ipaddress.ip_address(_object(der).payload))
    return None
