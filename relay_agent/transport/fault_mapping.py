"""Maps errors of the system, of TLS and of HTTP libraries to faults; the only module that reads those errors of an exchange.

Texts call the host "the target" even if it is the platform, unless it is a proxy.
"""

from __future__ import annotations

import errno
import http.client
import ssl

from relay_agent.core.failures import Code, Phase, TlsTrouble
from relay_agent.transport.errors import ClientCertificateRefused, ClientCertificateWanted, TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.handshake import FirstReceived, alert
from relay_agent.transport.response_parser import BadHead

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
    20: (
        Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        "unable to get local issuer certificate: the agent does not know the authority, or an intermediate certificate is not sent",
    ),
    21: (Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, "unable to verify the first certificate"),
    62: (Code.ERR_TLS_CERT_ALTNAME_INVALID, "hostname does not match the certificate"),
    64: (Code.ERR_TLS_CERT_ALTNAME_INVALID, "IP address does not match the certificate"),
}
_NAME_MISMATCH = 62
# Those that have no code in PROTOCOL §4. A number in neither table is a bad certificate.
_TROUBLE_BY_VERIFY_CODE = {
    9: (TlsTrouble.NOT_YET_VALID, "certificate is not yet valid"),
    66: (TlsTrouble.WEAK_CERTIFICATE, "its key is too short (RSA needs 2048 bits)"),
    67: (TlsTrouble.WEAK_CERTIFICATE, "the key of an authority in its chain is too short (RSA needs 2048 bits)"),
    68: (TlsTrouble.WEAK_CERTIFICATE, "a certificate of its chain is signed with SHA-1 or MD5"),
}
_NONE_IN_COMMON = (
    TlsTrouble.NO_COMMON_CIPHER,
    "{peer} and the agent have no cipher, key exchange or kind of certificate in common; the agent offers OpenSSL's default list",
)
_OURS = "the agent speaks TLS 1.2, unless tls_min forbids it, and 1.3"
_TOO_OLD = (TlsTrouble.OLD_VERSION, f"{{peer}} speaks only {{version}}; {_OURS}")
# A server also says this if it may speak only TLS 1.3, and its certificate's elliptic curve is none of TLS 1.3 (brainpool, secp256k1).
_NO_VERSION = (
    TlsTrouble.NO_COMMON_VERSION,
    f"{{peer}} has no TLS version in common with the agent that its certificate allows; {_OURS}",
)
_OTHER_CIPHER = (TlsTrouble.NO_COMMON_CIPHER, "{peer} chooses the cipher {cipher}, which the agent does not support")
_SHORT_DH = (TlsTrouble.WEAK_EXCHANGE, "the Diffie-Hellman key of {peer} is too short: 2048 bits are needed")
_OLD_SIGNATURE = (TlsTrouble.WEAK_EXCHANGE, "{peer} signs the handshake with SHA-1, or in another way that the agent does not accept")
# By the names of OpenSSL's reasons (sslerr.h), and of the alerts that the peer sends (RFC 8446 §6).
_BY_REASON: dict[str, tuple[TlsTrouble | None, str]] = {
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "WRONG_SSL_VERSION": _TOO_OLD,
    "UNKNOWN_CIPHER_RETURNED": _OTHER_CIPHER,
    "WRONG_CIPHER_RETURNED": _OTHER_CIPHER,
    "DH_KEY_TOO_SMALL": _SHORT_DH,
    "BAD_DH_VALUE": _SHORT_DH,
    "MODULUS_TOO_SMALL": _SHORT_DH,
    "WRONG_SIGNATURE_TYPE": _OLD_SIGNATURE,
    "UNKNOWN_DIGEST": _OLD_SIGNATURE,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _OLD_SIGNATURE,
    "WRONG_CURVE": (TlsTrouble.WEAK_EXCHANGE, "{peer} chooses an elliptic curve that the agent does not accept"),
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": (TlsTrouble.OLD_RENEGOTIATION, "{peer} does not support secure renegotiation (RFC 5746)"),
    "EXCESSIVE_MESSAGE_SIZE": (TlsTrouble.LONG_CHAIN, "the certificates of {peer} are longer than a handshake may be (100 KB)"),
    "EE_KEY_TOO_SMALL": (TlsTrouble.WEAK_CERTIFICATE, "the key of the certificate is too short (RSA needs 2048 bits)"),
    "CA_MD_TOO_WEAK": (TlsTrouble.WEAK_CERTIFICATE, "a certificate of the chain is signed with SHA-1 or MD5"),
}
_BY_ALERT: dict[str, tuple[TlsTrouble | None, str]] = {
    "handshake_failure": _NONE_IN_COMMON,
    "insufficient_security": _NONE_IN_COMMON,
    "protocol_version": _NO_VERSION,
    "unrecognized_name": (TlsTrouble.UNKNOWN_NAME, "{peer} serves nothing under this name"),
    "no_application_protocol": (None, "{peer} does not speak HTTP/1.1 over TLS"),
    "internal_error": (None, "{peer} reports an internal error"),
}


def explain(error: Exception, exchange: Exchange, phase: Phase) -> TransportFault:
    """Return the fault for an error that ended an exchange while sending, waiting or reading."""
    return _exchange_fault(error, exchange, phase).during(phase)


