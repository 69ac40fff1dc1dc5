"""Causes and cures of what is wrong between the agent and another host: names, connections, proxies, TLS."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relay_agent.core.failures import CERTIFICATE_CODES, Cause, Code, FaultFacts, TlsTrouble
from relay_agent.diagnostics.local_causes import SET_CLOCK


@dataclass(frozen=True, slots=True)
class Destination:
    """The far end of a way: `what` is there, `setting` gives its address, `proxies` its proxy; `open` is what a firewall must pass.

    `service` is AWS's name for it.
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


CERTIFICATE_ENDS = Cause(
    "target",
    "the certificate of {host} ends on {date}, in {days}; from then on calls will fail with CERT_HAS_EXPIRED",
    "have the target's certificate renewed before that day",
)


TARGET_UNWELL = Cause(
    "target",
    "the target answers {status}: it is reached, and has a fault of its own",
    "look at the log of the target; a command is given the same answer",
)


MORE_TARGETS = Cause(
    "target",
    "more targets than are named here do not answer the agent",
    "relay-agent commands --failed lists them; relay-agent explain tells why",
)


_TRUST = (
    "give the issuer's certificate (PEM) in RELAY_CA_FILE, which adds to the trusted roots, or a whole bundle in REQUESTS_CA_BUNDLE, which"
    " replaces them; a proxy that re-signs TLS has a CA of its own: ask for its certificate"
)


ON_THE_WAY = {
    Code.ENOTFOUND: (
        "the name {host} does not exist, as far as this machine's DNS knows",
        "check the name in {setting} for a mistake, and that this machine's DNS server (/etc/resolv.conf) is the one that knows it; where"
        " only a proxy resolves names, set it ({proxies})",
    ),
    Code.EAI_AGAIN: (
        "the DNS server does not answer when asked for {host}",
        "check this machine's DNS servers (/etc/resolv.conf) and the firewall on the way to them; {setting} may be right",
    ),
    Code.ECONNREFUSED: (
        "port {port} refused: the host {host} answers, nothing listens there",
        "check the port in {setting} and that the service runs; a firewall that rejects looks the same: it must pass {open}",
    ),
    Code.ECONNRESET: (
        "the connection to {host}:{port} was cut off, by {what} or by a firewall or proxy between",
        "check that the port in {setting} is the right one for http or https, and that the firewall, and the proxy where there is one"
        " ({proxies}), passes {open}",
    ),
    Code.EHOSTUNREACH: (
        "there is no way from this machine to the host {host}",
        "check that the host in {setting} is on, this machine's routes, and that the firewall passes {open}; or set a proxy ({proxies})",
    ),
    Code.ENETUNREACH: (
        "there is no way from this machine to the network of {host}",
        "check this machine's routes (IPv6 without IPv6?) and the host in {setting}; or set a proxy that leads there ({proxies})",
    ),
    Code.ETIMEDOUT: (
        "{host} does not answer on port {port}: a firewall drops what is sent there, or the host is off",
        "open the firewall outbound to {open}, or set the proxy that leads there ({proxies}); check the address in {setting}",
    ),
    Code.CERT_HAS_EXPIRED: (
        "the certificate of {host} is over{ended}, by this machine's clock",
        f"have the certificate of {{what}} renewed; if it is good elsewhere, {SET_CLOCK}; check the address in {{setting}}",
    ),
    Code.DEPTH_ZERO_SELF_SIGNED_CERT: (
        "the certificate of {host} is signed by itself ({issuer}): no authority that the agent trusts ({roots}) vouches for it",
        "give that certificate (PEM) in RELAY_CA_FILE, which adds to the trusted roots, or have one issued; REQUESTS_CA_BUNDLE replaces the"
        " roots",
    ),
    Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE: (
        "the certificate of {host} was issued by {issuer}, whom the agent does not trust ({roots}), or an intermediate certificate is"
        " missing",
        _TRUST,
    ),
    Code.ERR_TLS_CERT_ALTNAME_INVALID: (
        "the certificate that stands at {host} is for another name: {names}",
        "use a name of the certificate in {setting}, or have a certificate issued for {host}",
    ),
    Code.EPROTO: (
        "{host}:{port} does not speak TLS with the agent, or breaks it off",
        "check whether {setting} should say http, and the port; look at the log of {what}, which must speak TLS 1.2 or later",
    ),
    Code.EBADRESPONSE: (
        "what answers at {host}:{port} does not speak HTTP that can be relayed",
        "check the port in {setting}, and the log of {what}",
    ),
    Code.ERESPONSETOOLARGE: (
        "the answer of {host} is larger than the agent relays",
        "ask for less, or raise RELAY_MAX_RESPONSE_BYTES",
    ),
    Code.ETOOMANYREDIRECTS: (
        "{host} redirects in a circle",
        "look at where it leads, with `follow_redirects: false` in the command",
    ),
    Code.EPOLICY: (
        "the agent's policy forbids it: {rule}",
        "use another address in {setting}; built-in denials hold for link-local and cloud metadata addresses, multicast, the unspecified"
        " addresses and the agent's own admin pages",
    ),
    Code.EBADCOMMAND: (
        "it is no request that can be sent",
        "correct the method or the URL: absolute, http or https, spaces and control characters percent-encoded",
    ),
}


