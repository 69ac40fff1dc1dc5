"""Which charsets are text, and that the text of an answer can be encoded to the target's bytes (PROTOCOL §4)."""

from __future__ import annotations

import base64
import codecs
import json
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.models import HttpResponse
from relay_agent.pipelines.encoding import Answer
from relay_agent.protocol import charsets
from relay_agent.protocol.charsets import TextCheck, codec_of, encode, text_decoder
from relay_agent.protocol.responses import response_body

NAMES = sorted(charsets.CODECS)
PYTHON_CODECS = sorted(charsets.LABELS)
ESCAPES = [b"\x1b$B", b"\x1b(B", b"\x1b(J", b"\x1b$)C", b"\x0e", b"\x0f", b"~{", b"~}", b"~~", b"~\n", b"\xff\xfe", b"\xfe\xff", b"\0\0"]


def is_text(data: bytes, charset: str | None, cuts: list[int] | None = None) -> bool:
    check = TextCheck(charset)
    places = sorted({min(cut, len(data)) for cut in cuts or []})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        check.take(data[start:end])
    return check.is_text()


class Content:
    """A body in pieces of a few bytes."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data, self.piece, self.size = data, piece, len(data)

    def chunks(self) -> Iterator[bytes]:
        return (self.data[start : start + self.piece] for start in range(0, len(self.data), self.piece))

    def close(self) -> None:
        """Nothing to close."""


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str]:
    """Bytes, and a charset in which they are likely to be text."""
    charset = draw(st.sampled_from(NAMES) | st.sampled_from([name for name in NAMES if codec_of(name) in charsets.REDUNDANT]))
    codec = codec_of(charset)
    assert codec is not None
    written = st.text(max_size=8).map(lambda text: text.encode(codec, "ignore"))
    return b"".join(draw(st.lists(st.one_of(written, st.binary(max_size=4), st.sampled_from(ESCAPES)), max_size=5))), charset


@given(body=bodies(), cuts=st.lists(st.integers(0, 40), max_size=4), piece=st.integers(1, 40))
def test_the_sender_gets_the_targets_bytes_in_every_charset(body: tuple[bytes, str], cuts: list[int], piece: int) -> None:
    data, charset = body
    text = is_text(data, charset, cuts)
    content_type = f'text/plain; x="; charset=no"; Charset="{charset}"'
    response = HttpResponse(200, (("Content-Type", content_type),), Content(data, piece), charset, text, "http://target.example/")
    answer = Answer("c-1", "SUCCESS", json.loads("".join(response_body(response))))
    assert answer.content() == data
    if answer.body["bodyEncoding"] == "base64":
        assert base64.b64decode(answer.body["body"], validate=True) == data


@given(body=bodies(), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_whether_bytes_are_text_does_not_depend_on_the_pieces(body: tuple[bytes, str], cuts: list[int]) -> None:
    assert is_text(*body, cuts) == is_text(*body)


@given(charset=st.sampled_from(NAMES), text=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30))
def test_text_encoded_in_a_charset_is_text_in_it(charset: str, text: str) -> None:
    codec = codec_of(charset)
    assert codec is not None
    data = text.encode(codec, "ignore")
    if data.decode(codec) and data.decode(codec).encode(codec) == data:
        assert is_text(data, charset)


@pytest.mark.parametrize("codec", sorted(set(PYTHON_CODECS) - charsets.REDUNDANT - {"utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"}))
def test_a_codec_that_is_not_in_redundant_has_one_byte_for_each_character(codec: str) -> None:
    data = bytes(range(128) if codec == "utf-8" else range(256))
    text = data.decode(codec, "surrogateescape" if codec in ("utf-8", "ascii") else "ignore")
    assert len(set(text)) == len(text)
    assert text.encode(codec, "surrogateescape") == bytes(byte for byte in data if not _undefined(byte, codec))


def _undefined(byte: int, codec: str) -> bool:
    return not bytes([byte]).decode(codec, "surrogateescape" if codec in ("utf-8", "ascii") else "ignore")


@pytest.mark.parametrize(
    ("charset", "data"),
    [
        ("utf-16", "\ufeffmark".encode("utf-16-be")),
        ("utf-16", "no mark".encode("utf-16-le")),
        ("utf-16", b"\xff\xfe"),
        ("utf-16", b"\xff\xfea"),
        ("utf-32", b"\xff\xfe\0\0"),
        ("cp932", b"\x87\x90"),
        ("Windows-31J", b"\xfa\x5c"),
        ("shift_jis", b"\x81"),
        ("iso-2022-jp", b"\x1b(Btwice the same"),
        ("iso-2022-jp", b'\x1b$B$"\x1b(B\x1b(J\x1b(B'),
        ("iso-2022-jp", b'\x1b$B$"'),
        ("iso-2022-jp", b"\x1b(B"),
        ("iso-2022-jp", b"\x1b(B" * 50_000),
        ("iso-2022-kr", b"\x1b$)C"),
        ("hz-gb-2312", b"~{~}"),
        ("hz-gb-2312", b"a~\nb"),
        ("big5", b"\xa2\xcc"),
        ("ascii", b"\x80"),
        ("utf-8", b"\xed\xa0\x80"),
        ("utf-8", b"\xc3"),
        (None, b"\xff"),
    ],
)
def test_bytes_that_encoding_would_not_give_again_are_not_text(charset: str | None, data: bytes) -> None:
    assert not is_text(data, charset)


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("utf-16", b"\xff\xfea\0", "a"),
        ("UTF-16LE", b"\xff\xfea\0", "\ufeffa"),
        ("utf-8", b"\xef\xbb\xbfa", "\ufeffa"),
        (None, b"\xc3\xa9", "\xe9"),
        ("iso-8859-1", b"\x80\x93", "\x80\x93"),
        ("latin1", b"\x80", "\x80"),
        ("windows-1252", b"\x80\x93", "\u20ac\u201c"),
        ("Windows-31J", b"\x87\x40", "\u2460"),
        ("x-sjis", b"\x87\x40", "\u2460"),
        ("ms932", b"\x87\x40", "\u2460"),
        ("CP932", b"\x87\x40", "\u2460"),
        ("Shift_JIS", b"\x93\xfa", "\u65e5"),
        ("shift-jis", b"\x93\xfa", "\u65e5"),
        ("iso-2022-jp", b"\x1b$BF|\x1b(B.", "\u65e5."),
        (" UTF_8 ", b"\xc3\xa9", "\xe9"),
        ("utf-16", b"", ""),
        ("iso-2022-kr", b"", ""),
    ],
)
def test_bytes_that_a_charset_decodes_are_text(charset: str | None, data: bytes, text: str) -> None:
    decoder = text_decoder(charset)
    assert decoder is not None
    assert (is_text(data, charset), decoder.decode(data, bool(data)), encode(text, charset)) == (True, text, data)


@pytest.mark.parametrize(
    "name",
    [
        "nonsense",
        "",
        "rot13",
        "base64",
        "hex",
        "idna",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        "undefined",
        "utf-7",
        "mbcs",
        "oem",
        "utf-8-sig",
        "a\x00b",
        "\ud800",
        "encodings.utf_8",
        "../../etc/passwd",
        "utf-8" + " " * 100,
        "x" * 300_000,
    ],
)
def test_an_unknown_charset_has_no_codec_and_no_text(name: str) -> None:
    assert (codec_of(name), text_decoder(name), is_text(b"a", name), is_text(b"", name)) == (None, None, False, False)


def test_python_has_every_codec_of_the_table_and_no_label_is_repeated() -> None:
    assert [codecs.lookup(codec)._is_text_encoding for codec in PYTHON_CODECS] == [True] * len(PYTHON_CODECS)
    assert sum(len(labels.split()) for labels in charsets.LABELS.values()) == len(NAMES)
    assert [name for name in NAMES if name != name.lower().replace("_", "-").strip()] == []
    assert set(PYTHON_CODECS) >= charsets.REDUNDANT


def test_an_unknown_charset_never_reaches_pythons_codec_registry() -> None:
    """The registry keeps every name that it is asked for."""
    asked = (
        "import codecs; from relay_agent.protocol.charsets import TextCheck, encode, text_decoder\n"
        "seen = []; codecs.register(seen.append)\n"
        "for name in ('x-odd', 'x' * 50, 'utf-7-x', 'shift_jis', 'Windows-31J'):\n"
        "    TextCheck(name).take(b'a'); text_decoder(name); encode('a', name)\n"
        "print(seen)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("codec", sorted(charsets.REDUNDANT))
def test_the_check_of_a_long_body_keeps_only_a_few_bytes(codec: str) -> None:
    check = TextCheck(charsets.LABELS[codec].split()[0])
    data = random.Random(1).choices("aあ日", k=50_000)
    for piece in _cut("".join(data).encode(codec, "ignore"), 4096):
        check.take(piece)
        assert check.pending_bytes <= charsets.MAX_PENDING_BYTES
    assert check.is_text()


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
