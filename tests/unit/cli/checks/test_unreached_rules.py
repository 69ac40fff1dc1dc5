"""Rules and tables that an earlier one leaves nothing to match."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_agent.cli.checks import unreached_rules
from relay_agent.cli.checks.unreached_rules import MAX_COMPARISONS, _covers, unreached
from relay_agent.config.policy_file import load_policy
from relay_agent.transport.host_patterns import parse_hosts
from relay_agent.transport.policy import Policy, Rule
from relay_agent.transport.target_settings import CallRules


def found(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    return unreached(load_policy(file).rules)


def never(later: str, first: str) -> str:
    return f"{later} is never reached, because {first} comes first and matches everything that it matches"


def rules(tmp_path: Path, first: str, second: str) -> bool:
    """Whether the second of two rules is never reached."""
    said = found(tmp_path, f'[[rule]]\nname = "a"\n{first}\n[[rule]]\nname = "b"\n{second}\n')
    assert said in ([], ["[[rule]] 2 (b) is never reached, because [[rule]] 1 (a) comes first and matches everything that it matches"])
    return bool(said)


ALLOW, DENY = 'action = "allow"\n', 'action = "deny"\n'


@pytest.mark.parametrize(
    "first, second",
    [
        (ALLOW, DENY + 'hosts = ["lims"]'),
        (ALLOW + 'hosts = ["*"]', DENY + 'hosts = ["lims"]'),
        (ALLOW + 'hosts = ["lims"]', DENY + 'hosts = ["lims"]\nports = [443]'),
        (ALLOW + 'hosts = ["*.lab", "x"]', ALLOW + 'hosts = ["lims.lab", "*.a.lab"]'),
        (ALLOW + 'hosts = ["10.0.0.0/8"]', ALLOW + 'hosts = ["10.1.0.0/16"]'),
        (DENY + 'hosts = ["10.0.0.0/8"]', ALLOW + 'hosts = ["10.1.0.0/16"]'),
        (ALLOW + 'paths = ["/api/*"]', ALLOW + 'paths = ["/api/x", "/api/*"]'),
        (DENY + 'paths = ["/api/*"]', ALLOW + 'paths = ["/api/x", "/api/*"]'),
        (ALLOW + 'paths = ["/*"]', DENY + 'paths = ["/api/x"]'),
        (ALLOW + 'hosts = ["*.b", "a.b", "10.0.0.0/8", "::/0"]', DENY + 'hosts = ["x.b", "*.c.b"]'),
        (ALLOW + 'hosts = ["fd00::/8"]', ALLOW + 'hosts = ["fd00::7", "fd00:1::/32"]'),
        (ALLOW + 'methods = ["get", "POST"]', DENY + 'methods = ["GET"]\nsecure_only = true'),
    ],
)
def test_a_rule_after_one_that_matches_everything_it_does_is_never_reached(tmp_path: Path, first: str, second: str) -> None:
    assert rules(tmp_path, first, second)


@pytest.mark.parametrize(
    "first, second",
    [
        (ALLOW + "secure_only = true", DENY),
        (ALLOW + 'hosts = ["lims"]\nports = [443]', DENY + 'hosts = ["lims"]'),
        (ALLOW + 'hosts = ["*.lab"]', ALLOW + 'hosts = ["lab"]'),
        (ALLOW + 'hosts = ["0.0.0.0/0", "::/0"]', ALLOW + 'hosts = ["lims"]'),
        (ALLOW + 'hosts = ["10.0.0.0/8"]', DENY + 'hosts = ["10.1.0.0/16"]'),
        (ALLOW + 'hosts = ["localhost"]', DENY + 'hosts = ["localhost"]'),
        (ALLOW + 'hosts = ["10.1.0.0/16"]', ALLOW + 'hosts = ["10.0.0.0/8"]'),
        (ALLOW + 'hosts = ["lims"]', ALLOW + 'hosts = ["*"]'),
        (ALLOW + 'paths = ["/api/*"]', ALLOW + 'paths = ["/*"]'),
        (ALLOW + 'paths = ["/api/*"]', DENY + 'paths = ["/api/x"]'),
        (ALLOW + 'schemes = ["https"]', ALLOW + 'schemes = ["http"]'),
    ],
)
def test_a_rule_that_may_match_something_is_not_reported(tmp_path: Path, first: str, second: str) -> None:
    assert not rules(tmp_path, first, second)


def test_a_table_after_one_with_wider_hosts_is_never_reached(tmp_path: Path) -> None:
    tables = "".join(f'[[target]]\nhosts = ["{host}"]\n' for host in ("10.0.0.0/8", "10.1.1.1", "eln", "*", "lims"))
    assert found(tmp_path, tables) == [
        "[[target]] 2 (10.1.1.1) is never reached, because [[target]] 1 (10.0.0.0/8) comes first and matches everything that it matches",
        "[[target]] 5 (lims) is never reached, because [[target]] 4 (*) comes first and matches everything that it matches",
    ]


SOME_HOSTS = ("lims", "a.lab", "*.lab", "*.a.lab", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1", "fd00::/8", "fd00::7", "localhost", "*")
HOSTS = st.none() | st.lists(st.sampled_from(SOME_HOSTS), min_size=1, max_size=3, unique=True)
A_RULE = st.tuples(st.booleans(), HOSTS, st.none() | st.lists(st.sampled_from([80, 443]), min_size=1, max_size=2, unique=True))


@given(st.lists(A_RULE, min_size=2, max_size=5))
def test_the_index_finds_what_a_comparison_with_every_earlier_rule_does(given_rules: list[Any]) -> None:
    made = [
        Rule(f"r{number}", allows, hosts=parse_hosts(hosts) if hosts else None, ports=frozenset(ports) if ports else None)
        for number, (allows, hosts, ports) in enumerate(given_rules)
    ]
    expected = []
    for place, later in enumerate(made):
        first = next((number for number, earlier in enumerate(made[:place]) if _covers(earlier, later)), None)
        expected += [] if first is None else [never(f"[[rule]] {place + 1} (r{place})", f"[[rule]] {first + 1} (r{first})")]
    assert unreached(CallRules(Policy(rules=made))) == expected


@pytest.mark.parametrize(
    "rule",
    [
        'hosts = ["h{0}.lab.example", "10.{1}.{2}.0/24"]',
        'hosts = ["*.d{0}.lab.example"]\npaths = ["/{0}/*"]',
        'hosts = ["10.{1}.{2}.0/24"]',
    ],
)
def test_thousands_of_rules_for_different_hosts_are_all_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    number = 5000
    calls = count_calls(monkeypatch, "_covers")
    text = "".join(f'[[rule]]\naction = "allow"\n{rule.format(place, place // 256, place % 256)}\n' for place in range(number))
    assert found(tmp_path, text + '[[rule]]\naction = "deny"\n[[rule]]\naction = "allow"\n') == [
        never(f"[[rule]] {number + 2}", f"[[rule]] {number + 1}")
    ]
    assert len(calls) < 2 * number


def test_the_work_is_bounded_and_what_was_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch, "_covers")
    text = "".join(f'[[rule]]\naction = "allow"\nports = [{place + 1}]\n' for place in range(2000))
    (said,) = found(tmp_path, text)
    assert re.fullmatch(
        r"\[\[rule\]\] \d{3,4} and what follows it were not compared with what comes before: that would take too long", said
    )
    assert len(calls) <= MAX_COMPARISONS
    paths = ", ".join(f'"/{place}"' for place in range(2000))
    said = found(tmp_path, f'[[rule]]\naction = "allow"\npaths = [{paths}]\n' * 2)[0]
    assert said.startswith("[[rule]] 2 and what follows it were not compared"), "two rules with long lists are as much work as many"


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Note each call of a function of the module."""
    calls: list[int] = []
    real = getattr(unreached_rules, name)

    def counted(*given: Any) -> Any:
        calls.append(1)
        return real(*given)

    monkeypatch.setattr(unreached_rules, name, counted)
    return calls
