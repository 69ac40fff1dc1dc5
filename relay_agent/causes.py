"""What is wrong, in an administrator's words, and what to do about it: one table for every place that says so.

This room owns causes and cures. It must not find anything out: it is given an error, or what is known of a fault on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from relay_agent.errors import (
    Call,
    CredentialsExpired,
    NotThePlatform,
    PayloadFault,
    PayloadRefused,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    RateLimited,
    Service,
    UnknownAgent,
)
from relay_agent.models import Cause, Code, FaultFacts, StorageTrouble, TlsTrouble


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong just now: what was seen, and the row of the table."""

    reason: str
    cause: Cause


# --- the settings, the token, the key, this machine ---

CONFIGURATION = Cause(
    "configuration",
    "{problems}",
    "correct what is named where it was set: in agent.env and by ./run.sh for a container, else in the environment or .env",
)
UNKNOWN_VARIABLES = Cause(
    "configuration", "no variable of the agent is called {names}", "correct the name ({nearest}), or take the variable away"
)
TOKEN_EXPIRED = Cause(
    "token",
    "the JWT expired on {date}, by this machine's clock",
    "create a new token for the service user and set JWT (or the file of JWT_FILE); if that day is still to come, set this machine's clock",
)
TOKEN_UNUSABLE = Cause(
    "token",
    "the file of JWT_FILE changed, and holds no JSON Web Token: the one from before stays in force",
    "write the service user's token into it, and nothing else",
)
TOKEN_ENDS = Cause(
    "token",
    "the JWT expires on {date}, in {days}; from then on the platform refuses the agent",
    "create a new token for the service user before that day and set JWT (or the file of JWT_FILE)",
)
_SET_CLOCK = "set this machine's clock (NTP: `timedatectl set-ntp true`, or chrony); a container has its host's clock"
SECRET_GONE = Cause(
    "configuration",
    "the file of {variable} gives nothing any more ({reason}): what was read from it stays in force until the agent ends",
    "put the file back, readable for the agent's user: without it the agent does not start again",
)
CLOCK_OFF = Cause(
    "clock",
    "this machine's clock is {seconds} s {direction} the platform's; AWS refuses what is signed more than 5 minutes off",
    _SET_CLOCK,
)
NO_KEY = Cause(
    "secure-key",
    "no key is set: secure commands (V2) will fail with ENOKEY",
    "where senders use secure commands, make a key with `relay-agent keygen` and set SECURE_COMMAND_KEY (or the file of"
    " SECURE_COMMAND_KEY_FILE)",
)
KEYS = Cause(
    "secure-key",
    "the file of SECURE_COMMAND_KEY_FILE changed, and holds no usable key: those from before stay in force",
    "write 32 bytes as base64, base64url or 64 hex digits into it (relay-agent keygen makes a key); several with commas between them",
)
STATE_NOT_WRITABLE = Cause(
    "state-dir",
    "the agent cannot write its state directory: {path}",
    "give RELAY_STATE_DIR a directory that the agent's user may write{more}",
)
DISK_FULL = Cause(
    "state-dir", "the disk of {path} is full: {free} MB are free", "make room on the disk of RELAY_STATE_DIR, or use a larger one"
)
DISK_LOW = Cause(
    "state-dir",
    "the disk of {path} is filling up: {free} MB are free",
    "make room on the disk of RELAY_STATE_DIR: answers wait there when the platform is away",
)
ON_LAYER = Cause(
    "state-dir",
    "{path} lies on the container's own layer: when the container is removed, commands that are not answered yet are lost",
    "mount a volume there (docker run -v relay-agent:{path}), or name one with RELAY_STATE_DIR",
)
JOURNAL = Cause(
    "state-dir",
    "the journal cannot be written",
    "see that the disk of RELAY_STATE_DIR is neither full nor read-only; the agent resumes by itself once there is room",
)
JOURNAL_FULL = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR is full",
    f"{DISK_FULL.cure}; the agent resumes by itself once there is room",
)
JOURNAL_READ_ONLY = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR is read-only",
    "mount it writable (a disk with errors turns read-only: look into the system's log), or name another with RELAY_STATE_DIR; the agent"
    " resumes by itself",
)
JOURNAL_HANGS = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR hangs: a write to it does not end",
    "look at the disk and how it is mounted (a file server that is away, a disk that fails: the system's log)",
)
JOURNAL_LOCKED = Cause(
    "state-dir",
    "another program has the journal open and holds a lock on it",
    "end that program (`fuser -v` or `lsof` on journal.db in RELAY_STATE_DIR name it: a backup, a virus scanner, an SQLite shell);"
    " the agent resumes by itself",
)
BACKLOG = Cause(
    "state-dir",
    "so many answers wait for the platform that more would fill the disk",
    "see why they cannot be sent or uploaded (send-failed, upload-failed); the agent resumes by itself once less waits",
)
JOURNAL_DAMAGED = Cause(
    "state-dir",
    "the journal did not hold what was written to it: it was set aside, and what could be read of it is in the new one",
    "check the disk (its SMART values, the system's log) and who else writes to RELAY_STATE_DIR; keep the file set aside for the"
    " vendor's support, then delete it; commands of which nothing could be read are answered by nobody: ask their senders",
)
NOT_TAKEN_UP = Cause(
    "state-dir",
    "what the journal holds of this command cannot be taken up again",
    "its sender is answered EINTERRUPTED: ask at the target whether the request was made; send a support bundle to the vendor",
)
JOURNAL_SPOILED = Cause(
    "state-dir",
    "the journal does not hold what was written to it ({reason}); when the agent starts next, it sets it aside and saves what can be read",
    "check the disk (its SMART values, the system's log) and who else writes to RELAY_STATE_DIR; {path} may be copied for the vendor's"
    " support before the agent is started",
)
JOURNAL_OTHER = Cause(
    "state-dir",
    "the journal cannot be used: {reason}",
    "run the version of the agent that wrote it, or a newer one, as the user who owns it; or give RELAY_STATE_DIR another directory",
)
STDOUT_BLOCKED = Cause(
    "",
    "nobody reads what the agent writes to stdout, and the pipe is full; commands run on, and the newest lines wait (1 MiB)",
    "see that what reads it is alive and has room: dockerd and its log driver's disk, journald, or the shell's pipe",
)
TOO_SLOW = Cause(
    "",
    "what it looks at did not answer within {seconds} s",
    "look at what the summary names: a disk, a name server or a proxy that hangs; then check again",
)
UNEXPECTED = Cause("", "the check itself failed, by an unexpected {kind}", "report it to the vendor; RELAY_LOG_LEVEL=debug shows where")


