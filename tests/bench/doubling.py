"""The cost of parsing foreign text of one length, twice and four times that length: a ratio of two is linear, of four quadratic.

The table of inputs and how they are measured; the caller decides which ratio is too high.
To add a row: a name, a function that makes the input for a length in characters or bytes, and what is run on it.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from relay_agent.core.clock import http_date
from relay_agent.core.errors import MalformedMessage, RelayError
from relay_agent.core.urls import BadUrl, join, normal_host, parse_url
from relay_agent.protocol import messages, requests
from relay_agent.protocol.charsets import TextCheck, text_decoder
from relay_agent.protocol.jwe import open_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.protocol.media_types import parameter
from relay_agent.protocol.request_bodies import encode_body
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.target.cookies import Cookies
from relay_agent.telemetry.log_rendering import render
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.secret_patterns import mask_patterns, redact_text
from relay_agent.transport.challenges import parse_challenges
from relay_agent.transport.content_encoding import BadCoding, decode
from relay_agent.transport.path_patterns import parse_path, path_readings
from relay_agent.transport.response_parser import BadHead, Response
from relay_agent.transport.x509 import read_certificate
from tests.bench.foreign import SECRETS, certificate, filled

OVER = 2.6
DOUBLINGS = 2
LEAST_SECONDS = 0.002
TRIES = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of foreign input. `most` is the length that is measured last."""

    name: str
    make: Callable[[int], Any]
    run: Callable[[Any], object]
    most: int = 128 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """What a row costs: the seconds of each length, and how many times as much each doubling takes."""

    name: str
    lengths: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """One for each doubling."""
        return tuple(later / earlier for earlier, later in zip(self.seconds, self.seconds[1:], strict=False))

    @property
    def over(self) -> bool:
        """Whether doublings cost more than if the cost were linear, with a margin for noise: no single doubling decides."""
        return bool((self.seconds[-1] / self.seconds[0]) ** (1 / DOUBLINGS) > OVER)


def measure(rows: list[Row]) -> Iterator[Found]:
    """Measure each row, as the CPU time of this thread."""
    for row in rows:
        lengths = tuple(row.most >> doubling for doubling in range(DOUBLINGS, -1, -1))
        yield Found(row.name, lengths, tuple(_seconds(row.run, row.make(length)) for length in lengths))


def _seconds(run: Callable[[Any], object], value: Any) -> float:
    """Seconds of one run, the best of several; of a quick one, the mean of as many as take long enough to be timed."""
    best = _timed(run, value, 1)
    times = max(1, min(1000, int(LEAST_SECONDS / max(best, 1e-7))))
    return min(best if times == 1 else float("inf"), *(_timed(run, value, times) for _ in range(TRIES)))


def _timed(run: Callable[[Any], object], value: Any, times: int) -> float:
    started = time.thread_time()
    for _ in range(times):
        run(value)
    return (time.thread_time() - started) / times


# --- what is run ---


def _quiet(run: Callable[[Any], object], *errors: type[Exception]) -> Callable[[Any], object]:
    def quietly(value: Any) -> object:
        with contextlib.suppress(*errors):
            return run(value)
        return None

    return quietly


def _head(head: bytes) -> object:
    """Read a response's head as the agent does, from a socket that another thread writes to."""
    ours, theirs = socket.socketpair()
    writer = threading.Thread(target=_written, args=(theirs, head))
    writer.start()
    response = Response(ours, method="GET")
    try:
        response.begin()
        return response.fields
    except BadHead:
        return None
    finally:
        response.close()
        ours.close()
        writer.join()


def _written(sock: socket.socket, data: bytes) -> None:
    with sock, contextlib.suppress(OSError):
        sock.sendall(data)


def _content_type(value: str) -> object:
    return parameter(value, "charset"), parameter(value, "boundary")


def _cookies(values: list[str]) -> object:
    jar = Cookies()
    jar.store(values, "lims.lab.example", "/a/b")
    return jar.for_request("lims.lab.example", "/a/b", secure=False)


def _text(value: tuple[str, bytes]) -> bool:
    check = TextCheck(value[0])
    for start in range(0, len(value[1]), 64 * 1024):
        check.take(value[1][start : start + 64 * 1024])
    return check.is_text()


def _decoded(coding: str) -> Callable[[bytes], object]:
    def run(data: bytes) -> int:
        pieces = (data[start : start + 64 * 1024] for start in range(0, len(data), 64 * 1024))
        return sum(map(len, decode(pieces, [coding], 2**40, lambda: None)))

    return _quiet(run, BadCoding)


