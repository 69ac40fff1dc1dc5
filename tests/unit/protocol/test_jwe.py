"""Envelopes of secure commands (PROTOCOL §5): RFC 7516, an independent library, and every reason for a refusal."""

from __future__ import annotations

import base64
import hashlib
import json
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.core.errors import SecureCommandError
from relay_agent.protocol.jwe import (
    MAX_VALID_SECONDS,
    Opened,
    generate_key,
    look_inside,
    open_answer,
    open_command,
    open_long_answer,
    seal_answer,
    seal_command,
)
from relay_agent.protocol.keyring import Keyring
from tests.envelopes import b64, by_hand, by_joserfc, joserfc_opens, unb64

KEY = bytes(range(32))
OTHER = bytes(range(32, 64))
RING = Keyring([KEY])
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
CANARY = b'{"url":"https://canary-plaintext.example/"}'


def opened(jwe: str, keyring: Keyring = RING, agent_id: str = "agent-1", now: datetime = NOW) -> Opened:
    return open_command(jwe, keyring, agent_id=agent_id, now=now)


def refused(jwe: Any, keyring: Keyring = RING, agent_id: str = "agent-1", now: datetime = NOW) -> SecureCommandError:
    with pytest.raises(SecureCommandError) as caught:
        opened(jwe, keyring, agent_id, now)
    return caught.value


def envelope(header: str | dict[str, Any], plaintext: bytes = CANARY, key: bytes = KEY, tag_bytes: int = 16) -> str:
    """An envelope with any header, correctly encrypted, so that only the header can be the reason for a refusal."""
    return by_hand(header, plaintext, key, tag_bytes=tag_bytes)


def header(**more: Any) -> dict[str, Any]:
    """A command's header; a value of `...` removes the member."""
    whole = {"alg": "dir", "enc": "A256GCM", "aud": "agent-1", "exp": SECONDS + 60, "jti": "one"} | more
    return {name: value for name, value in whole.items() if value is not ...}


def seal(plaintext: bytes, keyring: Keyring, *, aud: str = "agent-1", exp: int = SECONDS + 60, jti: str = "one") -> str:
    return seal_command(plaintext, keyring, aud=aud, exp=exp, jti=jti)


def answered(*pieces: bytes, keyring: Keyring = RING, cid: str = "c-1", jti: str | None = "one") -> str:
    return "".join(seal_answer(pieces, keyring, cid=cid, jti=jti))


# --- both directions, with an independent JOSE library ---


def test_an_independent_library_opens_what_we_seal() -> None:
    sealed = seal(CANARY, RING, aud="agent-1", exp=SECONDS + 60, jti="one")
    assert joserfc_opens(sealed, KEY) == (header(kid=Keyring.kid(KEY), typ="relay-command"), CANARY)


def test_we_open_what_an_independent_library_seals() -> None:
    sealed = by_joserfc(header(kid=Keyring.kid(KEY), jti="j", exp=SECONDS + 1), CANARY, KEY)
    assert opened(sealed) == Opened(CANARY, "j", SECONDS + 1)


@pytest.mark.parametrize("jti", ["one", None])
def test_an_independent_library_opens_what_we_stream(jti: str | None) -> None:
    protected, plaintext = joserfc_opens(answered(b"a", b"bcdef", b"", b"gh", jti=jti), KEY)
    assert plaintext == b"abcdefgh"
    named = {"alg": "dir", "enc": "A256GCM", "kid": Keyring.kid(KEY), "typ": "relay-answer", "cid": "c-1"}
    assert protected == named | {"cjti": jti or ""}


# --- round trips ---


@given(plaintext=st.binary(max_size=2000), jti=st.text(min_size=1, max_size=50).filter(str.isprintable))
def test_decryption_gives_what_was_encrypted(plaintext: bytes, jti: str) -> None:
    found = opened(seal(plaintext, RING, exp=SECONDS + 1, jti=jti))
    assert (found.plaintext, found.jti, found.exp) == (plaintext, jti, SECONDS + 1)


