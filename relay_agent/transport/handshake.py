"""What a TLS handshake shows in plain, which Python's ssl does not tell.

This room owns reading the records that we send, and the first bytes that come. It must not wait, nor name a fault.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

MAX_FIRST = 256
"""Bytes of what comes that are kept: a ServerHello's cipher ends before the 80th."""
_HEADER = 5
_CIPHER_CHANGE, _ALERT, _HANDSHAKE, _SEALED = 20, 21, 22, 23
_SERVER_HELLO = 2
_SESSION_ID = 43
"""Where a ServerHello has the length of its session id: behind both headers, version and random."""
_UNASKED = 2
"""A client that is not asked for a certificate says ClientHello and ClientKeyExchange before it changes the cipher (RFC 5246 §7.3)."""
_SEAL = 17
"""What TLS 1.3 adds to what it seals: the type, and the tag (RFC 8446 §5.2)."""
_VERSIONS = {0x0002: "SSL 2", 0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1"}
_CIPHERS = {
    0x0003: "RC4, 40 bits (export)",
    0x0004: "RC4",
    0x0005: "RC4",
    0x0008: "DES, 40 bits (export)",
    0x0009: "DES",
    0x000A: "3DES",
    0x0013: "3DES",
    0x0016: "3DES",
    0xC007: "RC4",
    0xC008: "3DES",
    0xC011: "RC4",
    0xC012: "3DES",
}
_ALERTS = {
    40: "handshake_failure",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    112: "unrecognized_name",
    116: "certificate_required",
    120: "no_application_protocol",
}
_FATAL = 2
_GREETINGS = (
    (re.compile(rb"HTTP/|<(?:!doctype|html)", re.IGNORECASE), "plain HTTP"),
    (re.compile(rb"SSH-"), "SSH"),
    (re.compile(rb"220[ -]"), "SMTP or FTP"),
    (re.compile(rb"\+OK "), "POP3"),
    (re.compile(rb"\* OK "), "IMAP"),
    (re.compile(rb"RFB "), "VNC"),
)
_OF_THE_PEER = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(\w+)")


@dataclass(frozen=True, slots=True)
class Heard:
    """What the other side said first: `protocol` where that is no TLS; of a ServerHello an old `version`, and its `cipher`; an `alert`."""

    protocol: str | None = None
    version: str | None = None
    cipher: str | None = None
    alert: str | None = None


class OwnRecords:
    """Whether the other side asked for a client certificate: `asked` is for its owner to take back once an answer shows that it goes on.

    To be asked is to answer, if only with an empty Certificate message (RFC 5246 §7.4.6, RFC 8446 §4.4.2). So our own records tell,
    by their headers: OpenSSL gives each message of a handshake its own. A renegotiation is told as well, as its records have the
    same headers.
    """

    def __init__(self) -> None:
        self.asked = False
        self._messages = 0
        self._sealed = 0

    def note(self, records: bytes) -> None:
        """Take note of records that we send; whole ones."""
        place = 0
        while place + _HEADER <= len(records):
            kind, length = records[place], int.from_bytes(records[place + 3 : place + _HEADER])
            if kind == _HANDSHAKE:
                self._messages += 1
            elif kind == _CIPHER_CHANGE:
                self.asked |= self._messages > _UNASKED
                self._messages = -1  # Finished follows, and is none of the next handshake.
            elif kind == _SEALED:
                self._sealed += length
            place += _HEADER + length

    def stands(self, version: str | None, cipher: tuple[str, str, int] | None) -> None:
        """The handshake is done, and nothing else was sent: in TLS 1.3 only Finished is sealed where nobody asked (RFC 8446 §4.4)."""
        if version == "TLSv1.3" and cipher is not None:
            digest = 48 if cipher[0].endswith("SHA384") else 32
            self.asked = self._sealed > 4 + digest + _SEAL


def heard(first: bytes) -> Heard:
    """Read the first bytes of the other side."""
    if not first:
        return Heard()
    for pattern, protocol in _GREETINGS:
        if pattern.match(first):
            return Heard(protocol)
    if not _CIPHER_CHANGE <= first[0] <= _SEALED or first[1:2] not in (b"\x03", b""):
        return Heard("something else")
    if first[0] == _ALERT and first[3:6] == bytes((0, 2, _FATAL)) and len(first) > 6:
        return Heard(alert=_ALERTS.get(first[6], f"number {first[6]}"))
    return _server_hello(first)


def alert(error: ssl.SSLError) -> str | None:
    """The alert by which the other side ended the session, as RFC 8446 §6 names it; None where it was no alert."""
    found = _OF_THE_PEER.fullmatch(error.reason or "")
    return found[1].lower() if found else None


def _server_hello(first: bytes) -> Heard:
    if first[0] != _HANDSHAKE or len(first) <= _SESSION_ID or first[_HEADER] != _SERVER_HELLO:
        return Heard()
    place = _SESSION_ID + 1 + first[_SESSION_ID]
    chosen = first[place : place + 2]
    if len(chosen) < 2 or _HEADER + int.from_bytes(first[3:_HEADER]) < place + 2:
        return Heard()
    number = int.from_bytes(chosen)
    version = _VERSIONS.get(int.from_bytes(first[9:11]))
    return Heard(None, version, _CIPHERS.get(number, f"number 0x{number:04X}"))