def _lanes(count: int) -> object:
    queue: FairQueue[int] = FairQueue(count, 16)
    for number in range(count):
        queue.put((f"host-{number}", number))
    for _ in range(count):
        lane, _ = queue.get()
        queue.done(lane)
    return queue


def _envelope(jwe: str) -> object:
    return open_command(jwe, Keyring([bytes(32)]), agent_id="agent", now=datetime.now(UTC))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


_BASE = parse_url("http://lims.lab.example/a/b")
_request = _quiet(lambda payload: requests.decode_request(payload), RelayError, ValueError)
_message = _quiet(messages.decode_message, MalformedMessage)
_payload = _quiet(requests.decode_payload, RelayError)
_url = _quiet(parse_url, BadUrl)
_host = _quiet(normal_host, BadUrl)
_location = _quiet(lambda location: join(_BASE, location), BadUrl)


def _body(value: tuple[object, str | None]) -> object:
    with contextlib.suppress(RelayError):
        pieces, content_type = encode_body(*value)
        return sum(map(len, pieces or ())), content_type
    return None


# --- the table ---


def _rows(name: str, run: Callable[[Any], object], units: list[str], most: int, head: str = "", tail: str = "") -> list[Row]:
    return [Row(f"{name}: {unit!a}", lambda n, unit=unit: head + filled(unit, n) + tail, run, most) for unit in units]  # type: ignore[misc]