@given(pieces=st.lists(st.binary(max_size=20), max_size=20), cid=st.text(max_size=50), jti=st.none() | st.text(max_size=50))
def test_an_answer_decrypts_to_the_same_text_whatever_its_pieces(pieces: list[bytes], cid: str, jti: str | None) -> None:
    assert open_answer(answered(*pieces, cid=cid, jti=jti), RING, cid=cid, jti=jti) == b"".join(pieces)


def test_a_stream_takes_one_piece_at_a_time() -> None:
    taken = 0

    def pieces() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 3000

    stream = seal_answer(pieces(), RING, cid="c-1")
    assert taken == 0
    assert [next(stream).count("."), taken] == [3, 0]
    assert [len(next(stream)), taken] == [4000, 1]


def test_two_envelopes_of_the_same_text_share_neither_iv_nor_ciphertext() -> None:
    first, second = seal(CANARY, RING).split("."), seal(CANARY, RING).split(".")
    assert first[2] != second[2] and first[3] != second[3]


def test_kid_and_typ_may_be_missing() -> None:
    assert opened(envelope(header())) == Opened(CANARY, "one", SECONDS + 60)


def test_unknown_header_parameters_are_ignored() -> None:
    assert opened(envelope(header(cty="json", iat=1, cid="c-1", nbf=SECONDS + 9))).plaintext == CANARY


# --- keys ---


def test_a_kid_is_the_first_eight_hex_digits_of_the_keys_sha256() -> None:
    assert Keyring.kid(KEY) == hashlib.sha256(KEY).hexdigest()[:8]
    assert json.loads(unb64(seal(b"", RING).split(".")[0]))["kid"] == Keyring.kid(KEY)


@pytest.mark.parametrize("text", [KEY.hex(), KEY.hex().upper(), b64(KEY), base64.b64encode(KEY).decode()])
def test_each_form_of_a_key_is_the_same_key(text: str) -> None:
    assert Keyring.from_text(text).current == KEY


def test_the_first_key_seals_and_every_key_opens() -> None:
    both = Keyring.from_text(f"{b64(OTHER)}, {b64(KEY)}")
    assert opened(seal(CANARY, RING), both).plaintext == CANARY
    assert opened(seal(CANARY, both), Keyring([OTHER])).plaintext == CANARY
    assert both.kids == (Keyring.kid(OTHER), Keyring.kid(KEY))


def test_without_a_kid_every_key_is_tried() -> None:
    assert opened(envelope(header()), Keyring([OTHER, KEY])).plaintext == CANARY


def test_with_a_kid_only_that_key_is_tried() -> None:
    assert refused(envelope(header(kid=Keyring.kid(OTHER))), Keyring([OTHER, KEY])).code == "EDECRYPT"


def test_an_empty_text_is_an_empty_keyring() -> None:
    assert not Keyring.from_text("") and not Keyring.from_text(" \n") and RING


def test_a_generated_key_is_32_new_bytes() -> None:
    first, second = generate_key(), generate_key()
    assert first != second and Keyring.from_text(first) and "=" not in first


def test_a_key_of_another_length_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="32 bytes") as caught:
        Keyring([b"short-secret"])
    assert "short-secret" not in str(caught.value)


def test_no_key_is_enokey_in_both_directions() -> None:
    empty = Keyring([])
    assert refused(seal(b"", RING), empty).code == "ENOKEY"
    for attempt in (lambda: seal(b"", empty), lambda: seal_answer([b""], empty, cid="c-1"), lambda: empty.current):
        with pytest.raises(SecureCommandError) as caught:
            attempt()
        assert caught.value.code == "ENOKEY" and "SECURE_COMMAND_KEY" in str(caught.value)


# --- refusals, each with its own text ---


def test_an_unknown_key_is_named_beside_those_that_are_set() -> None:
    error = refused(seal(CANARY, Keyring([OTHER])))
    assert error.code == "EDECRYPT"
    assert str(error) == f"no key with kid {Keyring.kid(OTHER)} is set; set here: {Keyring.kid(KEY)}"


