"""The grammar of challenges (RFC 9110 §11.6.1)."""

from __future__ import annotations

import time

import pytest

from relay_agent.transport.challenges import MAX_CHALLENGES, Challenge, listed, parse_challenges


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["NTLM"], [Challenge("ntlm")]),
        (["Negotiate", "NTLM"], [Challenge("negotiate"), Challenge("ntlm")]),
        (["Negotiate, NTLM"], [Challenge("negotiate"), Challenge("ntlm")]),
        (["NTLM TlRM"], [Challenge("ntlm", "TlRM")]),
        (["NTLM TlR="], [Challenge("ntlm", "TlR=")]),
        (["NTLM TlRMTQ=="], [Challenge("ntlm", "TlRMTQ==")]),
        (["Negotiate ab/c+d==, Basic realm=x"], [Challenge("negotiate", "ab/c+d=="), Challenge("basic", "", {"realm": "x"})]),
        (['Digest realm="a, b", Nonce=n=='], [Challenge("digest", "", {"realm": "a, b", "nonce": "n=="})]),
        (['Digest realm = "a\\"b\\\\c" ,,qop="auth"'], [Challenge("digest", "", {"realm": 'a"b\\c', "qop": "auth"})]),
        (['Digest realm="", nonce="n"'], [Challenge("digest", "", {"realm": "", "nonce": "n"})]),
        (['Digest realm="a", realm="b"'], [Challenge("digest", "", {"realm": "a"})]),
        (
            ['Digest realm="a",nonce="1", Digest realm="b",nonce="2"'],
            [Challenge("digest", "", {"realm": "a", "nonce": "1"}), Challenge("digest", "", {"realm": "b", "nonce": "2"})],
        ),
        (['realm="a", Basic realm="b"'], [Challenge("basic", "", {"realm": "b"})]),
        (["", ",", " , ", '"', "=", '="x"'], []),
        (['Digest realm="a\x01b"'], []),
    ],
)
def test_challenges_are_read_as_servers_write_them(values: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(values) == expected


def test_a_list_in_a_parameter_is_read_without_regard_to_case_and_spaces() -> None:
    assert listed({"qop": " AUTH ,auth-int,, "}, "qop") == {"auth", "auth-int"}
    assert listed({}, "qop") == set()


def test_what_is_beyond_the_bound_is_not_read() -> None:
    assert parse_challenges(["x" * (MAX_CHALLENGES + 1), "NTLM"]) == []


@pytest.mark.parametrize("piece", ['"', '"\\', "\\", '\\"', ",", "a=", "a ", 'a="', "a=b,", '"",', " ", "\t=", 'a "'])
def test_no_text_is_looked_at_twice(piece: str) -> None:
    began = time.process_time()
    parse_challenges(["Digest " + piece * ((MAX_CHALLENGES - 7) // len(piece))])
    assert time.process_time() - began < 0.5
