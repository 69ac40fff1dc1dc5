"""What a failure counts as, and whether a repetition is safe."""

from __future__ import annotations

import pytest

from relay_agent.core.errors import PlatformError, RateLimited, RelayError, SecureCommandError
from relay_agent.core.failures import Code
from relay_agent.pipelines.encoding import Answer, BadAnswer
from relay_agent.pipelines.failures import Kind, NoAnswer, TooLarge, Trouble, Unreached, trouble_of_answer, trouble_of_error


def trouble(code: str, message: str = "words", *, secure: bool = False, sealed: bool = False) -> Trouble:
    return trouble_of_answer(Answer("c", "FAILURE", {"code": code, "message": message}, sealed), secure=secure)


NOTHING_SENT = {Code.ENOTFOUND, Code.EAI_AGAIN, Code.ECONNREFUSED, Code.EEXPIRED, Code.ESHUTDOWN, "UNSENT"} | {
    code for code in Code if "CERT" in code or code == Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE
}
OPEN = {Code.ECONNRESET, Code.EPIPE, Code.EHOSTUNREACH, Code.ENETUNREACH, Code.ETIMEDOUT, Code.EINTERRUPTED, Code.EPROTO} | {
    *(Code.EBADRESPONSE, "EXPIRED", "PURGED", "ERROR")
}


@pytest.mark.parametrize("code", [*Code, "UNSENT", "EXPIRED", "PURGED", "ERROR"])
def test_each_code_has_its_judgement(code: str) -> None:
    found = trouble(code)
    assert (found.nothing_sent, found.repeatable) == (code in NOTHING_SENT, code in NOTHING_SENT | OPEN)
    assert str(found) == f"{code}: words"


@pytest.mark.parametrize("code", [*Code, "UNSENT"])
def test_nothing_that_the_platform_may_have_made_up_is_safe_to_repeat(code: str) -> None:
    assert not trouble(code, secure=True).nothing_sent
    assert trouble(code, secure=True, sealed=True) == trouble(code)


@pytest.mark.parametrize(
    "code, message, kind, nothing_sent",
    [
        ("ETIMEDOUT", "connect ETIMEDOUT 10.0.0.1:80", Kind.CONNECT_TIMEOUT, True),
        ("ETIMEDOUT", "the first byte of the response took too long", Kind.READ_TIMEOUT, False),
        ("ETIMEDOUT", "the target is busy (max_concurrency = 1), and others wait for it already", Kind.CONNECT_TIMEOUT, True),
        ("ETIMEDOUT", "the time limit passed while the target was busy (max_concurrency = 1)", Kind.CONNECT_TIMEOUT, True),
        ("EHOSTUNREACH", "connect EHOSTUNREACH 10.0.0.1:80", Kind.CONNECT, True),
        ("EHOSTUNREACH", "read EHOSTUNREACH 10.0.0.1:80", Kind.LOST, False),
        ("EHOSTUNREACH", "proxy http://p:1: connect EHOSTUNREACH 10.0.0.2:1", Kind.PROXY, True),
        ("EHOSTUNREACH", "the proxy socks5h://p:1 answered EHOSTUNREACH", Kind.PROXY, True),
        ("ECONNREFUSED", "proxy http://p:1: connect ECONNREFUSED", Kind.PROXY, True),
        ("ECONNRESET", "proxy http://p:1: read ECONNRESET", Kind.PROXY, False),
    ],
)
def test_some_codes_are_distinguished_by_their_message(code: str, message: str, kind: Kind, nothing_sent: bool) -> None:
    assert (trouble(code, message).kind, trouble(code, message).nothing_sent) == (kind, nothing_sent)


@pytest.mark.parametrize(
    "error, secure, code, kind",
    [
        (NoAnswer("c", "PENDING", 15), False, "ETIMEDOUT", Kind.READ_TIMEOUT),
        (Unreached("POST", "x", Kind.CONNECT, "ECONNREFUSED"), False, "ECONNREFUSED", Kind.CONNECT),
        (RateLimited("POST", 1), False, "429", Kind.CONNECT),
        (PlatformError("POST", "x", 503), False, "503", Kind.LOST),
        (PlatformError("POST", "x", 400), False, "400", Kind.REFUSED),
        (TooLarge("x"), False, "EMSGSIZE", Kind.REFUSED),
        (SecureCommandError("EDECRYPT", "x"), True, "EDECRYPT", Kind.REFUSED),
        (BadAnswer("x"), True, "EDECRYPT", Kind.REFUSED),
        (BadAnswer("x"), False, "EBADRESPONSE", Kind.REFUSED),
    ],
)
def test_our_own_exceptions_have_their_judgement(error: RelayError, secure: bool, code: str, kind: Kind) -> None:
    found = trouble_of_error(error, secure=secure)
    assert (found.code, found.kind) == (code, kind)


def test_a_platform_that_claims_to_have_taken_nothing_is_not_believed_about_a_secure_command() -> None:
    assert trouble_of_error(RateLimited("POST", 1), secure=False).nothing_sent
    assert not trouble_of_error(RateLimited("POST", 1), secure=True).nothing_sent