REDACTION = [
    *_rows(
        "shapes of secrets",
        mask_patterns,
        [
            "a",
            "a-",
            "basic+",
            'cookie:\\"',
            "token= ",
            "token=",
            'token="token":',
            "cookie:'token'=",
            "eyJ",
            "http://",
            "\\",
            '"',
            "/a?",
            "-----BEGIN ",
            "Ab1" * 13 + "A-",
        ],
        64 * 1024,
    ),
    *_rows("redact_text", redact_text, ["a b ", "a"], 1024 * 1024),
    *_rows("known secrets", Redactor(SECRETS).known, ["correct horse ", "AAAA"], 1024 * 1024),
    Row("values", lambda n: ["a b"] * n, Redactor(SECRETS).value),
    Row("a log line of it", lambda n: {"event": "x", "text": "\N{GRINNING FACE}" * n}, render),
]
URLS = [
    *_rows("URL", _url, ["a", "%", "\N{LATIN SMALL LETTER E WITH ACUTE}a", "/..", "?", "@", ":"], 64 * 1024, "http://h/"),
    *_rows(
        "URL's path, for rules",
        path_readings,
        ["%25", "25", "/..", "//..", "\\", ";/", "%2e%2e%2f", "/;\\%253b%25253b", "/%3f\\%25;"],
        64 * 1024,
        "//%",
    ),
    *_rows("a path beside a pattern", parse_path("/*a*a*a*a*a*b").matches, ["a", "b", "/a"], 64 * 1024, "/", "b"),
    *_rows("URL's authority", _url, ["a", "a.", "%41", "@", ":1", "["], 64 * 1024, "http://"),
    *_rows(
        "host", _host, ["a", "a.", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{LATIN SMALL LETTER E WITH ACUTE}.", "\u00ad", "["], 64 * 1024
    ),
    *_rows("Location", _location, ["a", "../", "a/../", " ", "a:", "//", "?"], 64 * 1024),
]
HEADS = [
    Row("head: one long field", lambda n: b"HTTP/1.1 200 OK\r\nA: " + b"a" * n + b"\r\n\r\n", _head),
    Row("head: many fields", lambda n: b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (n // 128) + b"\r\n", _head),
    Row("head: a folded field", lambda n: b"HTTP/1.1 200 OK\r\nA: b\r\n" + b" a\r\n" * (n // 4) + b"\r\n", _head),
    Row("head: lines without a colon", lambda n: b"HTTP/1.1 200 OK\r\n" + b"a\r\n" * (n // 3) + b"\r\n", _head),
    Row("head: interim responses", lambda n: b"HTTP/1.1 100 Continue\r\n\r\n" * (n // 25) + b"HTTP/1.1 200 OK\r\n\r\n", _head),
    Row("head: lengths", lambda n: b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1," * (n // 2) + b"1\r\n\r\n", _head),
]
CHALLENGES = _rows(
    "challenge",
    lambda text: parse_challenges([text]),
    ["a", '"', '"\\', "\\", ",", "a=", 'a="', "a=b,", " ", "\t=", "a "],
    60 * 1024,
    "Digest ",
)
MEDIA_TYPES = [
    *_rows("media type", _content_type, ["a", ";", ";a=b", ';a="', '";', "\\", '"', ";a*0=b", " "], 8 * 1024 - 64, "text/plain; a="),
    *_rows("media type, quoted", _content_type, [";", "a;", '\\";'], 8 * 1024 - 64, 'text/plain; a="'),
    *_rows("charset", text_decoder, ["a", "-", "_.", "\N{LATIN SMALL LETTER E WITH ACUTE}"], 64 * 1024),
    *(
        Row(f"text in {charset}", lambda n, charset=charset: (charset, filled("\u3042a", n).encode(charset, "replace")), _text, 1024 * 1024)  # type: ignore[misc]
        for charset in ("utf-8", "utf-16", "cp932", "iso-2022-jp")
    ),
]
DATES = _rows("date", http_date, ["9", " ", ":", "a ", ",", "+1", "1-"], 128 * 1024)
COOKIES = [
    *(
        Row(f"cookie: {unit!r}", lambda n, unit=unit: [filled(unit, n)], _cookies, 32 * 1024)  # type: ignore[misc]
        for unit in ("a", "a=b; ", ";", "; ", '"', "=", "a=b; expires=Mon, ", "a=b; expires=1-", " ", ",")
    ),
    Row("cookies: many", lambda n: [f"a{number}=b" for number in range(n // 64)], _cookies, 32 * 1024),
]
COMMANDS = [
    *_rows("message", _message, ["[", "{}", '"commandId"', '"commandId": "', "\\", "9", '{"a":'], 128 * 1024),
    *_rows("payload", _payload, ["9", "0.9", "1e9", "\\u0061", "a"], 1024 * 1024, '{"a": "', '"}'),
    Row("payload: digits", lambda n: "[" + "9" * n + "]", _payload),
    Row("payload: a fraction", lambda n: "[0." + "9" * n + "]", _payload),
    Row("payload: many keys", lambda n: json.dumps({f"key-{number}": 1 for number in range(n)}), _payload, 16 * 1024),
    Row("command: header fields", lambda n: {"url": "http://h/", "headers": [{f"A{place}": "b"} for place in range(n // 4)]}, _request),
    Row("command: dropped fields", lambda n: {"url": "http://h/", "headers": {"Content-Length": ["1"] * (n // 4)}}, _request),
    Row("command: unknown fields", lambda n: {"url": "http://h/"} | {f"a{place}": 1 for place in range(n // 4)}, _request),
    Row("command: method", lambda n: {"url": "http://h/", "method": "A" * n}, _request),
    Row("body: a boundary", lambda n: ({"mode": "formdata", "formdata": []}, 'multipart/form-data; a="' + ";" * n), _body, 16 * 1024),
    Row("body: pairs", lambda n: ({"mode": "urlencoded", "urlencoded": [{"key": "a", "value": "b"}] * (n // 8)}, None), _body),
    Row("body: base64", lambda n: ({"mode": "base64", "base64": "QUFB" * (n // 4)}, None), _body, 1024 * 1024),
    *_rows("payload of values", _payload, ["[],", "{},", '"a",', "1,", '"",'], 1024 * 1024, "[", "0]"),
    *_rows("envelope", _quiet(_envelope, RelayError), ["a", ".", "a.", "="], 1024 * 1024),
    Row(
        "envelope: its header",
        lambda n: _base64url(b'{"alg": "dir", "enc": "A256GCM", "aud": [' + b'"a",' * (n // 4) + b'"a"]}') + "...." + "A",
        _quiet(_envelope, RelayError),
        16 * 1024,
    ),
]
BODIES = [
    Row("gzip: one member", lambda n: gzip.compress(bytes(n * 8)), _decoded("gzip"), 1024 * 1024),
    Row("gzip: many members", lambda n: gzip.compress(b"") * (n // 20), _decoded("gzip")),
    Row("gzip: nothing like it", lambda n: b"a" * n, _decoded("gzip"), 1024 * 1024),
    Row("deflate", lambda n: b"\x01" + bytes(4) * n, _decoded("deflate"), 1024 * 1024),
    Row("zstd: empty frames", lambda n: bytes.fromhex("28b52ffd0000010000") * (n // 9), _decoded("zstd")),
]
QUEUE = [Row("fair queue: lanes", lambda n: n, _lanes, 1024)]
CERTIFICATES = [
    Row("certificate: a long name", lambda n: certificate(b"a" * n), read_certificate, 64 * 1024),
    Row("certificate: a long object identifier", lambda n: certificate(b"a", b"\xff" * n + b"\x01"), read_certificate, 64 * 1024),
]

TABLE: list[Row] = [*REDACTION, *URLS, *HEADS, *CHALLENGES, *MEDIA_TYPES, *DATES, *COOKIES, *COMMANDS, *BODIES, *QUEUE, *CERTIFICATES]