def _exchange_fault(error: Exception, exchange: Exchange, phase: Phase) -> TransportFault:
    if isinstance(error, TransportFault):
        return error
    if exchange.deadline.passed or isinstance(error, TimeoutError):
        return TransportFault(Code.ETIMEDOUT, f"{phase} from {exchange.peer} took longer than {exchange.deadline.seconds:g} s")
    if isinstance(error, BadHead):
        return TransportFault(Code.EBADRESPONSE, f"{exchange.peer}: {error}")
    if isinstance(error, ClientCertificateWanted) and exchange.forwarded and exchange.proxy is not None:
        return os_fault(error, "read", "the proxy").at(exchange.proxy.masked)
    if isinstance(error, http.client.IncompleteRead) or (phase is Phase.BODY and isinstance(error, ssl.SSLEOFError)):
        return TransportFault(Code.EBADRESPONSE, f"{exchange.peer}: the connection was closed before the end of the body")
    if isinstance(error, http.client.RemoteDisconnected):
        return TransportFault(Code.ECONNRESET, f"read ECONNRESET {exchange.peer}: closed without an answer")
    if isinstance(error, OSError):
        return os_fault(error, f"{'write' if phase is Phase.SENDING else 'read'} {exchange.peer}")
    return TransportFault(Code.EBADRESPONSE, f"{exchange.peer}: the framing of the body is not valid HTTP")


def name_fault(operation: str) -> TransportFault:
    """Return the fault for a certificate that is for other names."""
    code, text = _BY_VERIFY_CODE[_NAME_MISMATCH]
    return TransportFault(code, f"{operation}: {text}")


def os_fault(error: OSError, operation: str, peer: str = "the target", first: FirstReceived | None = None) -> TransportFault:
    """Return the fault for an OSError of an operation ("connect 10.1.2.3:443"); `first` is what a failed handshake received first."""
    if isinstance(error, ssl.SSLError):
        return tls_fault(error, operation, peer, first)
    if isinstance(error, TimeoutError) and error.errno is None:
        return TransportFault(Code.ETIMEDOUT, f"{operation} timed out")
    # Some of Python's own errors have no number, such as http.client.RemoteDisconnected.
    code = _BY_ERRNO.get(error.errno or 0) or next((known for kind, known in _BY_CLASS if isinstance(error, kind)), None)
    if code is None:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return TransportFault(Code.ENETUNREACH, f"{operation}: {name}", errno=error.errno)
    verb, _, rest = operation.partition(" ")
    return TransportFault(code, f"{verb} {code}{' ' if rest else ''}{rest}", errno=error.errno)


def tls_fault(error: ssl.SSLError, operation: str, peer: str = "the target", first: FirstReceived | None = None) -> TransportFault:
    """Return the fault for a TLS error: with a code of its own if a certificate is the cause, else EPROTO (PROTOCOL §4)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_fault(error, operation)
    if isinstance(error, ClientCertificateWanted | ClientCertificateRefused):
        return _client_certificate_fault(error, f"{operation}: {peer}")
    if first is not None and first.protocol is not None:
        return TransportFault(Code.EPROTO, f"{operation}: {peer} does not speak TLS there, but {first.protocol}", TlsTrouble.NOT_TLS)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TransportFault(Code.ECONNRESET, f"{operation}: connection closed by the other side")
    trouble, text = _tls_text(error, peer, first or FirstReceived())
    return TransportFault(Code.EPROTO, f"{operation}: {text}", trouble)


def _client_certificate_fault(error: ClientCertificateWanted | ClientCertificateRefused, peer: str) -> TransportFault:
    if isinstance(error, ClientCertificateRefused):
        text = f"{peer} refuses the agent's client certificate: {error.alert}"
        return TransportFault(Code.EPROTO, text, TlsTrouble.CLIENT_CERTIFICATE_REFUSED)
    if error.required:
        return TransportFault(Code.EPROTO, f"{peer} requires a client certificate, and the agent has none", TlsTrouble.CLIENT_CERTIFICATE)
    text = f"{peer} asked for a client certificate, which the agent does not have, and closed the connection without an answer"
    return TransportFault(Code.EPROTO, text, TlsTrouble.CLIENT_CERTIFICATE_ASKED)


def _certificate_fault(error: ssl.SSLCertVerificationError, operation: str) -> TransportFault:
    known = _BY_VERIFY_CODE.get(error.verify_code)
    if known is not None:
        return TransportFault(known[0], f"{operation}: {known[1]}")
    trouble, text = _TROUBLE_BY_VERIFY_CODE.get(error.verify_code, (TlsTrouble.BAD_CERTIFICATE, error.verify_message))
    return TransportFault(Code.EPROTO, f"{operation}: certificate refused: {text}", trouble)


def _tls_text(error: ssl.SSLError, peer: str, first: FirstReceived) -> tuple[TlsTrouble | None, str]:
    names = {"peer": peer, "version": first.version or "older versions of TLS", "cipher": first.cipher or "another"}
    alert_name = alert(error) or (None if error.reason else first.alert)  # Python has no name for every alert.
    if alert_name is not None:
        trouble, text = _BY_ALERT.get(alert_name, (None, "{peer} ended the TLS session"))
        return trouble, f"{text.format(**names)} (alert {alert_name})"
    reason = error.reason or "protocol error"
    if reason not in _BY_REASON:
        return None, reason.replace("_", " ").lower()
    trouble, text = _BY_REASON[reason]
    return trouble, text.format(**names)