_OF_STORAGE = {
    StorageTrouble.LOCKED: JOURNAL_LOCKED,
    StorageTrouble.HANGS: JOURNAL_HANGS,
    StorageTrouble.FULL: JOURNAL_FULL,
    StorageTrouble.READ_ONLY: JOURNAL_READ_ONLY,
}


def journal_cause(trouble: StorageTrouble | None) -> Cause:
    """What lies behind a journal that takes nothing."""
    return JOURNAL if trouble is None else _OF_STORAGE[trouble]


# --- what the platform says ---

REFUSED = Cause(
    "access",
    "ORG_SLUG and JWT do not match, the token's user lacks the role, or the token was revoked or is another deployment's",
    "take ORG_SLUG, JWT and API_TARGET from the same organisation, with a service user that may run agents; or create a new token",
)
UNKNOWN_AGENT = Cause(
    "agent",
    "AGENT_ID is not known in this organisation",
    "copy AGENT_ID from the agent's page in the organisation that ORG_SLUG names",
)
NOT_USER_DEFINED = Cause(
    "agent",
    "AGENT_ID names an agent of another type ({kind}), not a user-defined one",
    "create a user-defined agent on the Agents page, and take its id as AGENT_ID",
)
AGENT_DISABLED = Cause("enabled", "the agent is disabled", "enable the agent's connection on the Agents page")
QUEUE_DISABLED = Cause("queue", "the agent's queue is disabled", "enable the agent's queue on the Agents page")
NO_CREDENTIALS = Cause(
    "credentials", "AWS does not take the temporary credentials", f"nothing for now: the agent fetches new ones; if it lasts, {_SET_CLOCK}"
)
NO_QUEUE = Cause(
    "sqs",
    "the queue does not exist, or AWS does not let this agent use it",
    "enable the agent's queue on the Agents page; if it is enabled, ask the platform's support",
)
SQS_POLICY = Cause(
    "sqs",
    "AWS answers AccessDenied: a policy does not let this agent use its queue, though its credentials and this machine's clock are right",
    "ask the platform's support to look at the queue's and the role's policy; if calls leave by a VPC endpoint, at that one's too",
)
ACK_REFUSED = Cause(
    "sqs",
    "the queue did not let single messages be deleted, mostly because their visibility timeout had passed",
    "nothing: they come again and are recognised; if it lasts, raise the queue's visibility timeout",
)
CLOCK = Cause(
    "clock",
    "AWS refuses the signature: this machine's clock is more than 5 minutes off, or something on the way changes what is sent",
    f"{_SET_CLOCK}; if it is right, see that no proxy rewrites calls to AWS",
)
BUSY = Cause("platform", "the platform asks to be called less often", "nothing: the agent waits as long as it is told to")
SLOW = Cause(
    "platform",
    "the platform took {seconds} s to answer, which is slow",
    "look at the line, the DNS server and the proxy on the way; the agent works, and commands take longer",
)
UNWELL = Cause(
    "platform",
    "the platform, or a proxy in its place, answers with an error of its own",
    "nothing for now: the agent keeps trying; if it lasts, ask the platform's support, and look at the log of the proxy where there is one",
)
NOT_THE_PLATFORM = Cause(
    "platform",
    "something answers at API_TARGET, but it is not the platform's API",
    "check API_TARGET (the API's address, with https, not the web page's), and whether a proxy, a firewall's block page or a log-in page"
    " answers in its place",
)
NOT_AWS = Cause(
    "sqs",
    "something answers in {service}'s place",
    "check whether a proxy, a firewall's block page or a log-in page answers in its place, and that AWS_ENDPOINT_URL is not set",
)
AWS_ENDPOINT = Cause(
    "sqs",
    "AWS_ENDPOINT_URL is set: calls for AWS go to {url}, and not to AWS; that is for emulators such as the sandbox",
    "take AWS_ENDPOINT_URL away, from the environment and from .env",
)
AWS_BUSY = Cause(
    "sqs",
    "{service} asks to be called less often (throttling)",
    "nothing for now: the agent calls less often, and what waits is sent later; if it lasts, ask the platform's support to raise its quota",
)
AWS_UNWELL = Cause(
    "sqs",
    "{service} answers with an error of its own ({reason})",
    "nothing for now: the agent keeps trying; if it lasts, look at AWS's health page for the agent's region, or ask the platform's support",
)
LOGS_POLICY = Cause(
    "cloudwatch",
    "AWS answers AccessDenied: a policy does not let this agent write to its log group",
    "ask the platform's support to look at the role's policy; if calls leave by a VPC endpoint, at that one's too",
)
NO_LOG_GROUP = Cause(
    "cloudwatch", "the agent's log group does not exist", "ask the platform's support to make it again, or save the agent's settings anew"
)
NO_LOG_GROUP_NAMED = Cause("cloudwatch", "the platform names no log group for this agent", "ask the platform's support")
NO_LOGS = Cause(
    "cloudwatch",
    "log lines cannot be delivered to CloudWatch Logs; the agent works without, and says the same on stdout",
    "open the firewall outbound to CloudWatch Logs in the agent's AWS region (https, logs.<region>.amazonaws.com), or let the proxy pass"
    " it; if it answers AccessDenied, ask the platform's support",
)

