"""Peers that redirect: the catalogue of Locations and Set-Cookie fields."""

from __future__ import annotations

from random import Random

from tests.peers.script import PORT, Ask, Reply, Script, Traits, head

LOCATIONS: dict[str, tuple[bytes, ...]] = {
    "absolute": (b"http://127.0.0.1:" + PORT + b"/next", b"http://127.0.0.1:" + PORT + b"/a/b?c=d"),
    "no-path": (b"http://127.0.0.1:" + PORT, b"http://127.0.0.1:" + PORT + b"?q=1", b"http://127.0.0.1:" + PORT + b"#f"),
    "scheme-case": (b"HTTP://127.0.0.1:" + PORT + b"/next",),
    "path": (b"/next", b"/next?a=b&c=d", b"/next?a=b?c"),
    "relative": (b"next", b"./next", b"sub/next", b"next?x"),
    "dots": (b"../next", b"/a/../next", b"/a/./b/../../next", b"../../../next", b"/..", b"/a/.."),
    "query": (b"?only=query", b"?"),
    "fragment": (b"/next#part", b"#part", b"/next?q#part?x"),
    "network": (b"//127.0.0.1:" + PORT + b"/next",),
    "empty": (b"", b" "),
    "blanks": (b"/a b/c", b"/next?a b", b"  /padded  ", b"/tab\there"),
    "obs-text": (b"/ger\xe4t?q=\xe9", b"/\xff", b"/a?b=\xa4"),
    "utf-8": ("/ger\u00e4t?q=\u00e9".encode(), "/\u65e5\u672c".encode(), "/a?\u20ac".encode()),
    "utf-8-and-obs-text": ("/ger\u00e4t".encode() + b"?q=\xe9",),
    "percent": (b"/%41%2f%2F%7e", b"/%zz", b"/100%", b"/a%00b", b"/%e4?%E9"),
    "odd-characters": (b'/a"b<c>d', b"/a{b}c|d^e`f", b"/a[b]c", b"/a;b=c,d:e@f", b"/a\\b", b"/a'b(c)*!"),
    "double-slash": (b"/a//b", b"/a//../b"),
    "colon-in-path": (b"/a:b", b"a:b", b"./a:b"),
    "other-scheme": (b"ftp://127.0.0.1/x", b"file:///etc/hostname", b"mailto:x@y", b"javascript:x", b"data:,x"),
    "backslashes": (b"\\next", b"http:\\\\127.0.0.1:" + PORT + b"\\next", b"/\\next"),
    "scheme-and-path": (b"http:/next", b"http:next", b"http:///next"),
    "user": (b"http://user:secret@127.0.0.1:" + PORT + b"/next",),
    "port-odd": (b"http://127.0.0.1:0/x", b"http://127.0.0.1:99999/x", b"http://127.0.0.1:/x", b"http://127.0.0.1:port/x"),
    "host-odd": (b"http:///x", b"http://[::1/x", b"http://a b/x", b"http://exa_mple..invalid/x"),
    "address-forms": (b"http://127.1:" + PORT + b"/next", b"http://2130706433:" + PORT + b"/next", b"http://0x7f.1:" + PORT + b"/next"),
    "long": (b"/" + b"l" * 5000, b"/next?" + b"q" * 30_000),
    "control": (b"/a\x01b", b"/a\x7fb", b"/a\x0bb"),
    "comma": (b"/one, /two",),
    "quoted": (b'"/next"', b"</next>"),
}
COOKIES: dict[str, tuple[bytes, ...]] = {
    "plain": (b"a=1", b"a=1; Path=/", b"b=2; HttpOnly; SameSite=Lax"),
    "blanks": (b"  a = 1 ; Path = / ", b"a=1;Path=/", b"a=1;;; Path=/", b"\ta=1\t"),
    "no-name": (b"=1", b"=a=b", b" = 1"),
    "no-value": (b"a=", b"a=; Path=/"),
    "no-equals": (b"alone", b"alone; Path=/", b""),
    "equals-in-value": (b"a=b=c", b"a==", b"a=b=c; Path=/"),
    "quotes": (b'a="1 2"', b'a="b;c"', b'a="', b"a='1'"),
    "comma": (b"a=1,b=2", b"a=1, b=2; Path=/"),
    "obs-text": (b"a=caf\xe9", "a=caf\u00e9".encode(), b"\xe9=1"),
    "control": (b"a=\x01", b"a=b\x7f", b"a=b\tc"),
    "path-elsewhere": (b"a=1; Path=/other", b"a=1; Path=/sec"),
    "path-matches": (b"a=1; Path=/second", b"a=1; Path=/second/", b"a=1; Path=/SECOND"),
    "path-quoted": (b'a=1; Path="/"', b"a=1; Path=second", b"a=1; Path=", b"a=1; Path"),
    "path-twice": (b"a=1; Path=/other; Path=/", b"a=1; Path=/; Path=/other", b"a=1; Path=/other; Path"),
    "domain-own": (b"a=1; Domain={HOST}", b"a=1; Domain=.{HOST}", b"a=1; Domain={HOST}."),
    "domain-case": (b"a=1; DOMAIN={HOST}; PATH=/",),
    "domain-parent": (b"a=1; Domain=lab.example", b"a=1; Domain=.lab.example"),
    "domain-other": (b"a=1; Domain=elsewhere.example", b"a=1; Domain=x.{HOST}", b"a=1; Domain=ab.example"),
    "domain-suffix": (b"a=1; Domain=example", b"a=1; Domain=com", b"a=1; Domain=."),
    "domain-empty": (b"a=1; Domain=", b"a=1; Domain"),
    "domain-address": (b"a=1; Domain=127.0.0.1", b"a=1; Domain=0.0.1"),
    "max-age": (b"a=1; Max-Age=100", b"a=1; max-age=0", b"a=1; Max-Age=-1"),
    "max-age-odd": (b"a=1; Max-Age=x", b"a=1; Max-Age=", b"a=1; Max-Age=+5", b"a=1; Max-Age=1.5", b'a=1; Max-Age="0"', b"a=1; Max-Age=0x"),
    "expires-future": (
        b"a=1; Expires=Wed, 01 Jan 2070 00:00:00 GMT",
        b"a=1; Expires=Wed, 01-Jan-2070 00:00:00 GMT",
        b"a=1; Expires=Wednesday, 01-Jan-36 00:00:00 GMT",
        b"a=1; Expires=Wed Jan  1 00:00:00 2070",
    ),
    "expires-past": (
        b"a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        b"a=1; Expires=Thu, 01-Jan-1970 00:00:01 GMT",
        b"a=1; Expires=Thu, 01 Jan 2015 00:00:00 GMT",
        b"a=1; Expires=Mon, 01-Jan-90 00:00:00 GMT",
    ),
    "expires-odd": (
        b"a=1; Expires=0",
        b"a=1; Expires=-1",
        b"a=1; Expires=never",
        b"a=1; Expires=Thu, 32 Jan 2015 00:00:00 GMT",
        b"a=1; Expires=",
    ),
    "max-age-and-expires": (
        b"a=1; Max-Age=100; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        b"a=1; Expires=Wed, 01 Jan 2070 00:00:00 GMT; Max-Age=0",
    ),
    "secure": (b"a=1; Secure", b"a=1; secure; Path=/", b"a=1; Secure=no"),
    "prefix": (b"__Secure-a=1", b"__Host-a=1; Path=/", b"__Secure-a=1; Secure"),
    "unknown": (b"a=1; Partitioned; Priority=High; X=Y", b"a=1; Version=1; Comment=x"),
    "long": (b"a=" + b"v" * 3000, b"a=" + b"v" * 4200, b"a=" + b"v" * 9000),
}
HOSTS = (None, None, "device.lab.example", "device.lab.example:8080", "DEVICE.lab.example", "plc7", "localhost")