def test_a_key_in_the_place_of_the_kid_is_not_repeated() -> None:
    for text in (OTHER.hex(), b64(OTHER)):
        assert text not in str(refused(envelope(header(kid=text))))


def test_a_wrong_key_with_the_right_kid_is_refused() -> None:
    error = refused(envelope(header(kid=Keyring.kid(KEY)), key=OTHER))
    assert error.code == "EDECRYPT" and "wrong key, or the message was altered" in str(error)


HEADERS: list[tuple[Any, str]] = [
    (header(alg="A256KW"), "alg must be dir"),
    (header(alg="none"), "alg must be dir"),
    (header(alg=["dir"]), "alg must be dir"),
    ({"enc": "A256GCM"}, "alg must be dir"),
    (header(enc="A128GCM"), "enc must be A256GCM"),
    (header(enc="A256CBC-HS512"), "enc must be A256GCM"),
    ({"alg": "dir"}, "enc must be A256GCM"),
    (header(crit=["exp"]), "crit is not supported"),
    (header(crit=[]), "crit is not supported"),
    (header(zip="DEF"), "zip is not supported"),
    (header(zip=None), "zip is not supported"),
    (header(kid=7), "kid must be a string"),
    (header(kid=None), "kid must be a string"),
    (header(jti=...), "jti is required"),
    (header(jti=7), "jti is required"),
    (header(jti=None), "jti is required"),
    (header(jti=""), "jti is required"),
    (header(jti=["one"]), "jti is required"),
    (header(jti="\x00"), "jti must be printable"),
    (header(jti="\ud800"), "jti must be printable"),
    (header(jti="x" * 1025), "at most 1024 characters"),
    (header(typ="relay-answer"), "typ is not relay-command"),
    (header(typ="Relay-Command"), "typ is not relay-command"),
    (header(typ="JWE"), "typ is not relay-command"),
    (header(typ=None), "typ is not relay-command"),
    (header(typ=["relay-command"]), "typ is not relay-command"),
    ("[]", "one JSON object"),
    ('"dir"', "one JSON object"),
    ("", "one JSON object"),
    ("{", "one JSON object"),
    ("\ufeff{}", "one JSON object"),
    ('{"alg":"dir","enc":"A256GCM"} x', "one JSON object"),
    ('{"alg":"none","alg":"dir","enc":"A256GCM"}', "without repeated names"),
    ('{"alg":"dir","enc":"A256GCM","x":{"a":1,"a":2}}', "without repeated names"),
    ('{"alg":"dir","enc":"A256GCM","exp":NaN}', "one JSON object"),
    ('{"alg":"dir","enc":"A256GCM","x":' + "[" * 9000, "one JSON object"),
    ('{"alg":"dir","enc":"A256GCM","exp":' + "9" * 5000 + "}", "one JSON object"),
    ("\udc80", "one JSON object"),
    (header(x="y" * 20_000), "longer than"),
    (header(aud="agent-2"), "another agent"),
    (header(aud="AGENT-1"), "another agent"),
    (header(aud=""), "another agent"),
    (header(aud=...), "aud is required"),
    (header(aud=None), "aud is required"),
    (header(aud=[]), "aud is required"),
    (header(aud=["agent-1"]), "aud is required"),
    (header(aud=["agent-1", "agent-2"]), "aud is required"),
    (header(aud={"agent-1": 1}), "aud is required"),
    (header(exp=SECONDS), "exp has passed"),
    (header(exp=SECONDS - 0.5), "exp has passed"),
    (header(exp=0), "exp has passed"),
    (header(exp=-1), "exp has passed"),
    (header(exp=...), "exp is required"),
    (header(exp=str(SECONDS + 60)), "exp is required"),
    (header(exp=True), "exp is required"),
    (header(exp=None), "exp is required"),
    (header(exp=[SECONDS + 60]), "exp is required"),
    (header(exp=(SECONDS + 60) * 1000), "not in milliseconds"),
    (header(exp=SECONDS + MAX_VALID_SECONDS + 1), "more than 7 days ahead"),
    (header(exp=10**300), "more than 7 days ahead"),
    (header(exp=1.7e308), "more than 7 days ahead"),
    ('{"alg":"dir","enc":"A256GCM","aud":"agent-1","jti":"one","exp":1e999}', "exp is required"),
]


