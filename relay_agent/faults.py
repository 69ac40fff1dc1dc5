"""What can go wrong between us and another host, said in the codes of PROTOCOL §4.

This room owns the translation from the system's and TLS's errors. It must not know whether the other
host is a target or the platform.
"""

from __future__ import annotations

import errno
import re
import ssl

from relay_agent.errors import RelayError, Shown
from relay_agent.models import Code


class TransportFault(RelayError):
    """One exchange got no response. `code` is of PROTOCOL §4; the text names addresses, never queries or headers."""

    called: str | None = None
    """The URL that was called, where whoever tells of the fault may not know it."""
    status: int | None = None
    """What a proxy answered in place of what lies behind it."""
    ours = False
    """Whether it is this machine's fault, and says nothing of the way."""
    shown: Shown | None = None
    """The certificate that was refused, where it was one and could be had."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def at_certificate(self) -> bool:
        """Whether TLS was spoken, and the certificate was not to be trusted."""
        return self.code in _CERTIFICATE_CODES or (self.code == Code.EPROTO and _REFUSED in self.message)

    @property
    def at_proxy(self) -> bool:
        """Whether a proxy, not what lies behind it, is at fault: such texts begin with it (SECURITY §1)."""
        return self.proxy is not None

    @property
    def proxy(self) -> str | None:
        """The proxy at fault, masked, as the text names it."""
        named = _AT_PROXY.match(self.message)
        return named[1] if named else None


class DiskFault(TransportFault):
    """This machine's disk did not take, or give, what is exchanged."""

    ours = True


_REFUSED = "certificate refused: "
_CERTIFICATE_CODES = frozenset(
    {Code.CERT_HAS_EXPIRED, Code.DEPTH_ZERO_SELF_SIGNED_CERT, Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, Code.ERR_TLS_CERT_ALTNAME_INVALID}
)
_AT_PROXY = re.compile(r"(?:the )?proxy (\S+?):? ")

_BY_ERRNO = {
    errno.ECONNREFUSED: Code.ECONNREFUSED,
    errno.ECONNRESET: Code.ECONNRESET,
    errno.ECONNABORTED: Code.ECONNRESET,
    errno.EPIPE: Code.EPIPE,
    errno.ESHUTDOWN: Code.EPIPE,
    errno.EHOSTUNREACH: Code.EHOSTUNREACH,
    errno.EHOSTDOWN: Code.EHOSTUNREACH,
    errno.EACCES: Code.EHOSTUNREACH,
    errno.EPERM: Code.EHOSTUNREACH,
    errno.ENETUNREACH: Code.ENETUNREACH,
    errno.ENETDOWN: Code.ENETUNREACH,
    errno.EADDRNOTAVAIL: Code.ENETUNREACH,
    errno.EINVAL: Code.ENETUNREACH,
    errno.EAFNOSUPPORT: Code.ENETUNREACH,
    errno.ETIMEDOUT: Code.ETIMEDOUT,
}

_BY_CLASS: tuple[tuple[type[OSError], Code], ...] = (
    (ConnectionRefusedError, Code.ECONNREFUSED),
    (BrokenPipeError, Code.EPIPE),
    (ConnectionError, Code.ECONNRESET),
)

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_BY_VERIFY_CODE = {
    10: (Code.CERT_HAS_EXPIRED, "certificate has expired"),
    18: (Code.DEPTH_ZERO_SELF_SIGNED_CERT, "self-signed certificate"),
    2: (Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, "unable to get issuer certificate"),
    19: (Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, "self-signed certificate in certificate chain"),
    20: (Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, "unable to get local issuer certificate"),
    21: (Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, "unable to verify the first certificate"),
    62: (Code.ERR_TLS_CERT_ALTNAME_INVALID, "hostname does not match the certificate"),
    64: (Code.ERR_TLS_CERT_ALTNAME_INVALID, "IP address does not match the certificate"),
}


def os_fault(error: OSError, doing: str) -> TransportFault:
    """Say an OSError of `doing` ("connect 10.1.2.3:443") in PROTOCOL's codes."""
    if isinstance(error, ssl.SSLError):
        return tls_fault(error, doing)
    if isinstance(error, TimeoutError) and error.errno is None:
        return TransportFault(Code.ETIMEDOUT, f"{doing} timed out")
    # Some of Python's own carry a class but no number, such as http.client.RemoteDisconnected.
    code = _BY_ERRNO.get(error.errno or 0) or next((known for kind, known in _BY_CLASS if isinstance(error, kind)), None)
    if code is None:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return TransportFault(Code.ENETUNREACH, f"{doing}: {name}")
    verb, _, rest = doing.partition(" ")
    return TransportFault(code, f"{verb} {code}{' ' if rest else ''}{rest}")


def tls_fault(error: ssl.SSLError, doing: str) -> TransportFault:
    """Tell each certificate fault apart; what is no certificate fault is EPROTO (PROTOCOL §4)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _BY_VERIFY_CODE.get(error.verify_code)
        if known is not None:
            return TransportFault(known[0], f"{doing}: {known[1]}")
        return TransportFault(Code.EPROTO, f"{doing}: {_REFUSED}{error.verify_message}")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TransportFault(Code.ECONNRESET, f"{doing}: connection closed by the other side")
    reason = str(error.reason or "protocol error").replace("_", " ").lower()
    return TransportFault(Code.EPROTO, f"{doing}: {reason}")