ON_THE_WAY[Code.EPIPE] = ON_THE_WAY[Code.ECONNRESET]


_EARLY = (
    "the certificate of {host} is not valid yet{begun}, by this machine's clock",
    f"{SET_CLOCK}; if it is right, have {{what}} show a certificate that is valid by now; check the address in {{setting}}",
)


# What a TLS session failed for: of a target, or of the proxy with which TLS is spoken.
_TLS_ALONE = {
    TlsTrouble.NOT_TLS: (
        "{peer} does not speak TLS: something else answers there",
        "check whether {address} should say http, and the port",
    ),
    TlsTrouble.OLD_VERSION: (
        "{peer} speaks nothing as new as TLS 1.2",
        "have its TLS updated, or set in front of it something that speaks TLS 1.2 or later; check the address in {address}",
    ),
    TlsTrouble.NO_COMMON_CIPHER: (
        "{peer} and the agent have no cipher in common, or none for its kind of certificate",
        "have a cipher of today allowed there (ECDHE with AES-GCM, say), with a certificate that fits it; check the address in {address}",
    ),
    TlsTrouble.WEAK_EXCHANGE: (
        "{peer} uses keys or signatures in the handshake that are too weak, such as Diffie-Hellman below 2048 bits or SHA-1",
        "have ECDHE, or Diffie-Hellman with 2048 bits, and signatures with SHA-256 set there; check the address in {address}",
    ),
    TlsTrouble.OLD_RENEGOTIATION: (
        "{peer} does not know secure renegotiation (RFC 5746), without which a session can be tampered with",
        "have its TLS updated; check the address in {address}",
    ),
    TlsTrouble.UNKNOWN_NAME: (
        "{peer} serves nothing under the name by which it was called",
        "write a name that it serves in {address}",
    ),
    TlsTrouble.CLIENT_CERTIFICATE: (
        "{peer} wants a client certificate, and the agent has none",
        "ask whoever runs it to let the agent in without one; check the address in {address}",
    ),
    TlsTrouble.LONG_CHAIN: (
        "{peer} sends more certificates than a handshake may hold (100 KB)",
        "have a certificate with fewer names, and a shorter chain, set there; check the address in {address}",
    ),
}


_TLS_CERTIFICATE = {
    TlsTrouble.NOT_YET_VALID: _EARLY,
    TlsTrouble.WEAK_CERTIFICATE: (
        "the certificate of {host}, or one above it, has a key that is too short or a signature of old (RSA below 2048 bits, SHA-1)",
        "have the certificate of {what} issued anew: RSA with 2048 bits or an elliptic curve, signed with SHA-256; check the address in"
        " {setting}",
    ),
    TlsTrouble.BAD_CERTIFICATE: (
        "the certificate of {host}, or one above it, is none that a server may show",
        "look at the certificate of {what} (openssl s_client -connect {host}:{port} -showcerts) and have it issued anew; check the address"
        " in {setting}",
    ),
}