@pytest.mark.parametrize(("given", "words"), HEADERS)
def test_a_header_that_breaks_a_rule_is_refused_and_the_rule_is_named(given: Any, words: str) -> None:
    error = refused(envelope(given))
    assert error.code == "EDECRYPT" and words in str(error)


@pytest.mark.parametrize(
    "given",
    [
        {"exp": SECONDS + 1},
        {"exp": SECONDS + 0.5},
        {"exp": SECONDS + MAX_VALID_SECONDS},
        {"typ": "relay-command"},
        {"jti": "\u00fc " * 500},
    ],
)
def test_a_header_that_keeps_the_rules_is_accepted(given: dict[str, Any]) -> None:
    assert opened(envelope(header(**given))).plaintext == CANARY


def test_a_fractional_exp_is_rounded_up() -> None:
    assert opened(envelope(header(exp=SECONDS + 1.1))).exp == SECONDS + 2


# --- answers ---


def refused_answer(jwe: Any, cid: str = "c-1", jti: str | None = "one") -> str:
    with pytest.raises(SecureCommandError) as caught:
        open_answer(jwe, RING, cid=cid, jti=jti)
    assert caught.value.code == "EDECRYPT"
    return str(caught.value)


ANSWERS: list[tuple[str, str]] = [
    (seal(CANARY, RING), "typ is not relay-answer"),
    (envelope(header()), "typ is not relay-answer"),
    (envelope(header(typ="relay-command", cid="c-1", cjti="one")), "typ is not relay-answer"),
    (envelope(header(typ=None, cid="c-1", cjti="one")), "typ is not relay-answer"),
    (envelope(header(typ="relay-answer", cjti="one")), "cid is required"),
    (envelope(header(typ="relay-answer", cid=None, cjti="one")), "cid is required"),
    (envelope(header(typ="relay-answer", cid=["c-1"], cjti="one")), "cid is required"),
    (answered(CANARY, cid="c-2"), "another command's answer"),
    (answered(CANARY, cid="C-1"), "another command's answer"),
    (answered(CANARY, jti="two"), "cjti does not match"),
    (answered(CANARY, jti=None), "cjti does not match"),
    (envelope(header(typ="relay-answer", cid="c-1", cjti=["one"])), "cjti does not match"),
    (envelope(header(typ="relay-answer", cid="c-1", cjti=None)), "cjti does not match"),
    (envelope(header(typ="relay-answer", cid="c-1", cjti="")), "cjti does not match"),
    (answered(CANARY, keyring=Keyring([OTHER])), "no key with kid"),
    (answered(CANARY)[:-1], "base64url"),
]


@pytest.mark.parametrize(("jwe", "words"), ANSWERS, ids=range(len(ANSWERS)))
def test_an_envelope_that_is_not_this_commands_answer_is_refused_with_the_reason(jwe: str, words: str) -> None:
    assert words in refused_answer(jwe)


# --- a long answer, which is never in memory as a whole ---


def opened_long(jwe: str, keyring: Keyring = RING, size: int = 7, jti: str | None = "one") -> bytes:
    def pieces() -> Iterator[str]:
        return (jwe[start : start + size] for start in range(0, len(jwe), size))

    return b"".join(open_long_answer(pieces, keyring, cid="c-1", jti=jti))


def outcome(opening: Callable[[], bytes]) -> bytes | str:
    try:
        return opening()
    except SecureCommandError as error:
        return error.code


@given(st.binary(max_size=200), st.integers(1, 60))
def test_a_long_answer_decrypts_to_the_same_text_whatever_its_pieces(plaintext: bytes, size: int) -> None:
    assert opened_long(answered(plaintext), size=size) == plaintext


