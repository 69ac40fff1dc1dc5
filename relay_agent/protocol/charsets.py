"""Which charsets the agent decodes, and whether bytes are text in one (PROTOCOL §4).

A charset's name from a peer must not reach Python's codec registry, which keeps every name that it is asked for, known or
not, until the process ends.
"""

from __future__ import annotations

import codecs

LABELS = {
    "utf-8": "utf-8 utf8 csutf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
    "ascii": "us-ascii ascii us iso-ir-6 ansi-x3.4-1968 ansi-x3.4-1986 iso-646.irv:1991 iso646-us ibm367 cp367 csascii",
    "latin-1": "iso-8859-1 iso8859-1 iso88591 iso-8859-1:1987 iso-ir-100 latin1 latin-1 l1 ibm819 cp819 csisolatin1",
    "utf-16": "utf-16 utf16 csutf16",
    "utf-16-le": "utf-16le utf-16-le utf16le csutf16le",
    "utf-16-be": "utf-16be utf-16-be utf16be csutf16be",
    "utf-32": "utf-32 utf32 csutf32",
    "utf-32-le": "utf-32le utf-32-le utf32le csutf32le",
    "utf-32-be": "utf-32be utf-32-be utf32be csutf32be",
    "iso8859-2": "iso-8859-2 iso8859-2 iso88592 iso-8859-2:1987 iso-ir-101 latin2 l2 csisolatin2",
    "iso8859-3": "iso-8859-3 iso8859-3 iso88593 iso-8859-3:1988 iso-ir-109 latin3 l3 csisolatin3",
    "iso8859-4": "iso-8859-4 iso8859-4 iso88594 iso-8859-4:1988 iso-ir-110 latin4 l4 csisolatin4",
    "iso8859-5": "iso-8859-5 iso8859-5 iso88595 iso-8859-5:1988 iso-ir-144 cyrillic csisolatincyrillic",
    "iso8859-6": "iso-8859-6 iso8859-6 iso88596 iso-8859-6:1987 iso-ir-127 ecma-114 asmo-708 arabic csisolatinarabic"
    " iso-8859-6-e csiso88596e iso-8859-6-i csiso88596i",
    "iso8859-7": "iso-8859-7 iso8859-7 iso88597 iso-8859-7:1987 iso-ir-126 elot-928 ecma-118 greek greek8 csisolatingreek sun-eu-greek",
    "iso8859-8": "iso-8859-8 iso8859-8 iso88598 iso-8859-8:1988 iso-ir-138 hebrew csisolatinhebrew iso-8859-8-e csiso88598e visual"
    " iso-8859-8-i csiso88598i logical",
    "iso8859-9": "iso-8859-9 iso8859-9 iso88599 iso-8859-9:1989 iso-ir-148 latin5 l5 csisolatin5",
    "iso8859-10": "iso-8859-10 iso8859-10 iso885910 iso-8859-10:1992 iso-ir-157 latin6 l6 csisolatin6",
    "iso8859-11": "iso-8859-11 iso8859-11 iso885911",
    "iso8859-13": "iso-8859-13 iso8859-13 iso885913 csiso885913",
    "iso8859-14": "iso-8859-14 iso8859-14 iso885914 iso-8859-14:1998 iso-ir-199 latin8 iso-celtic l8 csiso885914",
    "iso8859-15": "iso-8859-15 iso8859-15 iso885915 latin-9 latin9 l9 csisolatin9 csiso885915",
    "iso8859-16": "iso-8859-16 iso8859-16 iso885916 iso-8859-16:2001 iso-ir-226 latin10 l10 csiso885916",
    "cp1250": "windows-1250 cp1250 x-cp1250 cswindows1250",
    "cp1251": "windows-1251 cp1251 x-cp1251 cswindows1251",
    "cp1252": "windows-1252 cp1252 x-cp1252 cswindows1252",
    "cp1253": "windows-1253 cp1253 x-cp1253 cswindows1253",
    "cp1254": "windows-1254 cp1254 x-cp1254 cswindows1254",
    "cp1255": "windows-1255 cp1255 x-cp1255 cswindows1255",
    "cp1256": "windows-1256 cp1256 x-cp1256 cswindows1256",
    "cp1257": "windows-1257 cp1257 x-cp1257 cswindows1257",
    "cp1258": "windows-1258 cp1258 x-cp1258 cswindows1258",
    "cp874": "windows-874 cp874 dos-874 cswindows874",
    "tis-620": "tis-620 tis620 cstis620",
    "koi8-r": "koi8-r koi8 koi cskoi8r",
    "koi8-u": "koi8-u cskoi8u",
    "kz1048": "kz-1048 kz1048 strk1048-2002 rk1048 cskz1048",
    "ptcp154": "ptcp154 pt154 cp154 cyrillic-asian csptcp154",
    "mac-roman": "macintosh mac x-mac-roman csmacintosh",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "hp-roman8": "hp-roman8 roman8 r8 cshproman8",
    "cp437": "ibm437 cp437 437 cspc8codepage437",
    "cp775": "ibm775 cp775 cspc775baltic",
    "cp850": "ibm850 cp850 850 cspc850multilingual",
    "cp852": "ibm852 cp852 852 cspcp852",
    "cp855": "ibm855 cp855 855 csibm855",
    "cp857": "ibm857 cp857 857 csibm857",
    "cp858": "ibm00858 ccsid00858 cp00858 cp858 pc-multilingual-850+euro csibm00858",
    "cp860": "ibm860 cp860 860 csibm860",
    "cp861": "ibm861 cp861 861 cp-is csibm861",
    "cp862": "ibm862 cp862 862 cspc862latinhebrew",
    "cp863": "ibm863 cp863 863 csibm863",
    "cp864": "ibm864 cp864 csibm864",
    "cp865": "ibm865 cp865 865 csibm865",
    "cp866": "ibm866 cp866 866 csibm866",
    "cp869": "ibm869 cp869 869 cp-gr csibm869",
    "cp037": "ibm037 cp037 ebcdic-cp-us ebcdic-cp-ca ebcdic-cp-wt ebcdic-cp-nl csibm037",
    "cp273": "ibm273 cp273 csibm273",
    "cp424": "ibm424 cp424 ebcdic-cp-he csibm424",
    "cp500": "ibm500 cp500 ebcdic-cp-be ebcdic-cp-ch csibm500",
    "cp1026": "ibm1026 cp1026 csibm1026",
    "cp1140": "ibm01140 ccsid01140 cp01140 cp1140 ebcdic-us-37+euro csibm01140",
    "shift-jis": "shift-jis shiftjis sjis ms-kanji csshiftjis",
    # Names of Windows' variant, which is CP932. Python takes x-sjis for its shift-jis, and knows windows-31j only from 3.13 on.
    "cp932": "windows-31j cswindows31j x-sjis cp932 ms932",
    "euc-jp": "euc-jp eucjp x-euc-jp extended-unix-code-packed-format-for-japanese cseucpkdfmtjapanese",
    "iso2022-jp": "iso-2022-jp iso2022-jp csiso2022jp",
    "iso2022-jp-1": "iso-2022-jp-1",
    "iso2022-jp-2": "iso-2022-jp-2 csiso2022jp2",
    "euc-kr": "euc-kr euckr cseuckr ks-c-5601-1987 ks-c-5601-1989 ks-c-5601 ksc-5601 ksc5601 iso-ir-149 korean csksc56011987",
    "cp949": "windows-949 cp949 ms949 uhc",
    "iso2022-kr": "iso-2022-kr iso2022-kr csiso2022kr",
    "gb2312": "gb2312 csgb2312 euc-cn gb-2312-80 iso-ir-58 chinese csiso58gb231280",
    "gbk": "gbk cp936 ms936 windows-936 x-gbk csgbk",
    "gb18030": "gb18030 csgb18030",
    "hz": "hz-gb-2312 hz",
    "big5": "big5 big5-tw cn-big5 x-x-big5 csbig5",
    "big5hkscs": "big5-hkscs big5hkscs csbig5hkscs",
    "cp950": "windows-950 cp950 ms950",
}
"""Python's codecs, each with the charset's names and aliases at IANA, in lower case and with hyphens. Labels of WHATWG's list are
included only if they mean the same charset at IANA."""
CODECS = {label: codec for codec, labels in LABELS.items() for label in labels.split()}
"""Python's codec for each name."""
_MAX_NAME = 64

