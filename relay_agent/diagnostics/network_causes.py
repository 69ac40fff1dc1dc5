"""Causes and cures of what is wrong between the agent and another host: names, connections, proxies, TLS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus

from relay_agent.core.failures import CERTIFICATE_CODES, Cause, Code, FaultFacts, TableKey, TlsTrouble
from relay_agent.diagnostics.local_causes import SET_CLOCK
from relay_agent.transport.tls import DEFAULT_ROOTS


@dataclass(frozen=True, slots=True)
class Destination:
    """A host that the agent calls: what it is, the setting that gives its address, the settings that give its proxy.

    `open` is what a firewall must allow; `service` is AWS's name for the host.
    """

    id: str
    what: str
    setting: str
    proxies: str
    open: str
    service: str = ""


TO_PLATFORM = Destination("platform", "the platform", "API_TARGET", "https_proxy, http_proxy, RELAY_PLATFORM_PROXY", "{host}:{port}")
TO_SQS = Destination(
    "sqs",
    "the platform's queue, Amazon SQS",
    "the agent's AWS region",
    "https_proxy, RELAY_PLATFORM_PROXY",
    "SQS in the agent's AWS region ({host}:{port})",
    "Amazon SQS",
)
TO_LOGS = replace(
    TO_SQS,
    id="cloudwatch",
    what="Amazon CloudWatch Logs",
    open="CloudWatch Logs in the agent's AWS region ({host}:{port})",
    service="Amazon CloudWatch Logs",
)
TO_S3 = replace(
    TO_SQS,
    id="platform",
    what="the platform's bucket, Amazon S3",
    service="Amazon S3",
    setting="the platform's presigned URL",
    open="S3 in the agent's AWS region (https, *.s3.<region>.amazonaws.com; here {host}:{port})",
)
TO_TARGET = Destination("target", "the target", "the URL", "https_proxy, http_proxy, RELAY_TARGET_PROXY", "{host}:{port}")
TO_SYSLOG = Destination("syslog", "the log receiver", "RELAY_LOG_SYSLOG", "no proxy is used for log lines", "{host}:{port}")
CERTIFICATE_ENDS = Cause(
    "target",
    "the certificate of {host} {when} calls fail with CERT_HAS_EXPIRED",
    "have the target's certificate renewed",
)
PROXY_CERTIFICATE_ENDS = Cause(
    "platform",
    "the certificate of the proxy {host} {when} the agent cannot use this proxy",
    "ask the proxy's operator to renew its certificate",
)
PLATFORM_CERTIFICATE_ENDS = Cause(
    "platform",
    "the certificate that {host} shows {when} the agent cannot call this host of the platform or of AWS",
    "wait: its operator usually renews it in time; if it was issued by a proxy or firewall of yours, which re-signs TLS, have it renewed"
    " there; if it is not renewed a week before it expires, ask the platform's support",
)
SYSLOG_CERTIFICATE_ENDS = Cause(
    "syslog",
    "the certificate of the log receiver {host} {when} log lines are no longer delivered to it",
    "have its certificate renewed",
)
MORE_CERTIFICATES = Cause(
    "target",
    "more certificates expire soon than are listed here",
    "look for certificate-ends-soon in the log, or at relay_agent_certificate_expiry_timestamp_seconds in the metrics",
)
TARGET_UNWELL = Cause(
    "target",
    "the target can be reached, and answers with a server error ({status})",
    "look at the target's log; a command gets the same answer",
)
MORE_TARGETS = Cause(
    "target",
    "more targets fail than are listed here",
    "list them with `relay-agent commands --failed`; find the reason for one with `relay-agent explain URL`",
)
_TRUST = (
    "set RELAY_CA_FILE to a PEM file with the issuer's certificate, which is trusted in addition; or set REQUESTS_CA_BUNDLE to a whole"
    " bundle, which replaces the trusted roots; if a proxy re-signs TLS, ask its operator for its CA certificate"
)
_OWN_ROOTS = "put the certificate of that CA into the ca_file of this target's [[target]] table; or "
ON_THE_WAY = {
    Code.ENOTFOUND: (
        "the name {host} does not exist in this machine's DNS",
        "check the spelling in {setting}, and that this machine's DNS server (/etc/resolv.conf) knows the name; if only a proxy can resolve"
        " it, set the proxy ({proxies})",
    ),
    Code.EAI_AGAIN: (
        "the DNS server does not answer the query for {host}",
        "check this machine's DNS servers (/etc/resolv.conf), and that the firewall allows DNS; {setting} may be correct",
    ),
    Code.ECONNREFUSED: (
        "{host} refuses connections on port {port}: nothing listens there, or a firewall rejects them",
        "check the port in {setting}, that the service runs, and that the firewall allows {open}",
    ),
    Code.ECONNRESET: (
        "the connection to {host}:{port} was closed by {what}, or by a firewall or proxy on the way",
        "check that the port in {setting} fits http or https, and that the firewall and the proxy, if any ({proxies}), allow {open}",
    ),
    Code.EHOSTUNREACH: (
        "this machine has no route to the host {host}",
        "check this machine's routes, that the host in {setting} is running, and that the firewall allows {open}; or set a proxy"
        " ({proxies})",
    ),
    Code.ENETUNREACH: (
        "this machine has no route to the network of {host}",
        "check this machine's routes (if the address is IPv6, does this machine have IPv6?) and the host in {setting}; or set a proxy that"
        " can reach it ({proxies})",
    ),
    Code.ETIMEDOUT: (
        "{host} does not answer on port {port}: a firewall drops the packets, or the host is off",
        "allow {open} in the outbound firewall, or set a proxy that can reach it ({proxies}); check the address in {setting}",
    ),
    Code.CERT_HAS_EXPIRED: (
        "the certificate of {host} has expired{ended}, according to this machine's clock",
        f"have the certificate of {{what}} renewed; if other machines accept it, {SET_CLOCK}; check the address in {{setting}}",
    ),
    Code.DEPTH_ZERO_SELF_SIGNED_CERT: (
        "the certificate of {host} is self-signed ({issuer}), and the agent does not trust it (trusted: {roots})",
        "{own}set RELAY_CA_FILE to a PEM file with that certificate, which is trusted in addition; or have {what} use a certificate of a"
        " trusted CA",
    ),
    Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE: (
        "the certificate of {host} was issued by {issuer}, which the agent does not trust (trusted: {roots}), or an intermediate"
        " certificate is missing",
        f"{{own}}{_TRUST}",
    ),
    Code.ERR_TLS_CERT_ALTNAME_INVALID: (
        "the certificate of {host} is valid for other names only: {names}",
        "use one of those names in {setting}, or have {what} use a certificate for {host}",
    ),
    Code.EPROTO: (
        "the TLS handshake with {host}:{port} failed",
        "check scheme (http or https) and port in {setting}; look at the log of {what}, which must support TLS 1.2 or later",
    ),
    Code.EBADRESPONSE: (
        "{host}:{port} answers with something that is not a valid HTTP response",
        "check the port in {setting}, and look at the log of {what}",
    ),
    Code.ERESPONSETOOLARGE: (
        "the response of {host} is larger than the agent's limit",
        "request less data, or raise RELAY_MAX_RESPONSE_BYTES",
    ),
    Code.ETOOMANYREDIRECTS: (
        "{host} redirects too often, probably in a loop",
        "send the command with `follow_redirects: false` to see where the redirect leads",
    ),
    Code.EPOLICY: (
        "the agent's policy forbids this address: {rule}",
        "use another address in {setting}, or ask the owner of the policy file to change the named rule or, for `default: deny`, to add"
        " one that allows the call; a `built-in` denial needs a rule that names the address itself",
    ),
    Code.EBADCOMMAND: (
        "the method or the URL is invalid",
        "correct it: the URL must be absolute, with http or https, and spaces and control characters percent-encoded",
    ),
}
ON_THE_WAY[Code.EPIPE] = ON_THE_WAY[Code.ECONNRESET]
# What a key of the target's own `[[target]]` table forbids; no rule can allow it.
OF_TABLE = {
    TableKey.PIN_SHA256: (
        "the public key of the certificate that {host} shows is none of those in pin_sha256 of its [[target]] table",
        "ask the operator of {what} whether its key was replaced: if it was, put the new key's digest into pin_sha256; if not, somebody on"
        " the way answers in its place",
    ),
    TableKey.ALLOW_IGNORE_TLS: (
        "the command has ignore_tls_certificate, which the [[target]] table of {host} forbids (allow_ignore_tls = false)",
        "send the command without it; if the certificate is then refused, have it replaced, or name its CA in ca_file of that table",
    ),
}
_EARLY = (
    "the certificate of {host} is not valid yet{begun}, according to this machine's clock",
    f"{SET_CLOCK}; if the clock is right, have {{what}} use a certificate that is already valid; check the address in {{setting}}",
)


# Why a TLS handshake failed, with the target or with a proxy that is called over TLS.
_TLS_ALONE = {
    TlsTrouble.NOT_TLS: (
        "{peer} does not speak TLS",
        "check scheme (http or https) and port in {address}",
    ),
    TlsTrouble.OLD_VERSION: (
        "{peer} supports only TLS versions older than 1.2",
        "have its TLS updated, or put a reverse proxy with TLS 1.2 or later in front of it; check the address in {address}",
    ),
    TlsTrouble.NO_COMMON_VERSION: (
        "{peer} and the agent have no TLS version in common, or only one that does not allow the kind of certificate that {peer} has",
        "have TLS 1.2 or later enabled there, with a certificate for an RSA key or for a common elliptic curve (P-256, P-384); check the"
        " address in {address}, and tls_min for this host in the policy file",
    ),
    TlsTrouble.NO_COMMON_CIPHER: (
        "{peer} and the agent have no cipher in common, or none that fits its certificate",
        "have a current cipher enabled there (for example ECDHE with AES-GCM), with a certificate that fits it; check the address in"
        " {address}",
    ),
    TlsTrouble.WEAK_EXCHANGE: (
        "{peer} uses keys or signatures in the handshake that are too weak (Diffie-Hellman below 2048 bits, SHA-1)",
        "have ECDHE, or Diffie-Hellman with 2048 bits, and SHA-256 signatures enabled there; check the address in {address}",
    ),
    TlsTrouble.OLD_RENEGOTIATION: (
        "{peer} does not support secure renegotiation (RFC 5746), which protects a session from tampering",
        "have its TLS updated; check the address in {address}",
    ),
    TlsTrouble.UNKNOWN_NAME: (
        "{peer} does not recognise the host name that was requested",
        "in {address}, use a host name that this server has",
    ),
    TlsTrouble.CLIENT_CERTIFICATE: (
        "{peer} requires a client certificate, and the agent has none for it",
        "set client_cert for this host in the policy file, or ask its operator to accept the agent without one;"
        " check the address in {address}",
    ),
    TlsTrouble.CLIENT_CERTIFICATE_ASKED: (
        "{peer} asked for a client certificate, got none, and closed the connection: probably it requires one",
        "look at its log; if it requires one, set client_cert for this host in the policy file, or ask its operator to accept the agent"
        " without one; check the address in {address}",
    ),
    TlsTrouble.CLIENT_CERTIFICATE_REFUSED: (
        "{peer} refuses the agent's client certificate: it has expired or was revoked, or its issuer is not trusted there",
        "look at issuer and dates of the client_cert in the policy file (openssl x509 -in FILE -noout -issuer -dates); replace it"
        " with one that {peer} accepts, followed by its intermediate certificates, or ask its operator to trust the issuer",
    ),
    TlsTrouble.LONG_CHAIN: (
        "{peer} sends more certificates than a handshake may contain (100 KB)",
        "have a certificate with fewer names or a shorter chain installed there; check the address in {address}",
    ),
}
_TLS_CERTIFICATE = {
    TlsTrouble.NOT_YET_VALID: _EARLY,
    TlsTrouble.WEAK_CERTIFICATE: (
        "the certificate of {host}, or one that signed it, has a key that is too short (RSA below 2048 bits) or an outdated signature"
        " (SHA-1)",
        "have the certificate of {what} replaced: RSA with 2048 bits or an elliptic curve, signed with SHA-256; check the address in"
        " {setting}",
    ),
    TlsTrouble.BAD_CERTIFICATE: (
        "the certificate of {host}, or one that signed it, is not valid for a server",
        "look at the certificate of {what} (openssl s_client -connect {host}:{port} -showcerts) and have it replaced; check the address in"
        " {setting}",
    ),
}
_LATE = (
    "{host}:{port} accepts the connection, but does not answer in time",
    "check whether {what} is overloaded or hangs, and whether a firewall or proxy on the way ({proxies}) holds the connection; {setting}"
    " may be correct",
)
_PROXY_LOGIN = (
    "the proxy {proxy}, not {what}, answered {status}: it requires a user and password, or does not accept those given",
    "put user and password into the proxy's URL ({proxies}): percent-encoded, a colon between them, an @ after them, then the host",
)
_PROXY_REFUSED = (
    "the proxy {proxy}, not {what}, answered {status}: it refuses to connect the agent to {host}:{port}",
    "ask the proxy's operator to allow {open}; or, if {host} can be reached directly, add it to no_proxy; check {setting}",
)
_PROXY_CANNOT = (
    "the proxy {proxy}, not {what}, answered {status}: it cannot reach {host}:{port}, or has a fault of its own",
    "check the address in {setting}, and from the proxy's machine whether {host}:{port} can be reached; ask the proxy's operator to allow"
    " {open}; or, if {host} can be reached directly, add it to no_proxy",
)
_PROXY_ANSWERED = (
    "the proxy {proxy} answered {status}: it cannot reach {host}:{port}, or it passes on the answer of {what}",
    "check from the proxy's machine whether {host}:{port} can be reached, and look at the log of {what}; or, if {host} can be reached"
    " directly, add it to no_proxy; check {setting}",
)
_PROXY_BEHIND = (
    "the proxy {proxy} can be reached, but cannot reach {host}:{port} ({code})",
    "check the address in {setting}, and that the proxy is allowed to connect to it; or, if {host} can be reached directly, add it to"
    " no_proxy",
)
_PROXY_AWAY = (
    "the proxy {proxy}, not {what}, fails: {failure} ({code})",
    "check the proxy's scheme, host and port ({proxies}), and that it runs; or, if {host} can be reached directly, add it to no_proxy;"
    " {setting} may be correct",
)
_PROXY_TLS = (
    "the proxy {proxy}, not {what}, presents a certificate that the agent does not trust ({code})",
    f"if the proxy speaks plain HTTP to its clients, write http:// in its URL ({{proxies}}); otherwise {_TRUST}; {{setting}} may be"
    " correct",
)
_PROXY_FAILURES = {
    Code.ENOTFOUND: "its name does not exist",
    Code.EAI_AGAIN: "the DNS server does not answer the query for its name",
    Code.ECONNREFUSED: "nothing listens on its port",
    Code.ETIMEDOUT: "it does not answer in time",
    Code.EBADRESPONSE: "it does not answer like a proxy",
}
_SYSLOG_CURE = (
    "check scheme (udp, tcp or tls), host and port in RELAY_LOG_SYSLOG, that the receiver runs and listens there, and that the firewall"
    " allows {host}:{port} from this machine (no proxy is used); until then the newest lines wait, up to 2 MiB"
)
_NO_CLIENT_CERTIFICATE = (
    "have the receiver accept this agent without a client certificate, or send to a forwarder on this machine, such as rsyslog, which"
    " presents one"
)
_SYSLOG_TLS = {
    None: "check scheme (tls or tcp) and port in RELAY_LOG_SYSLOG; look at the receiver's log",
    TlsTrouble.NOT_TLS: "check the port in RELAY_LOG_SYSLOG, or write tcp:// there if the receiver takes plain TCP",
    TlsTrouble.CLIENT_CERTIFICATE: _NO_CLIENT_CERTIFICATE,
    TlsTrouble.CLIENT_CERTIFICATE_ASKED: _NO_CLIENT_CERTIFICATE,
}
_TLS_CODES = CERTIFICATE_CODES | {Code.EPROTO}


def on_the_way(facts: FaultFacts, to: Destination, roots: str | None = None) -> Cause:
    """Return the cause of a network fault, filled with its facts; `roots` describes the trusted CA bundle, if known."""
    shown = facts.certificate
    proxy = facts.proxy or "on the way"
    names: dict[str, object] = {
        "host": facts.host,
        "port": facts.port,
        "code": facts.code,
        "status": facts.status,
        "rule": facts.rule or "a rule",
        "what": to.what,
        "setting": to.setting,
        "proxies": to.proxies,
        "open": to.open.format(host=facts.host, port=facts.port),
        "proxy": proxy,
        "failure": _PROXY_FAILURES.get(facts.code or Code.ETIMEDOUT, "it cannot be used"),
        "issuer": (shown and shown.issuer) or "an authority",
        "names": (shown and shown.names) or "(unknown)",
        "roots": roots or (shown and shown.roots) or DEFAULT_ROOTS,
        "own": _OWN_ROOTS if shown and shown.of_table else "",
        "begun": f" (it is valid from {shown.begins})" if shown and shown.begins else "",
        "ended": f" on {shown.ends}" if shown and shown.ends else "",
        "peer": f"the proxy {proxy} (not {to.what})" if facts.proxy else f"{facts.host}:{facts.port}",
        "address": to.proxies if facts.proxy else to.setting,
    }
    return Cause(to.id, *_row(facts)).about(**names)


def syslog_cause(facts: FaultFacts) -> Cause:
    """Return the cause of a fault on the way to the log receiver. The agent works without it, and calls it without a proxy."""
    found = on_the_way(facts, TO_SYSLOG)
    if facts.code in CERTIFICATE_CODES:
        return found
    if facts.trouble is not None or facts.code is Code.EPROTO:
        cure = _SYSLOG_TLS.get(facts.trouble, found.cure)
    elif facts.code in (Code.ENOTFOUND, Code.EAI_AGAIN):
        cure = "check the host in RELAY_LOG_SYSLOG, and that this machine's DNS server (/etc/resolv.conf) knows it"
    else:
        cure = _SYSLOG_CURE.format(host=facts.host, port=facts.port)
    return Cause(found.id, found.cause, cure)


def _row(facts: FaultFacts) -> tuple[str, str]:
    if facts.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return _PROXY_LOGIN
    if facts.proxy is not None:
        if facts.status == HTTPStatus.UNAUTHORIZED and not facts.forwarded:
            return _PROXY_LOGIN  # tinyproxy says this of a wrong password.
        if facts.status and facts.forwarded:
            return _PROXY_ANSWERED
        if facts.status:
            return _PROXY_CANNOT if facts.status >= HTTPStatus.INTERNAL_SERVER_ERROR else _PROXY_REFUSED
        if facts.behind:
            return _PROXY_BEHIND
        if facts.trouble in _TLS_ALONE:
            return _TLS_ALONE[facts.trouble]
        return _PROXY_TLS if facts.code in _TLS_CODES else _PROXY_AWAY
    if facts.late:
        return _LATE
    if facts.trouble is not None:
        return {**_TLS_ALONE, **_TLS_CERTIFICATE}[facts.trouble]
    if facts.table_key is not None:
        return OF_TABLE[facts.table_key]
    return ON_THE_WAY[facts.code or Code.ETIMEDOUT]
