"""Facts and numbers in words that a person would use."""

from __future__ import annotations

import pytest

from relay_agent.agent.admin.words import ago, byte_size, described_policy, dropped, duration, queue_words, span, until

NOW = "2026-03-01T12:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (119.4, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2 h"), (172_799.0, "48 h"), (172_800.0, "2 d")],
)
def test_a_duration_has_the_unit_that_a_person_would_use(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_moment_is_shown_as_how_long_ago_it_was() -> None:
    assert ago(None, NOW) == "never"
    assert ago("2026-03-01T11:59:30Z", NOW) == "30 s ago"
    assert ago("2026-03-01T12:00:30Z", NOW) == "0 s ago"


def test_what_expires_says_when_or_since_when() -> None:
    assert until(None, NOW) == "-"
    assert until("2026-03-01T14:00:00Z", NOW) == "in 2 h"
    assert until("2026-03-01T11:00:00Z", NOW) == "expired 60 min ago"


@pytest.mark.parametrize(("milliseconds", "words"), [(None, "-"), (0, "0 ms"), (9_999, "9999 ms"), (10_000, "10 s")])
def test_milliseconds_become_seconds_from_ten_on(milliseconds: int | None, words: str) -> None:
    assert duration(milliseconds) == words


@pytest.mark.parametrize(("count", "words"), [(999, "999 bytes"), (1_000, "1.0 kB"), (2_500_000, "2.5 MB"), (3_000_000_000, "3.0 GB")])
def test_sizes_have_decimal_units(count: int, words: str) -> None:
    assert byte_size(count) == words


def test_dropped_lines_are_mentioned_only_if_there_are_some() -> None:
    assert (dropped(0), dropped(2)) == ("", ", 2 dropped")


@pytest.mark.parametrize(
    ("enabled", "shared", "words"),
    [
        (True, False, "enabled"),
        (False, False, "disabled"),
        (None, False, "not known yet"),
        (True, True, "enabled; shared queue: other agents of this id receive from it too"),
    ],
)
def test_a_queue_is_enabled_or_not_and_shared_or_not(enabled: bool | None, shared: bool, words: str) -> None:
    assert queue_words({"enabled": enabled, "shared": shared}) == words


@pytest.mark.parametrize(("rules", "words"), [(1, "1 rule,"), (2, "2 rules,")])
def test_a_policy_is_described_with_its_mode_rules_default_and_file(rules: int, words: str) -> None:
    found = described_policy({"mode": "enforce", "rules": rules, "default": "deny", "file": "policy.toml"})
    assert found == f"mode enforce, {words} default deny, policy.toml"
