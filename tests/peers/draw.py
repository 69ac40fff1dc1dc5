"""Peers drawn from a seed: the same seed gives the same peer on every machine.

How the parts of an answer are combined, kind by kind. All randomness comes from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import get_args

from tests.peers import parts
from tests.peers.hops import cookies, redirect
from tests.peers.script import Ask, End, Reply, Script, Tls, Traits, head

_PLAIN = b"HTTP/1.1 200 OK"
_ENDS: tuple[End, ...] = get_args(End)
Kind = Callable[[Random, Traits], Script]


def script(seed: int, only: str | None = None) -> Script | None:
    """The peer of a seed; None where `only` names another kind than it is of."""
    rng = Random(f"peer {seed}")
    kind = rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    if only not in (None, kind):
        return None
    traits = Traits()
    drawn = KINDS[kind][1](rng, traits)
    return replace(drawn, seed=seed, kind=kind, traits=traits.frozen())


def scripts(first: int, count: int, only: str | None = None) -> Iterator[Script]:
    """`count` peers from the seed `first` on."""
    seed = first
    while count > 0:
        drawn = script(seed, only)
        if drawn is not None:
            count -= 1
            yield drawn
        seed += 1


def _one(reply: Reply, *, method: str = "GET") -> Script:
    return Script(0, "", (reply,), (Ask(method),))


def _body(rng: Random) -> bytes:
    return rng.choice(parts.BODIES)


def _plain(rng: Random) -> tuple[list[bytes], bytes]:
    """Field lines and bytes of a body with nothing odd about it."""
    body = _body(rng)
    return [b"Content-Length: %d" % len(body)], body


def _written(rng: Random, data: bytes) -> tuple[bytes, ...]:
    """The same bytes in one write or several."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
    places = [0, *cuts, len(data)]
    return tuple(data[start:end] for start, end in pairwise(places) if start < end)


def _answer(rng: Random, status_line: bytes, lines: list[bytes], body: bytes, end: End = "keep", *, newline: bytes = b"\r\n") -> Reply:
    around = [b"Server: peer", b"Content-Type: application/octet-stream", *lines]
    if not any(line.lower().startswith(b"content-type") for line in lines):
        rng.shuffle(around)
    else:
        around.remove(b"Content-Type: application/octet-stream")
    return Reply(_written(rng, head(status_line, around, newline) + body), end)


def _status(rng: Random, note: Traits) -> Script:
    name, line = parts.pick(rng, parts.STATUS_LINES)
    note(f"status:{name}")
    return _one(_answer(rng, line, *_plain(rng), rng.choice(["keep", "close"])))


def _field(rng: Random, note: Traits) -> Script:
    lines, body = _plain(rng)
    odd = []
    for called in rng.choice([[b"X-Odd"], [b"X-Odd"], [b"X-Odd", b"X-Two"]]):
        name, line = parts.pick(rng, parts.FIELDS)
        note(f"field:{name}")
        odd.append(line.replace(b"X-Odd", called))
    placed = [*odd, *lines] if rng.random() < 0.5 else [*lines, *odd]
    newline = b"\r\n"
    if rng.random() < 0.2:
        note("lines:lf")
        newline, placed = b"\n", [line.replace(b"\r\n", b"\n") for line in placed]
    start = [_PLAIN]
    if rng.random() < 0.1:
        note("field:first-is-folded")
        start.append(b" X-First: 1")
    return _one(Reply(_written(rng, head(start[0], [*start[1:], *placed, b"X-Last: 1"], newline) + body)))


def _length(rng: Random, note: Traits) -> Script:
    name, (lines, body) = rng.choice(list(parts.lengths(_body(rng)).items()))
    note(f"length:{name}")
    return _one(_answer(rng, _old(rng, note), lines, body, _end(rng, note)))


