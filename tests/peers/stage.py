"""The server that plays a script on loopback, byte by byte, and records what its clients send."""

from __future__ import annotations

import re
import ssl
import tempfile
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trustme

from tests.peers.script import PORT, Reply, Script, Tls
from tests.target_server import Connection, RawRequest, Server

_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came; what is the same to every server is written in one way."""

    method: str
    target: str
    """With hex digits of percent-encodings in upper case, and the peer's port unnamed."""
    cookies: tuple[str, ...]
    """Sorted."""
    body: int
    """Bytes of the body."""


class Stage(Server):
    """One peer for one client."""

    def __init__(self, script: Script, patience_seconds: float) -> None:
        """`patience_seconds` is how long a connection is kept where the client neither closes nor asks."""
        self.seen: list[Seen] = []
        self.waited = False
        """Whether a client still wanted something when patience ran out."""
        self._script = script
        self._patience = patience_seconds
        self._turn = 0
        self._noting = threading.Lock()
        super().__init__(None if script.tls is None else context(script.tls))

    def serve(self, conn: Connection) -> None:
        """Answer one request after the other until one side closes."""
        while not conn.closed:
            conn.sock.settimeout(self._patience)
            try:
                early = self._next().early
                request = self._early(conn) if early else conn.read_request()
            except TimeoutError:
                self.waited = True
                return
            if request is None:
                return
            if not self._say(conn, self._take(request)):
                return

    def _early(self, conn: Connection) -> RawRequest | None:
        found = conn.read_head()
        return None if found is None else RawRequest(found)

    def _next(self) -> Reply:
        with self._noting:
            return self._script.replies[min(self._turn, len(self._script.replies) - 1)]

    def _take(self, request: RawRequest) -> Reply:
        target = _PERCENT.sub(lambda found: found[0].upper(), request.target).replace(str(self.port), "{PORT}")
        cookies = sorted(part.strip() for value in request.get_all("Cookie") for part in value.split(";"))
        seen = Seen(request.method, target, tuple(cookies), len(request.body))
        with self._noting:
            self.seen.append(seen)
            reply = self._script.replies[min(self._turn, len(self._script.replies) - 1)]
            self._turn += 1
        return reply

    def _say(self, conn: Connection, reply: Reply) -> bool:
        """Send the reply; return whether the connection stays open."""
        port = str(self.port).encode()
        for number, piece in enumerate(reply.pieces):
            if number and reply.pause and conn.stopping.wait(reply.pause):
                return False
            conn.send(piece.replace(PORT, port))
        if reply.early:
            return self._wait_early(conn, reply)
        if reply.end == "keep":
            return True
        if reply.end == "close" and self._script.tls is not None and self._script.tls.goodbye:
            conn.finish_tls()
        elif reply.end == "half_close":
            conn.half_close()
            conn.hang(self._patience)
        else:
            getattr(conn, reply.end)()
        return False

    def _wait_early(self, conn: Connection, reply: Reply) -> bool:
        """Read nothing of the body until the client is done, or all of it after the end of what was said."""
        if reply.end == "half_close":
            conn.half_close()
            conn.hang(self._patience)
        elif not conn.stopping.wait(self._patience):
            self.waited = True
        return False


@cache
def authority() -> trustme.CA:
    """Who signs the certificates of these peers; RSA, since older suites want it."""
    return trustme.CA(key_type=trustme.KeyType.RSA)


@cache
def context(tls: Tls) -> ssl.SSLContext:
    """What a peer offers."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = _leaf()
    with tempfile.TemporaryDirectory() as directory:
        chain = Path(directory) / "chain.pem"
        chain.write_bytes(leaf.private_key_pem.bytes() + b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        made.load_cert_chain(chain)
    with warnings.catch_warnings():  # TLS 1.0 and 1.1 are deprecated, and what some peers speak
        warnings.simplefilter("ignore", DeprecationWarning)
        if tls.version != "any":
            made.minimum_version = made.maximum_version = ssl.TLSVersion[f"TLSv{tls.version.replace('.', '_').replace('1_0', '1')}"]
        if tls.ciphers is not None:
            made.set_ciphers(tls.ciphers)
        elif tls.version in ("1.0", "1.1"):
            made.set_ciphers("ALL:@SECLEVEL=0")
    return made


@cache
def _leaf() -> trustme.LeafCert:
    return authority().issue_cert(*NAMES, key_type=trustme.KeyType.RSA)