REDUNDANT = frozenset(
    {
        *("utf-16", "utf-32", "shift-jis", "cp932", "euc-jp", "iso2022-jp", "iso2022-jp-1", "iso2022-jp-2", "euc-kr", "cp949"),
        *("iso2022-kr", "gb2312", "gbk", "gb18030", "hz", "big5", "big5hkscs", "cp950"),
    }
)
"""The codecs in which different bytes may decode to the same text, so that encoding the text need not give the original bytes."""
MAX_PENDING_BYTES = 64
"""Bytes that decoder and encoder together may hold back: part of a character, a letter before its accent, an escape sequence."""


def codec_of(charset: str | None) -> str | None:
    """Return Python's codec for a charset's name, UTF-8 for None; returns None if the name is unknown."""
    if charset is None:
        return "utf-8"
    return CODECS.get(charset.strip().lower().replace("_", "-")) if len(charset) <= _MAX_NAME else None


def text_decoder(charset: str | None) -> codecs.IncrementalDecoder | None:
    """Return a strict decoder for a charset's name, UTF-8 for None; returns None if the name is unknown."""
    codec = codec_of(charset)
    return None if codec is None else codecs.getincrementaldecoder(codec)("strict")


def encode(text: str, charset: str | None) -> bytes:
    """Encode text in a charset, in UTF-8 if its name is unknown; returns no bytes for no text.

    Raises:
        UnicodeEncodeError: the charset does not have one of the characters.
    """
    # Python would encode no text in UTF-16 as a byte order mark.
    return text.encode(codec_of(charset) or "utf-8") if text else b""