S3_UNREACHABLE = Cause(
    "platform",
    "the platform's bucket, Amazon S3, cannot be reached",
    "open the firewall outbound to S3 in the agent's AWS region (https, *.s3.<region>.amazonaws.com), or let the proxy pass it",
)
S3_EXPIRED = Cause(
    "platform",
    "the presigned URL by which a large body travels had expired when it was used; none lives longer than an hour",
    "see what held the command up: upload-failed or download-failed before this, or a command that took that long; let its sender send it"
    " again",
)
S3_REFUSED = Cause(
    "platform",
    "Amazon S3 answers {status} to the platform's presigned URL: a policy of the bucket, of the role that signed or of a VPC endpoint on"
    " the way forbids it, or something on the way changes what is sent",
    "ask the platform's support to look at the bucket's and the role's policy; where calls leave by a VPC endpoint or a proxy, see that it"
    " passes GET and PUT to *.s3.<region>.amazonaws.com unchanged",
)
S3_GONE = Cause(
    "platform",
    "Amazon S3 has nothing at the platform's presigned URL (it answers 404): the body is gone, or its bucket",
    "let its sender send the command again; if that repeats, ask the platform's support",
)
S3_BAD_URL = Cause("platform", "the platform gave a presigned URL that is none", "ask the platform's support")
SPOOL = Cause(
    "state-dir",
    "a large answer that was written to the state directory cannot be read any more",
    "check the disk of RELAY_STATE_DIR (its SMART values, the system's log) and who else deletes or changes files there",
)
S3_UNWELL = Cause("platform", "Amazon S3 answers with an error of its own", AWS_UNWELL.cure)
NOT_S3 = replace(NOT_AWS.about(service="Amazon S3"), id="platform")

# --- the agent itself ---

