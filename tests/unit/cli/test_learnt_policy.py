"""The file that `policy learn` prints, from calls made up here; from a journal it is tested in `test_policy.py`."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from relay_agent.cli.learnt_policy import MAX_LISTED, MAX_TARGETS, learnt_policy
from relay_agent.config.policy_file import MAX_BYTES
from relay_agent.storage.call_history import CalledTarget


def call(
    host: str = "lims", method: str = "GET", *, port: int = 443, secure: bool = False, answered: int = 1, refused: int = 0
) -> CalledTarget:
    return CalledTarget("https", host, port, method, secure, 3, answered, 0.0, refused)


def text_of(*calls: CalledTarget) -> str:
    return learnt_policy(calls, "30 days", 0.0, None)


def rules(*calls: CalledTarget) -> list[dict[str, Any]]:
    return list(tomllib.loads(text_of(*calls)).get("rule", []))


def test_spellings_of_one_host_and_method_share_a_rule() -> None:
    (rule,) = rules(call("lims"), call("lims."), call(method="get"))
    assert (rule["hosts"], rule["methods"]) == (["lims"], ["GET"])


def test_a_secure_call_that_plain_commands_make_too_needs_no_rule_of_its_own() -> None:
    text = text_of(call(), call(secure=True), call(method="PUT", secure=True))
    found = [(rule["methods"], rule.get("secure_only", False)) for rule in tomllib.loads(text)["rule"]]
    assert (found, "# 2 answered commands\n" in text) == ([(["GET"], False), (["PUT"], True)], True)


def test_an_address_gets_a_rule_for_itself() -> None:
    assert [rule["hosts"] for rule in rules(call("10.20.0.7"), call("fd00::7"))] == [["10.20.0.7"], ["fd00::7"]]


def test_spellings_of_one_address_share_a_rule() -> None:
    (rule,) = rules(call("10.20.0.7"), call("169082887"), call("0x0a.20.7"))
    assert rule["hosts"] == ["10.20.0.7"]


@pytest.mark.parametrize(
    "refused, others",
    [
        (call(refused=1), []),
        (call(refused=1, answered=0), []),
        (call("lims.", "get", refused=1), [call()]),
        (call("169082887", refused=1), [call("10.20.0.7")]),
        (call(secure=True, refused=1), [call()]),
    ],
    ids=["some", "all", "another spelling", "another spelling of an address", "a rule for plain commands allows secure ones"],
)
def test_what_a_policy_refused_or_would_have_gets_no_rule_but_a_comment(refused: CalledTarget, others: list[CalledTarget]) -> None:
    text = text_of(refused, *others, call("eln"))
    assert [rule["hosts"] for rule in tomllib.loads(text)["rule"]] == [["eln"]]
    assert (
        "The policy refused some of these, or a rule of it would have (mode observe), so they have no rule;"
        " write one yourself if you want it:\n#   GET" in text
    )
    assert "never answered" not in text


def test_a_refusal_of_other_ports_methods_or_plain_commands_takes_no_rule_away() -> None:
    (rule,) = rules(call(secure=True), call(refused=1), call(port=444, refused=1), call(method="PUT", refused=1))
    assert (rule["ports"], rule["methods"], rule["secure_only"]) == ([443], ["GET"], True)


@pytest.mark.parametrize("host", ["default", "default-lims.lab.example", "built-in.lab.example"])
def test_a_host_called_like_a_rule_of_the_agent_gets_a_rule_with_another_name(host: str) -> None:
    (rule,) = rules(call(host))
    assert (rule["hosts"], rule["name"]) == ([host], f"host {host}")


def test_a_sender_who_invents_hosts_that_answer_cannot_make_the_file_larger_than_one_may_be() -> None:
    long = ".".join(["a" * 58] * 4)
    text = text_of(call("lims"), *(call(f"{number}{long}") for number in range(1, MAX_TARGETS + 50)))
    found = tomllib.loads(text)["rule"]
    assert (len(found), ["lims"] in [rule["hosts"] for rule in found], len(text) < MAX_BYTES) == (MAX_TARGETS, True, True)
    assert f"# More than {MAX_TARGETS:,} targets answered. These were called least often, so they have no rule:\n#   GET https://" in text


def test_comments_are_bounded_and_each_stays_on_its_line() -> None:
    text = text_of(*(call(f"invented\n[[rule]]\x7f{number}", answered=0) for number in range(MAX_LISTED + 7)))
    assert "#   and 7 more\n" in text
    assert tomllib.loads(text) == {"mode": "observe", "default": "deny"}