@given(data=st.data())
def test_a_long_answer_is_refused_wherever_a_short_one_is(data: st.DataObject) -> None:
    sealed = answered(CANARY)
    start = data.draw(st.integers(0, len(sealed)))
    end = data.draw(st.integers(start, len(sealed)))
    changed = sealed[:start] + data.draw(st.text("AZaz09-_=.\n\u00e9", max_size=5)) + sealed[end:]
    short = outcome(lambda: open_answer(changed, RING, cid="c-1", jti="one"))
    assert outcome(lambda: opened_long(changed, size=data.draw(st.integers(1, 50)))) == short


@pytest.mark.parametrize("size", [1, 1000])
def test_a_long_answer_is_refused_for_the_same_reasons(size: int) -> None:
    for jwe, words in ANSWERS:
        with pytest.raises(SecureCommandError, match=words):
            opened_long(jwe, size=size)
    for change, words in [*PARTS[:2], *PARTS[3:]]:  # Too many dots may be noticed after the header.
        with pytest.raises(SecureCommandError, match=words):
            opened_long(".".join(change(answered(CANARY).split("."))), size=size)
    with pytest.raises(SecureCommandError, match="longer than"):
        opened_long(f"{'A' * 50_000}....", size=size)
    assert outcome(lambda: opened_long(answered(CANARY), Keyring([]))) == "ENOKEY"
    assert opened_long(answered(CANARY, keyring=Keyring([OTHER])), Keyring([KEY, OTHER])) == CANARY


def test_nothing_of_a_long_answer_is_returned_before_all_of_it_is_verified() -> None:
    sealed = answered(CANARY * 1000)
    with pytest.raises(SecureCommandError, match="altered"):
        open_long_answer(lambda: iter([sealed[:-30], *sealed[-30:-25].swapcase(), sealed[-25:]]), RING, cid="c-1", jti="one")


def test_the_answer_to_a_secure_command_is_not_accepted_for_a_plain_one() -> None:
    """The platform assigns the ids, so that an id alone does not say which of two commands was answered."""
    assert "cjti does not match" in refused_answer(answered(CANARY), jti=None)


def test_a_person_with_the_key_can_decrypt_commands_and_answers() -> None:
    assert look_inside(seal(CANARY, RING, aud="agent-2", exp=1), RING) == ("relay-command", CANARY)
    assert look_inside(answered(CANARY, cid="any"), RING) == ("relay-answer", CANARY)
    assert look_inside(envelope(header(typ="JWE")), RING) == ("an unknown typ", CANARY)


PARTS: list[tuple[Callable[[list[str]], list[str]], str]] = [
    (lambda p: p[:4], "five base64url parts"),
    (lambda p: [*p, ""], "five base64url parts"),
    (lambda p: ["."] * 50_000, "five base64url parts"),
    (lambda p: [p[0], b64(KEY), *p[2:]], "encrypted key must be empty"),
    (lambda p: [p[0] + "=", *p[1:]], "protected header is not base64url"),
    (lambda p: ["\u00e9" + p[0], *p[1:]], "protected header is not base64url"),
    (lambda p: [*p[:2], p[2] + "AAAA", *p[3:]], "IV must be 12 bytes"),
    (lambda p: [*p[:2], "", *p[3:]], "IV must be 12 bytes"),
    (lambda p: [*p[:2], p[2][:-1] + "+", *p[3:]], "IV is not base64url"),
    (lambda p: [*p[:3], p[3] + "\n", p[4]], "ciphertext is not base64url"),
    (lambda p: [*p[:3], " " + p[3], p[4]], "ciphertext is not base64url"),
    (lambda p: [*p[:3], "A", p[4]], "ciphertext is not base64url"),
    (lambda p: [*p[:3], p[3] + "==", p[4]], "ciphertext is not base64url"),
    (lambda p: [*p[:4], p[4] + "=="], "tag is not base64url"),
    (lambda p: [*p[:4], b64(unb64(p[4])[:12])], "tag must be 16 bytes"),
    (lambda p: [*p[:4], ""], "tag must be 16 bytes"),
]


@pytest.mark.parametrize(("change", "words"), PARTS)
def test_a_malformed_part_is_refused_and_named(change: Callable[[list[str]], list[str]], words: str) -> None:
    error = refused(".".join(change(seal(CANARY, RING).split("."))))
    assert error.code == "EDECRYPT" and words in str(error)