def _chunked(rng: Random, note: Traits) -> Script:
    name, (lines, body) = rng.choice(list(parts.chunkings(_body(rng)).items()))
    note(f"chunked:{name}")
    return _one(_answer(rng, _old(rng, note), lines, body, _end(rng, note)))


def _old(rng: Random, note: Traits) -> bytes:
    if rng.random() < 0.9:
        return _PLAIN
    note("version:1.0")
    return b"HTTP/1.0 200 OK"


def _end(rng: Random, note: Traits) -> End:
    end: End = rng.choices(_ENDS, [5, 4, 1, 1])[0]
    note(f"end:{end}")
    return end


def _coding(rng: Random, note: Traits) -> Script:
    name = rng.choice(list(parts.CODINGS))
    note(f"coding:{name}")
    lines, body = parts.CODINGS[name](_body(rng))
    return _one(_framed(rng, note, lines, body))


def _framed(rng: Random, note: Traits, lines: list[bytes], body: bytes) -> Reply:
    """The body in one of the three framings that are in order."""
    how = rng.choice(["length", "chunked", "close"])
    note(f"framing:{how}")
    if how == "chunked":
        half = len(body) // 2
        pieces = b"".join(parts.chunk(piece) for piece in (body[:half], body[half:]) if piece)
        return _answer(rng, _PLAIN, [*lines, b"Transfer-Encoding: chunked"], pieces + b"0\r\n\r\n")
    if how == "length":
        return _answer(rng, _PLAIN, [*lines, b"Content-Length: %d" % len(body)], body)
    return _answer(rng, _PLAIN, lines, body, "close")


def _charset(rng: Random, note: Traits) -> Script:
    name = rng.choice(list(parts.TEXTS))
    note(f"charset:{name}")
    charset, body = parts.TEXTS[name]
    return _one(_framed(rng, note, [b"Content-Type: text/plain; charset=" + charset.encode()], body))