def redirect(rng: Random, note: Traits) -> Script:
    """A redirect, or a chain of them, and its final answer."""
    status = rng.choice([301, 302, 302, 303, 307, 308, 300, 304, 305])
    method = rng.choice(["GET", "GET", "GET", "HEAD", "POST", "PUT"])
    note(f"redirect:{status}", f"method:{method}")
    lines, body = _location(rng, note)
    first = Reply((head(b"HTTP/1.1 %d Moved" % status, lines) + (body if method != "HEAD" else b""),))
    last = Reply((head(b"HTTP/1.1 200 OK", [b"Content-Length: 4"]) + (b"done" if method != "HEAD" else b""),))
    asks = (Ask(method, rng.choice(["/start", "/a/b/start?x=y", "/start?q"]), b"payload" if method in ("POST", "PUT") else b""),)
    if rng.random() < 0.08:
        note("redirect:loop")
        return Script(0, "", (first,), asks)
    if rng.random() < 0.2:
        note("redirect:chain")
        return Script(0, "", (first, first, last), asks)
    return Script(0, "", (first, last), asks)


def _location(rng: Random, note: Traits) -> tuple[list[bytes], bytes]:
    """Field lines and body of a redirect."""
    how = rng.random()
    if how < 0.04:
        note("location:missing")
        return [b"Content-Length: 5"], b"moved"
    if how < 0.1:
        note("location:twice")
        return [b"Location: /one", b"Location: " + rng.choice([b"/one", b"/two"]), b"Content-Length: 5"], b"moved"
    name = rng.choice(list(LOCATIONS))
    note(f"location:{name}")
    field = b"Location: " + rng.choice(LOCATIONS[name])
    framing = rng.choice(
        [
            ([b"Content-Length: 5"], b"moved"),
            ([b"Content-Length: 0"], b""),
            ([b"Transfer-Encoding: chunked"], b"5\r\nmoved\r\n0\r\n\r\n"),
            ([b"Content-Length: 5", b"Content-Encoding: gzip"], b"moved"),
        ]
    )
    return [field, *framing[0]], framing[1]


def cookies(rng: Random, note: Traits) -> Script:
    """A redirect that sets cookies, another that may set more, and the request that shows them."""
    host = rng.choice(HOSTS)
    at = "localhost" if host is None and rng.random() < 0.4 else "127.0.0.1"
    named = host or at
    note(f"host:{'given' if host else at}")
    replies = []
    for target in ([b"/second"], [b"/second/third", b"/second"])[rng.random() < 0.4]:
        lines = [b"Location: " + target, b"Content-Length: 0"]
        for name in (rng.choice(list(COOKIES)), *rng.choice([(), (), ("plain",), ("no-value", "plain")])):
            note(f"cookie:{name}")
            said = rng.choice(COOKIES[name]).replace(b"{HOST}", named.lower().partition(":")[0].encode())
            if rng.random() < 0.3:
                said = said.replace(b"a=", b"b=", 1)
            lines.append(rng.choice([b"Set-Cookie: ", b"set-cookie:"]) + said)
        replies.append(Reply((head(b"HTTP/1.1 302 Found", lines),)))
    replies.append(Reply((head(b"HTTP/1.1 200 OK", [b"Content-Length: 4"]) + b"done",)))
    return Script(0, "", tuple(replies), (Ask(path=rng.choice(["/start", "/", "/second/start", "/second/x/start"]), host=host, at=at),))
