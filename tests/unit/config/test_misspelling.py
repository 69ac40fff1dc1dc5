"""A misspelt name is answered with the nearest known one."""

from __future__ import annotations

from relay_agent.config.misspelling import nearest, unknown_key


def test_the_nearest_known_name_is_offered_and_none_that_is_far() -> None:
    known = ["headers", "client_key", "client_certificate"]
    assert nearest("client_certificat", known) == "client_certificate"
    assert nearest("header", known) == "headers"
    assert nearest("zzz", known) is None


def test_an_unknown_key_is_told_with_the_nearest_or_with_all() -> None:
    assert unknown_key("header", ["headers", "proxy"]) == "unknown key 'header'; did you mean 'headers'?"
    assert unknown_key("zzz", ["headers", "proxy"]) == "unknown key 'zzz'; known are headers, proxy"