def test_a_shorter_tag_that_would_verify_is_refused() -> None:
    assert "tag must be 16 bytes" in str(refused(envelope(header(), tag_bytes=8)))


@pytest.mark.parametrize("value", [None, 5, b"a.b.c.d.e", ["x"], {"jwe": "x"}, "", "hello"])
def test_a_value_that_is_not_a_compact_jwe_is_refused(value: object) -> None:
    assert refused(value).code == "EDECRYPT"


@given(data=st.data())
def test_changing_any_character_of_any_part_is_refused(data: st.DataObject) -> None:
    sealed = seal(CANARY, RING)
    place = data.draw(st.integers(0, len(sealed) - 1))
    character = data.draw(st.characters(codec="ascii").filter(lambda c: c != sealed[place]))
    assert refused(sealed[:place] + character + sealed[place + 1 :]).code == "EDECRYPT"


@given(text=st.text(max_size=200) | st.lists(st.text("AZaz09-_=", max_size=30), min_size=5, max_size=5).map(".".join))
def test_any_text_is_refused_with_the_same_exception(text: str) -> None:
    assert refused(text).code == "EDECRYPT"


def test_parts_of_two_envelopes_cannot_be_mixed() -> None:
    first, second = seal(b"one", RING, jti="1").split("."), seal(b"two", RING, jti="2").split(".")
    for place in (0, 2, 3, 4):
        assert refused(".".join([*first[:place], second[place], *first[place + 1 :]])).code == "EDECRYPT"


def test_aud_and_exp_are_checked_only_after_the_tag() -> None:
    parts = envelope(header(aud="agent-2", exp=0)).split(".")
    assert "altered" in str(refused(".".join([*parts[:4], b64(bytes(16))])))


# --- errors and reprs show nothing secret ---


def everything_shown(error: BaseException) -> str:
    """Everything that an exception can show, including its frames' local variables and its context."""
    texts: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        texts += [str(seen), repr(seen), repr(vars(seen)), repr(seen.args)]
        texts += traceback.TracebackException.from_exception(seen, capture_locals=True).format()
        seen = seen.__cause__ or seen.__context__
    return "".join(texts)


@pytest.mark.parametrize("side", ["command", "answer"])
@pytest.mark.parametrize(
    "sealed",
    [
        envelope(header(aud="agent-2")),
        envelope(header(exp=1)),
        envelope(header(exp="soon")),
        envelope(header(typ="relay-answer")),
        envelope(header(jti=...)),
        answered(CANARY, cid="c-2"),
        answered(CANARY, jti="two"),
        envelope(header(zip="DEF")),
        envelope(header(), key=OTHER),
        envelope(header(kid=Keyring.kid(OTHER)), key=OTHER),
        envelope("{"),
        seal(CANARY, RING) + "=",
        "x",
    ],
    ids=range(13),
)
def test_no_error_shows_a_key_or_the_plaintext_anywhere(sealed: str, side: str) -> None:
    keyring = Keyring([KEY])
    try:
        if side == "command":
            open_command(sealed, keyring, agent_id="agent-1", now=NOW)
        else:
            open_answer(sealed, keyring, cid="c-1", jti="one")
    except SecureCommandError as error:
        assert error.__cause__ is None and error.__context__ is None
        frames = error.__traceback__
        shown = everything_shown(error.with_traceback(frames.tb_next if frames else None))
    else:
        pytest.fail("was opened")
    for secret in (repr(KEY)[2:-1], KEY.hex(), b64(KEY), repr(KEY[:12])[2:-1], "canary-plaintext"):
        assert secret not in shown


def test_reprs_show_neither_keys_nor_plaintext() -> None:
    shown = repr(RING) + str(RING) + repr(opened(seal(CANARY, RING)))
    assert Keyring.kid(KEY) in shown
    for secret in (repr(KEY)[2:-1], KEY.hex(), b64(KEY), "canary-plaintext"):
        assert secret not in shown