STUCK = Cause(
    "agent",
    "a part of the agent stands still",
    "nothing for now: after 5 minutes the agent ends, and its supervisor starts it again; if that repeats, send a support bundle"
    " (relay-agent support-bundle)",
)
_OTHER_WAY = "; the agent works without, and `status` and health checks use admin.sock in the state directory"
ADMIN_TAKEN = Cause(
    "configuration",
    "the agent's pages are not served at {address}: another program listens there, another agent of this machine, say" + _OTHER_WAY,
    "give RELAY_ADMIN_ADDR a free port, or off",
)
ADMIN_CLOSED = Cause(
    "configuration",
    "the agent's pages are not served at {address}, where this machine does not let the agent listen ({reason})" + _OTHER_WAY,
    "give RELAY_ADMIN_ADDR an address of this machine and a port from 1024 on, or off",
)
ADMIN_SOCKET = Cause(
    "state-dir",
    "the socket {address} cannot be made in the state directory ({reason}): `status` and health checks find no agent",
    "give RELAY_STATE_DIR a directory that the agent's user may write, on a disk that has room and takes sockets; then it is made at once",
)
CAUGHT = Cause(
    "target",
    "a request outlasts its own time limit",
    "nothing for now: after 5 minutes the agent ends, and its supervisor starts it again; if that repeats, send a support bundle"
    " (relay-agent support-bundle)",
)
STARTING = Cause("platform", "the agent has just started", "nothing: it reads its configuration from the platform now")
STOPPING = Cause("agent", "the agent was asked to stop", "nothing: it finishes what runs; start it again to take in commands")
NO_ANSWERS = Cause("sqs", "the platform's queue for answers does not take them", "nothing for now: answers are kept, and sent again")

# --- the way there ---