_LATE = (
    "{host}:{port} takes the connection and does not answer in time",
    "look at {what}: it is busy or hangs; or a firewall or proxy between holds the connection ({proxies}); {setting} may be right",
)


_PROXY_LOGIN = (
    "the proxy {proxy}, not {what}, answered 407: it wants a user and password, or does not take those that it was given",
    "put user and password into the proxy's URL ({proxies}): percent-encoded, a colon between them, an @ behind them, then the host",
)


_PROXY_REFUSED = (
    "the proxy {proxy}, not {what}, answered {status}: it is reached, and does not let the agent through to {host}:{port}",
    "ask whoever runs the proxy to allow {open}; or name {host} in no_proxy, where it is reached directly; check {setting}",
)


_PROXY_ANSWERED = (
    "the proxy {proxy} answered {status}: it is reached, and cannot reach {host}:{port} itself, or passes on what {what} answers",
    "see from the proxy's machine whether {host}:{port} is reached, and look at the log of {what}; or name {host} in no_proxy, where it is"
    " reached directly; check {setting}",
)


_PROXY_BEHIND = (
    "the proxy {proxy} is reached, and cannot itself reach {host}:{port} ({code})",
    "check the address in {setting} and that the proxy may go there; or name {host} in no_proxy, where it is reached directly",
)


_PROXY_AWAY = (
    "the proxy {proxy}, not {what}, is at fault: {ailment} ({code})",
    "check the proxy's scheme, host and port ({proxies}), and that it runs; or name {host} in no_proxy, where it is reached directly;"
    " {setting} may be right",
)


_PROXY_TLS = (
    "the proxy {proxy}, not {what}, shows a certificate that the agent does not trust ({code})",
    f"if the proxy speaks plain HTTP to its clients, write http:// in its URL ({{proxies}}); else {_TRUST}; {{setting}} may be right",
)


_PROXY_AILMENTS = {
    Code.ENOTFOUND: "its name does not exist",
    Code.EAI_AGAIN: "the DNS server does not answer when asked for its name",
    Code.ECONNREFUSED: "nothing listens on its port",
    Code.ETIMEDOUT: "it does not answer in time",
    Code.EBADRESPONSE: "it does not answer as a proxy does",
}


_TLS_CODES = CERTIFICATE_CODES | {Code.EPROTO}


PROXY_AUTHENTICATION_REQUIRED = 407


def on_the_way(facts: FaultFacts, to: Destination, roots: str | None = None) -> Cause:
    """The row for a fault on the way, filled with what is known of it; `roots` are the trusted ones, where they are known."""
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
        "ailment": _PROXY_AILMENTS.get(facts.code or Code.ETIMEDOUT, "it cannot be used"),
        "issuer": (shown and shown.issuer) or "an authority",
        "names": (shown and shown.names) or "not the one that was called",
        "roots": roots or (shown and shown.roots) or "certifi's roots, or those of REQUESTS_CA_BUNDLE, and RELAY_CA_FILE",
        "begun": f" (it begins on {shown.begins})" if shown and shown.begins else "",
        "ended": f" since {shown.ends}" if shown and shown.ends else "",
        "peer": f"the proxy {proxy}, not {to.what}," if facts.proxy else f"{facts.host}:{facts.port}",
        "address": to.proxies if facts.proxy else to.setting,
    }
    return Cause(to.id, *_row(facts)).about(**names)


def _row(facts: FaultFacts) -> tuple[str, str]:
    if facts.status == PROXY_AUTHENTICATION_REQUIRED:
        return _PROXY_LOGIN
    if facts.proxy is not None:
        if facts.status:
            return _PROXY_ANSWERED if facts.forwarded else _PROXY_REFUSED
        if facts.behind:
            return _PROXY_BEHIND
        if facts.trouble in _TLS_ALONE:
            return _TLS_ALONE[facts.trouble]
        return _PROXY_TLS if facts.code in _TLS_CODES else _PROXY_AWAY
    if facts.late:
        return _LATE
    if facts.trouble is not None:
        return {**_TLS_ALONE, **_TLS_CERTIFICATE}[facts.trouble]
    return ON_THE_WAY[facts.code or Code.ETIMEDOUT]
