"""Reads the unencrypted parts of a TLS handshake, for what Python's ssl does not report.

These are the headers of the records that are sent, and the first bytes that are received.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

MAX_FIRST = 256
"""First received bytes that are kept; a ServerHello's cipher ends before the 80th."""
_HEADER = 5
_CIPHER_CHANGE, _ALERT, _HANDSHAKE, _APPLICATION_DATA = 20, 21, 22, 23
_SERVER_HELLO = 2
_SESSION_ID = 43
"""Offset of the session id's length in a ServerHello: after both headers, version and random."""
_NOT_ASKED = 2
"""Messages before ChangeCipherSpec of a client that is not asked for a certificate: ClientHello, ClientKeyExchange (RFC 5246 §7.3)."""
_ENCRYPTION = 17
"""Bytes that encryption adds to a record in TLS 1.3: the type and the tag (RFC 8446 §5.2)."""
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
_RECEIVED_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(\w+)")


@dataclass(frozen=True, slots=True)
class FirstReceived:
    """What the peer's first bytes show; a field is None if they do not show it."""

    protocol: str | None = None
    """The protocol, if it is not TLS."""
    version: str | None = None
    """The version of a ServerHello, if it is older than TLS 1.2."""
    cipher: str | None = None
    alert: str | None = None


class SentRecords:
    """Finds out from the records that are sent whether the peer asked for a client certificate.

    A client that is asked answers at least with an empty Certificate message (RFC 5246 §7.4.6, RFC 8446 §4.4.2), and OpenSSL puts each
    message of a handshake into a record of its own. The records of a renegotiation have the same headers.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether the peer asked. The owner resets it once data from the peer shows that it accepts having got no certificate."""
        self._messages = 0
        self._encrypted = 0

    def sent(self, records: bytes) -> None:
        """Take complete records that are sent."""
        start = 0
        while start + _HEADER <= len(records):
            kind, length = records[start], int.from_bytes(records[start + 3 : start + _HEADER])
            if kind == _HANDSHAKE:
                self._messages += 1
            elif kind == _CIPHER_CHANGE:
                self.asked |= self._messages > _NOT_ASKED
                self._messages = -1  # Finished follows, which does not count for the next handshake.
            elif kind == _APPLICATION_DATA:
                self._encrypted += length
            start += _HEADER + length

    def handshake_done(self, version: str | None, cipher: tuple[str, str, int] | None) -> None:
        """Decide for TLS 1.3, before anything else is sent: only Finished is encrypted if the peer did not ask (RFC 8446 §4.4)."""
        if version == "TLSv1.3" and cipher is not None:
            digest = 48 if cipher[0].endswith("SHA384") else 32
            self.asked = self._encrypted > 4 + digest + _ENCRYPTION


def read_first(first: bytes) -> FirstReceived:
    """Read the first bytes of the peer."""
    if not first:
        return FirstReceived()
    for pattern, protocol in _GREETINGS:
        if pattern.match(first):
            return FirstReceived(protocol)
    if not _CIPHER_CHANGE <= first[0] <= _APPLICATION_DATA or first[1:2] not in (b"\x03", b""):
        return FirstReceived("something else")
    if first[0] == _ALERT and first[3:6] == bytes((0, 2, _FATAL)) and len(first) > 6:
        return FirstReceived(alert=_ALERTS.get(first[6], f"number {first[6]}"))
    return _server_hello(first)


def alert(error: ssl.SSLError) -> str | None:
    """Return the alert by which the peer ended the session, as RFC 8446 §6 names it; returns None if there was none."""
    found = _RECEIVED_ALERT.fullmatch(error.reason or "")
    return found[1].lower() if found else None


def _server_hello(first: bytes) -> FirstReceived:
    if first[0] != _HANDSHAKE or len(first) <= _SESSION_ID or first[_HEADER] != _SERVER_HELLO:
        return FirstReceived()
    start = _SESSION_ID + 1 + first[_SESSION_ID]
    chosen = first[start : start + 2]
    if len(chosen) < 2 or _HEADER + int.from_bytes(first[3:_HEADER]) < start + 2:
        return FirstReceived()
    number = int.from_bytes(chosen)
    version = _VERSIONS.get(int.from_bytes(first[9:11]))
    return FirstReceived(None, version, _CIPHERS.get(number, f"number 0x{number:04X}"))