UNREACHABLE = Cause(
    "platform",
    "the platform cannot be reached",
    "check API_TARGET, DNS, the firewall's outbound rules, and the proxy (http_proxy, https_proxy, no_proxy, RELAY_PLATFORM_PROXY)",
)
SQS_UNREACHABLE = Cause(
    "sqs",
    "the platform's queue, Amazon SQS, cannot be reached",
    "open the firewall outbound to SQS in the agent's AWS region (https, sqs.<region>.amazonaws.com), or let the proxy pass it",
)
NOT_READ = Cause("sqs", "the platform's queue does not answer", SQS_UNREACHABLE.cure)
PROXY = Cause(
    "platform",
    "the proxy does not let the agent through to the platform",
    "check the proxy's address, its user and password, and its rules (https_proxy, http_proxy, RELAY_PLATFORM_PROXY), or no_proxy",
)


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
_ON_THE_WAY = {
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
        f"have the certificate of {{what}} renewed; if it is good elsewhere, {_SET_CLOCK}; check the address in {{setting}}",
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
_ON_THE_WAY[Code.EPIPE] = _ON_THE_WAY[Code.ECONNRESET]
_EARLY = (
    "the certificate of {host} is not valid yet{begun}, by this machine's clock",
    f"{_SET_CLOCK}; if it is right, have {{what}} show a certificate that is valid by now; check the address in {{setting}}",
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
_TLS_CODES = frozenset(
    {
        Code.CERT_HAS_EXPIRED,
        Code.DEPTH_ZERO_SELF_SIGNED_CERT,
        Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        Code.ERR_TLS_CERT_ALTNAME_INVALID,
        Code.EPROTO,
    }
)
_PROXY_AUTHENTICATION_REQUIRED = 407


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
    if facts.status == _PROXY_AUTHENTICATION_REQUIRED:
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
    return _ON_THE_WAY[facts.code or Code.ETIMEDOUT]


_BY_KIND: tuple[tuple[type[PlatformError], Cause], ...] = (
    (UnknownAgent, UNKNOWN_AGENT),
    (RateLimited, BUSY),
    (CredentialsExpired, NO_CREDENTIALS),
    (NotThePlatform, NOT_THE_PLATFORM),
)
_BAD_REQUEST = 400
_NOT_FOUND = 404
_SERVER_ERROR = 500
_FOR_NOW = frozenset({408, 429})
CLOCK_SECONDS = 60.0
"""A clock that is less off than this is not the reason for anything."""
_DESTINATIONS = {Service.API: TO_PLATFORM, Service.SQS: TO_SQS, Service.LOGS: TO_LOGS, Service.S3: TO_S3}
_NO_LOG_GROUP_CODE = "ResourceNotFoundException"
_NOT_SENT = {
    Service.API: UNREACHABLE,
    Service.SQS: SQS_UNREACHABLE,
    Service.LOGS: NO_LOGS,
    Service.S3: S3_UNREACHABLE,
}


def cause_of(error: PlatformError) -> Cause:
    """The row of the table that fits."""
    cause = _at_endpoint(error, _cause_of(error))
    if error.service is not Service.LOGS:
        return cause
    return Cause(TO_LOGS.id, f"log lines are not delivered, without which the agent works: {cause.cause}", cause.cure)


def _at_endpoint(error: PlatformError, cause: Cause) -> Cause:
    """The row, where an emulator's address that was left standing explains whatever AWS does not answer."""
    if error.endpoint is None or not isinstance(error, PlatformUnreachable | NotThePlatform | CredentialsExpired):
        return cause
    row = AWS_ENDPOINT.about(url=error.endpoint)
    return Cause(cause.id, f"{cause.cause}; {row.cause}", f"{row.cure}; where it is meant: {cause.cure}")


def _cause_of(error: PlatformError) -> Cause:
    to = _DESTINATIONS[error.service]
    if isinstance(error, PlatformRefused):
        return _of_refusal(error) if to is TO_PLATFORM else _of_signature(error)
    if isinstance(error, PlatformUnreachable):
        return _unreachable(error, to)
    if error.status == _PROXY_AUTHENTICATION_REQUIRED:
        return on_the_way(FaultFacts(None, "it", status=error.status), to)
    if to is TO_S3:
        return _of_s3(error)
    if to is not TO_PLATFORM:
        return _of_aws(error, to)
    if error.status == _BAD_REQUEST and error.call is Call.AGENTS:
        return UNKNOWN_AGENT  # The only thing that this call says is the agent's id.
    return next((cause for kind, cause in _BY_KIND if isinstance(error, kind)), UNWELL)


def _of_refusal(error: PlatformRefused) -> Cause:
    return REFUSED if error.token_ended is None else token_expired(error.token_ended)


def _of_signature(error: PlatformRefused) -> Cause:
    off = error.clock_off
    return CLOCK if off is None or abs(off) < CLOCK_SECONDS else clock_off(off)


def clock_off(seconds: float) -> Cause:
    """The row for a clock that is so many seconds ahead of the platform's, or behind where that is negative."""
    return CLOCK_OFF.about(seconds=f"{abs(seconds):.0f}", direction="ahead of" if seconds > 0 else "behind")


def token_expired(moment: datetime) -> Cause:
    """The row for a token whose time was over then (UTC)."""
    return TOKEN_EXPIRED.about(date=f"{moment:%Y-%m-%d %H:%M} UTC")


def _unreachable(error: PlatformUnreachable, to: Destination) -> Cause:
    facts = error.facts
    if facts.host and facts.code in _ON_THE_WAY:
        return on_the_way(facts, to)
    return PROXY if facts.proxy is not None else _NOT_SENT[error.service]


def _of_aws(error: PlatformError, to: Destination) -> Cause:
    if isinstance(error, CredentialsExpired):
        return NO_CREDENTIALS
    if isinstance(error, QueueUnavailable) or error.aws_code == _NO_LOG_GROUP_CODE:
        denied, gone = (LOGS_POLICY, NO_LOG_GROUP) if to is TO_LOGS else (SQS_POLICY, NO_QUEUE)
        return denied if error.denied else gone
    if isinstance(error, RateLimited):
        row = AWS_BUSY
    elif isinstance(error, NotThePlatform) or (error.aws_code or "").isdigit():
        row = NOT_AWS  # AWS names its errors; a bare status is somebody else's.
    else:
        row = AWS_UNWELL
    return replace(row.about(service=to.service, reason=error.reason), id=to.id)


def _of_s3(error: PlatformError) -> Cause:
    """Bodies travel by presigned URL: neither our token nor our signature can be at fault."""
    why = error.why if isinstance(error, PayloadRefused) else None
    if isinstance(error, NotThePlatform):
        return NOT_S3
    if why is PayloadFault.BAD_URL:
        return S3_BAD_URL
    if error.status is None:
        return S3_UNREACHABLE
    if error.status in _FOR_NOW or error.status >= _SERVER_ERROR:
        return S3_UNWELL
    if error.status < _BAD_REQUEST:
        return NOT_S3
    if error.status == _NOT_FOUND:
        return S3_GONE
    return S3_EXPIRED if why is PayloadFault.EXPIRED else S3_REFUSED.about(status=error.status)


def days_left(moment: datetime, now: datetime) -> str:
    """How long there is still, in words."""
    days = max(0, (moment - now).days)
    return "less than a day" if days == 0 else f"{days} day{'' if days == 1 else 's'}"