def _bodiless(rng: Random, note: Traits) -> Script:
    status = rng.choice([b"200 OK", b"204 No Content", b"205 Reset", b"304 Not Modified", b"206 Partial", b"404 Not Found"])
    method = rng.choice(["GET", "HEAD"])
    note(f"bodiless:{method}-{status[:3].decode()}")
    lines, body = rng.choice(
        [
            ([], b""),
            ([b"Content-Length: 5"], b"hello"),
            ([b"Content-Length: 5"], b""),
            ([b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
            ([b"Content-Encoding: gzip", b"Content-Length: 20"], b""),
            ([], b"hello"),
            ([b"Content-Length: many"], b""),
        ]
    )
    note("bodiless:with" if body else "bodiless:without", f"end:{(end := rng.choice(['keep', 'close']))}")
    return _one(_answer(rng, b"HTTP/1.1 " + status, lines, body, end), method=method)


def _interim(rng: Random, note: Traits) -> Script:
    name, first = rng.choice(
        [
            ("100", b"HTTP/1.1 100 Continue\r\n\r\n"),
            ("102-twice", b"HTTP/1.1 102 Processing\r\n\r\n" * 2),
            ("103-with-fields", b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\nSet-Cookie: early=1\r\n\r\n"),
            ("199", b"HTTP/1.1 199 X\r\nContent-Length: 5\r\n\r\n"),
            ("many", b"HTTP/1.1 100 Continue\r\n\r\n" * 60),
            ("100-no-reason", b"HTTP/1.1 100\r\n\r\n"),
            ("100-line-feeds", b"HTTP/1.1 100 Continue\n\n"),
            ("100-of-1.0", b"HTTP/1.0 100 Continue\r\n\r\n"),
            ("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
            ("100-alone", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ]
    )
    note(f"interim:{name}")
    if name == "100-alone":
        return _one(Reply((first,), "close"))
    reply = _answer(rng, _PLAIN, *_plain(rng))
    return _one(replace(reply, pieces=(first, *reply.pieces)))


def _broken(rng: Random, note: Traits) -> Script:
    """A good answer, broken off somewhere."""
    reply = _framed(rng, note, *parts.CODINGS[rng.choice(["identity", "gzip"])](rng.choice(parts.BODIES[2:])))
    data = b"".join(reply.pieces)
    within_head = rng.random() < 0.5
    place = rng.randrange(data.index(b"\r\n\r\n") + 4) if within_head else rng.randrange(data.index(b"\r\n\r\n") + 4, len(data) + 1)
    end: End = rng.choice(["close", "half_close", "reset"])
    note(f"broken:{'nothing' if not place else 'head' if within_head else 'body'}", f"end:{end}")
    return _one(Reply(_written(rng, data[:place]), end))


def _slow(rng: Random, note: Traits) -> Script:
    """A good answer in dribs and drabs."""
    reply = _framed(rng, note, *parts.CODINGS[rng.choice(["identity", "gzip", "br"])](rng.choice(parts.BODIES[:6])))
    data = b"".join(reply.pieces)
    size = max(1, len(data) // rng.choice([3, 10, 20]))
    note("slow:pieces")
    return _one(Reply(tuple(data[start : start + size] for start in range(0, len(data), size)), reply.end, pause=0.005))


def _early(rng: Random, note: Traits) -> Script:
    """An answer before the body was read."""
    status = rng.choice([b"413 Too Large", b"401 Unauthorized", b"503 Busy", b"200 OK"])
    end: End = rng.choice(["keep", "half_close"])
    large = rng.random() < 0.5
    note(f"early:{'large' if large else 'small'}", f"end:{end}")
    reply = _answer(rng, b"HTTP/1.1 " + status, [b"Retry-After: 7", b"Content-Length: 4"], b"stop", end)
    return Script(0, "", (replace(reply, early=True),), (Ask("POST", body=b"b" * (6_000_000 if large else 2000)),))


def _kept(rng: Random, note: Traits) -> Script:
    """Two requests in a row."""
    version = rng.choice([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])
    connection = rng.choice(
        [[], [b"Connection: keep-alive"], [b"Connection: close"], [b"connection: Keep-Alive, x"], [b"Keep-Alive: timeout=5, max=1"]]
    )
    framing, lines, body = rng.choice(
        [
            ("length", [b"Content-Length: 5"], b"first"),
            ("chunked", [b"Transfer-Encoding: chunked"], b"5\r\nfirst\r\n0\r\n\r\n"),
            ("trailer", [b"Transfer-Encoding: chunked"], b"5\r\nfirst\r\n0\r\nX-T: 1\r\n\r\n"),
            ("surplus", [b"Content-Length: 5"], b"firstsurplus"),
            ("surplus", [b"Content-Length: 5"], b"firstHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
            ("empty", [b"Content-Length: 0"], b""),
            ("chunked-twice", [b"Transfer-Encoding: chunked, chunked"], b"5\r\nfirst\r\n0\r\n\r\n"),
            ("both-framings", [b"Transfer-Encoding: chunked", b"Content-Length: 5"], b"5\r\nfirst\r\n0\r\n\r\n"),
        ]
    )
    if b"max=1" in b"".join(connection):
        note("kept:max-1")
    end: End = rng.choice(["keep", "keep", "close", "half_close"])
    second = rng.choice(["GET", "POST"])
    note(f"kept:{second}", f"kept:{framing}", f"end:{end}")
    first = _answer(rng, version + b" 200 OK", [*connection, *lines], body, end)
    then = [Reply((head(_PLAIN, [b"Content-Length: 6"]) + b"second",))]
    if rng.random() < 0.25:
        note("kept:given-up")
        then.insert(0, Reply((), rng.choice(["close", "reset"])))
    return Script(0, "", (first, *then), (Ask(), Ask(second, "/second", b"body" if second == "POST" else b"")))


def _tunnel(rng: Random, note: Traits) -> Script:
    status = rng.choice([b"403 Forbidden", b"407 Who", b"502 Bad Gateway", b"503 Busy", b"404 X", b"500 X"])
    name = rng.choice(
        ["identity", "gzip", "gzip", "zlib", "deflate-raw", "br", "gzip-truncated", "gzip-members", "unknown", "gzip-that-is-none"]
    )
    note(f"tunnel:{name}")
    text = rng.choice([b"refused by the proxy", "zur\u00fcckgewiesen".encode(), b"<html>" + b"no " * 500])
    reply = _framed(rng, note, *parts.CODINGS[name](text))
    data = b"".join(reply.pieces).replace(b"200 OK", status, 1)
    return Script(0, "", (Reply(_written(rng, data), "close"),), tunnel=True)


def _tls(rng: Random, note: Traits) -> Script:
    version = rng.choice(["1.0", "1.1", "1.2", "1.2", "1.2", "1.3", "any"])
    suites = {
        "default": None,
        "ecdhe-gcm": "ECDHE-RSA-AES128-GCM-SHA256",
        "chacha": "ECDHE-RSA-CHACHA20-POLY1305",
        "rsa-gcm": "AES256-GCM-SHA384",
        "rsa-cbc": "AES128-SHA",
        "ecdhe-cbc": "ECDHE-RSA-AES256-SHA",
        "ecdhe-cbc-384": "ECDHE-RSA-AES256-SHA384",
        "dhe": "DHE-RSA-AES128-GCM-SHA256",
        "camellia": "CAMELLIA128-SHA",
        "ccm": "AES128-CCM8",
        "null": "NULL-SHA256:@SECLEVEL=0",
    }
    suite = rng.choice(list(suites)) if version == "1.2" else "default"
    goodbye = rng.random() < 0.5
    note(f"tls:{version}", f"suite:{suite}", "goodbye:said" if goodbye else "goodbye:unsaid")
    return replace(_one(_framed(rng, note, *parts.CODINGS["identity"](_body(rng)))), tls=Tls(version, suites[suite], goodbye))


def _mixed(rng: Random, note: Traits) -> Script:
    """Several things odd at once, of which requests reads each."""
    name, status = parts.pick(
        rng, {key: parts.STATUS_LINES[key] for key in ("blanks", "blanks-other", "reason-none", "1.0", "reason-odd", "code-rare")}
    )
    coding = rng.choice(["gzip", "zlib", "deflate-raw", "br", "gzip-members", "gzip-padding", "gzip-twice", "identity"])
    kind, line = parts.pick(rng, {key: parts.FIELDS[key] for key in ("folded", "duplicate", "obs-text", "empty", "padded", "quoted")})
    lines, packed = parts.CODINGS[coding](_body(rng))
    framings = parts.chunkings(packed)
    how = rng.choice(["plain", "extension", "trailers", "many-zeros", "blank-after-size", "twice-in-list", "zeros", "and-length"])
    note(f"status:{name}", f"coding:{coding}", f"field:{kind}", f"chunked:{how}")
    framed, body = framings[how] if packed else framings["plain"]
    return _one(_answer(rng, status, [line, *lines, *framed], body, _end(rng, note)))


KINDS: dict[str, tuple[int, Kind]] = {
    "status": (8, _status),
    "field": (12, _field),
    "length": (10, _length),
    "chunked": (12, _chunked),
    "coding": (10, _coding),
    "charset": (5, _charset),
    "bodiless": (6, _bodiless),
    "interim": (3, _interim),
    "broken": (6, _broken),
    "slow": (2, _slow),
    "redirect": (12, redirect),
    "cookies": (10, cookies),
    "kept": (6, _kept),
    "early": (1, _early),
    "tunnel": (3, _tunnel),
    "tls": (4, _tls),
    "mixed": (6, _mixed),
}
"""Each kind of peer, and how often of it there is one."""