class TextCheck:
    """Checks piece by piece whether bytes are text in a charset, and whether encoding that text gives the same bytes again."""

    def __init__(self, charset: str | None) -> None:
        codec = codec_of(charset)
        self._decoder = text_decoder(charset)
        self._encoder = codecs.getincrementalencoder(codec)("strict") if codec in REDUNDANT else None
        self._pending = b""
        self._any_bytes = self._any_text = False

    @property
    def pending_bytes(self) -> int:
        """How many bytes were decoded, but not yet compared."""
        return len(self._pending)

    def take(self, data: bytes) -> None:
        """Check the next piece."""
        self._any_bytes = self._any_bytes or bool(data)
        self._check(data, final=False)

    def is_text(self) -> bool:
        """Return, after the last piece, whether all of it was text."""
        if self._any_bytes:
            self._check(b"", final=True)
        # A byte order mark or an escape sequence alone decodes to no text, which would be encoded as no bytes.
        return self._decoder is not None and not self._pending and self._any_text == self._any_bytes

    def _check(self, data: bytes, *, final: bool) -> None:
        if self._decoder is None:
            return
        try:
            text = self._decoder.decode(data, final)
            self._any_text = self._any_text or bool(text)
            # Only if there is text: UTF-16's encoder would begin with a byte order mark.
            encoded = self._encoder.encode(text, final) if self._encoder and (text or final) else b""
            if self._encoder is not None and not self._same(data, encoded):
                self._decoder = None
        except UnicodeError:
            self._decoder = None

    def _same(self, data: bytes, encoded: bytes) -> bool:
        original = self._pending + data
        self._pending = original[len(encoded) :]
        return original.startswith(encoded) and len(self._pending) <= MAX_PENDING_BYTES
