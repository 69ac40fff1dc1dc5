"""Generates foreign input of any length for the measurements of `doubling`."""

from __future__ import annotations

from Crypto.Util.asn1 import DerInteger, DerObject, DerOctetString, DerSequence, DerSetOf

SECRETS = ("correct horse battery staple", "A" * 40 + "=", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", bytes(range(32)))


def filled(unit: str, length: int) -> str:
    """The unit again and again, so many characters long."""
    return (unit * (length // len(unit) + 1))[:length]


def certificate(name: bytes, kind: bytes = b"\x55\x04\x03") -> bytes:
    """As much of an X.509 certificate as is read, for a subject of that name, which the object identifier `kind` says it is."""
    text = DerObject(0x0C, name).encode()
    distinguished = DerSequence([DerSetOf([DerSequence([DerObject(0x06, kind).encode(), text]).encode()]).encode()]).encode()
    moment = DerObject(0x17, b"260101000000Z").encode()
    validity = DerSequence([moment, moment]).encode()
    nothing = DerOctetString(b"").encode()
    tbs = DerSequence([DerInteger(1).encode(), nothing, distinguished, validity, distinguished, nothing]).encode()
    return DerSequence([tbs, nothing, nothing]).encode()
