"""TLS peers with one odd property each: the catalogue of badssl.com, and more, rebuilt on loopback.

How each certificate is issued and each server configured.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import ipaddress
import select
import ssl
import struct
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from Crypto.Hash import SHA1
from Crypto.PublicKey import RSA
from Crypto.Signature import pkcs1_15
from Crypto.Util.asn1 import DerBitString, DerSequence
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from tests.target_certificates import authority, ca_pem, server_context
from tests.target_server import PATIENCE_SECONDS, Connection, RawRequest
from tests.targets import ByteTarget, reply

Issuer = tuple[x509.Name, Any]
Peer = Callable[[], "contextlib.AbstractContextManager[ByteTarget]"]
"""Starts a target that answers 200 to whoever comes so far."""

HOST = "localhost"
EXTENDED_VALIDATION = x509.ObjectIdentifier("2.23.140.1.1")


# --- certificates ---


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """The RSA key of that length."""
    return rsa.generate_private_key(65537, bits)


@functools.cache
def ec_key(name: str = "leaf") -> ec.EllipticCurvePrivateKey:
    """The elliptic key of that name, which may be that of its curve."""
    curves: dict[str, ec.EllipticCurve] = {curve.name: curve for curve in (ec.SECP384R1(), ec.SECP256K1(), ec.BrainpoolP256R1())}
    return ec.generate_private_key(curves.get(name, ec.SECP256R1()))


@functools.cache
def trusted() -> Issuer:
    """The authority that the agent trusts in tests."""
    certificate = x509.load_pem_x509_certificate(ca_pem())
    return certificate.subject, serialization.load_pem_private_key(authority().private_key_pem.bytes(), None)


def issue(
    *names: str,
    key: Any = None,
    issuer: Issuer | None = None,
    subject: str | None = "a device",
    more: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    authority_too: bool = False,
) -> tuple[bytes, Any]:
    """A certificate of the trusted authority, or of `issuer`, as PEM, and its key. `names` are its alternative names."""
    key = key or ec_key()
    name, signer = issuer or trusted()
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(subject) if subject else x509.Name([]))
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
    if names:
        found: list[x509.GeneralName] = [_general_name(text) for text in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=not subject)
    if authority_too:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), key


def _general_name(text: str) -> x509.GeneralName:
    if text.startswith("dns:"):  # an address in place of a name
        return x509.DNSName(text.removeprefix("dns:"))
    if text.startswith("email:"):
        return x509.RFC822Name(text.removeprefix("email:"))
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def context_of(pem: bytes, key: Any, *, ciphers: str | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A server's context that shows the certificate, whatever its strength."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(f"{ciphers or 'ALL'}:@SECLEVEL=0")
    private = _private(key)
    with tempfile.NamedTemporaryFile() as file:
        file.write(private + pem)
        file.flush()
        context.load_cert_chain(file.name)
    if version is not None:
        with warnings.catch_warnings():  # TLS 1.0 and 1.1 are deprecated, but a target may support nothing else
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
    return context


def _private(key: Any) -> bytes:
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem


# --- peers ---


@contextlib.contextmanager
def serving(context: ssl.SSLContext) -> Iterator[ByteTarget]:
    """A target with that context."""
    with ByteTarget(context) as target:
        target.on("*", reply(200, body="ok"))
        yield target


def shows(*names: str, **options: Any) -> Peer:
    """A peer with a certificate for these names."""
    return lambda: serving(context_of(*issue(*(names or (HOST,)), **options)))


def chained(old: str = "") -> Peer:
    """A peer whose certificate was issued by an authority below another; `old` says what is signed with SHA-1: `leaf` or `authority`."""

    def start() -> Any:
        upper, upper_key = issue(key=rsa_key(), subject="upper", authority_too=True)
        lower, lower_key = issue(key=rsa_key(2056), subject="lower", issuer=(_named("upper"), upper_key), authority_too=True)
        pem, key = issue(HOST, issuer=(_named("lower"), lower_key))
        if old == "authority":
            lower = _with_sha1(lower, upper_key)
        if old == "leaf":
            pem = _with_sha1(pem, lower_key)
        return serving(context_of(pem + lower + upper, key))

    return start


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _with_sha1(pem: bytes, issuer: rsa.RSAPrivateKey) -> bytes:
    """The certificate with another signature, which `cryptography` makes no more."""
    stronger, weaker = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    certificate = x509.load_pem_x509_certificate(pem)
    content = certificate.tbs_certificate_bytes.replace(stronger, weaker)
    numbers = issuer.private_numbers()
    key = RSA.construct((numbers.public_numbers.n, numbers.public_numbers.e, numbers.d))
    signature = pkcs1_15.new(key).sign(SHA1.new(content))
    algorithm = bytes.fromhex("300d06092a864886f70d0101050500")
    der = DerSequence([content, algorithm, DerBitString(signature).encode()]).encode()
    return ssl.DER_cert_to_PEM_cert(der).encode("ascii")


def speaks(ciphers: str, *, key: Any = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> Peer:
    """A peer that offers only these ciphers, in one version; with an RSA key, or with this one."""
    return lambda: serving(context_of(*issue(HOST, key=key or rsa_key()), ciphers=ciphers, version=version))


def diffie_hellman(bits: int) -> Peer:
    """A peer that agrees on a key with Diffie-Hellman in the group of that length (RFC 2409, RFC 3526)."""

    def start() -> Any:
        context = context_of(*issue(HOST, key=rsa_key()), ciphers="DHE-RSA-AES256-GCM-SHA384", version=ssl.TLSVersion.TLSv1_2)
        parameters = base64.encodebytes(DerSequence([_group(bits), 2]).encode()).decode("ascii")
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "dh.pem"
            file.write_text(f"-----BEGIN DH PARAMETERS-----\n{parameters}-----END DH PARAMETERS-----\n")
            context.load_dh_params(str(file))
        return serving(context)

    return start


def _group(bits: int) -> int:
    added = {768: 149686, 1024: 129093, 2048: 124476}[bits]
    return int(2**bits - 2 ** (bits - 64) - 1 + 2**64 * (_pi(bits - 130) + added))


def _pi(bits: int) -> int:
    """Pi times a power of two, without its fraction (Machin's formula)."""
    scale = 1 << (bits + 64)

    def arctan_of_one_over(number: int) -> int:
        total, power, divisor = 0, scale // number, 1
        while power:
            total += power // divisor if divisor % 4 == 1 else -(power // divisor)
            power, divisor = power // (number * number), divisor + 2
        return total

    return (16 * arctan_of_one_over(5) - 4 * arctan_of_one_over(239)) >> 64


def asks(version: ssl.TLSVersion, *, required: bool = True) -> Peer:
    """A peer that asks for a client certificate."""

    def start() -> Any:
        context = server_context(oldest=version, newest=version, client_authority=ca_pem())
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return serving(context)

    return start


def asks_after_the_request(*, required: bool = False) -> Peer:
    """A peer that asks for a client certificate once it has read the request, as Apache does in TLS 1.3.

    It answers whether it got one; 403 if the client does not offer to be asked then (RFC 8446 §4.6.2).
    """

    def ask(conn: Connection, _request: RawRequest) -> None:
        assert isinstance(conn.sock, ssl.SSLSocket)
        try:
            conn.sock.verify_client_post_handshake()
        except ssl.SSLError:
            conn.respond(403)
            return
        conn.sock.do_handshake()  # sends the request for the certificate
        select.select([conn.sock], [], [], PATIENCE_SECONDS)
        conn.sock.settimeout(0)
        with contextlib.suppress(ssl.SSLWantReadError):  # The client's answer has no data.
            conn.sock.recv(1)
        conn.sock.settimeout(PATIENCE_SECONDS)
        conn.respond(200, body=b"with a certificate" if conn.sock.getpeercert(binary_form=True) else b"without a certificate")

    @contextlib.contextmanager
    def start() -> Iterator[ByteTarget]:
        context = server_context(oldest=ssl.TLSVersion.TLSv1_3, client_authority=ca_pem())
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        context.post_handshake_auth = True
        with ByteTarget(context) as target:
            target.on("*", ask)
            yield target

    return start


def asks_and_ends(version: ssl.TLSVersion, how: str) -> Peer:
    """A peer that asks for a client certificate, and without a word ends what it got none in: `close`, `reset` or `finish_tls`."""

    @contextlib.contextmanager
    def start() -> Iterator[ByteTarget]:
        with asks(version, required=False)() as target:
            target.on("*", lambda conn, _request: getattr(conn, how)())
            yield target

    return start


@contextlib.contextmanager
def asks_and_then(version: ssl.TLSVersion, step: Callable[[Connection], object]) -> Iterator[ByteTarget]:
    """A peer that requests a client certificate, continues without one, and takes this step before it reads a request."""

    class Ending(ByteTarget):
        def serve(self, conn: Connection) -> None:
            step(conn)

    context = server_context(oldest=version, newest=version, client_authority=ca_pem())
    context.verify_mode = ssl.CERT_OPTIONAL
    with Ending(context) as target:
        yield target


@contextlib.contextmanager
def asks_in_a_second_handshake(*, certificate: bool) -> Iterator[str]:
    """The URL of a peer that renegotiates once it knows what is wanted, as IIS and Apache do in TLS 1.2, and then ends.

    Python's servers cannot; `openssl s_server` does when its input says so.
    """
    context, key = issue(HOST, key=rsa_key())
    with tempfile.TemporaryDirectory() as directory:
        pem = Path(directory) / "server.pem"
        pem.write_bytes(context + _private(key))
        command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", str(pem), "-tls1_2", "-no_cache", "-no_ticket", "-state"]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        assert server.stdin is not None and server.stdout is not None
        driver = threading.Thread(target=_drive, args=(server.stdin, server.stdout, b"R\n" if certificate else b"r\n"), daemon=True)
        with server, server.stdin, server.stdout:
            try:
                line = next((line for line in server.stdout if line.startswith(b"ACCEPT ")), b"")
                driver.start()
                yield f"https://{HOST}:{int(line.rpartition(b':')[2])}/"
            finally:
                server.kill()
                driver.join(PATIENCE_SECONDS)


def _drive(to: Any, out: Any, again: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        asked = False
        for line in out:
            if line.startswith(b"GET "):
                to.write(again)
                asked = True
            elif asked and b"write finished" in line:
                to.write(b"Q\n")
                asked = False


def refuses_the_name() -> Any:
    """A peer that knows nothing of the name that it is called by."""
    context = server_context()
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return serving(context)


def sends(*records: bytes) -> Peer:
    """A peer that sends these bytes to whatever comes, and is done."""

    def answer(conn: Connection) -> bool:
        conn.sock.recv(65536)
        conn.send(*records)
        conn.half_close()
        conn.hang(1.0)
        return False

    @contextlib.contextmanager
    def start() -> Iterator[ByteTarget]:
        with ByteTarget() as target:
            target.on_accept = answer
            yield target

    return start


# --- records byte by byte, for peers that a current OpenSSL cannot imitate ---


def alert(number: int) -> bytes:
    """A fatal alert."""
    return struct.pack("!BHHBB", 21, 0x0303, 2, 2, number)


def server_hello(cipher: int, version: int = 0x0303, *, renegotiation_info: bool = True) -> bytes:
    """A ServerHello that picks a cipher, offered or not."""
    extensions = b"\xff\x01\x00\x01\x00" if renegotiation_info else b""
    body = struct.pack("!H", version) + b"r" * 32 + b"\0" + struct.pack("!HB", cipher, 0)
    body += struct.pack("!H", len(extensions)) + extensions if extensions else b""
    return _message(2, body, version)


def short_diffie_hellman(bits: int) -> tuple[bytes, bytes, bytes]:
    """ServerHello, Certificate and ServerKeyExchange with a group of so many bits; the client stops before it checks the signature."""
    pem, _ = issue(HOST, key=rsa_key())
    der = ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
    one = len(der).to_bytes(3) + der
    prime = ((1 << bits) - 1).to_bytes(bits // 8)
    parts = b"".join(struct.pack("!H", len(part)) + part for part in (prime, b"\x02", prime[:-1] + b"\x01"))
    signature = struct.pack("!HH", 0x0401, 256) + b"s" * 256
    return server_hello(0x009E), _message(11, len(one).to_bytes(3) + one), _message(12, parts + signature)


def _message(kind: int, body: bytes, version: int = 0x0303) -> bytes:
    message = bytes([kind]) + len(body).to_bytes(3) + body
    return struct.pack("!BHH", 22, version, len(message)) + message


def revoked(at: str) -> Peer:
    """A peer whose certificate names where to ask whether it was revoked."""
    where = x509.UniformResourceIdentifier(at)
    points = x509.CRLDistributionPoints([x509.DistributionPoint([where], None, None, None)])
    access = x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, where)])
    return shows(more=((points, False), (access, False)))


def for_clients_only() -> Any:
    """A peer with a certificate that is for clients."""
    return shows(more=((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),))()


def extended_validation() -> Any:
    """A peer with the policy of extended validation in its certificate."""
    policy = x509.PolicyInformation(EXTENDED_VALIDATION, None)
    return shows(more=((x509.CertificatePolicies([policy]), False),))()
