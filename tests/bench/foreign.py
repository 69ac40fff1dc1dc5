"""Foreign input of any length, for the measurements of `doubling`.

Owns how it is made. It must not run anything.
"""

from __future__ import annotations

import http.client

from Crypto.Util.asn1 import DerInteger, DerObject, DerOctetString, DerSequence, DerSetOf

SECRETS = ("correct horse battery staple", "A" * 40 + "=", "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", bytes(range(32)))


def filled(unit: str, length: int) -> str:
    """The unit again and again, so many characters long."""
    return (unit * (length // len(unit) + 1))[:length]


class Received:
    """What http.cookiejar reads cookies from."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self.msg = http.client.HTTPMessage()
        for name, value in headers:
            self.msg[name] = value

    def isclosed(self) -> bool:
        """There is no connection behind it."""
        return True

    def close(self) -> None:
        """There is nothing to close."""


def received(headers: list[tuple[str, str]]) -> Received:
    """A response that has only these header fields."""
    return Received(headers)


def certificate(name: bytes, kind: bytes = b"\x55\x04\x03") -> bytes:
    """As much of an X.509 certificate as is read, for a subject of that name, which the object identifier `kind` says it is."""
    text = DerObject(0x0C, name).encode()
    distinguished = DerSequence([DerSetOf([DerSequence([DerObject(0x06, kind).encode(), text]).encode()]).encode()]).encode()
    moment = DerObject(0x17, b"260101000000Z").encode()
    validity = DerSequence([moment, moment]).encode()
    nothing = DerOctetString(b"").encode()
    tbs = DerSequence([DerInteger(1).encode(), nothing, distinguished, validity, distinguished, nothing]).encode()
    return DerSequence([tbs, nothing, nothing]).encode()
