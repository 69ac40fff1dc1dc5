"""The running agent's state in a report, and when no command may be posted. What it relays is in tests/integration/test_qualify.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from relay_agent import AGENT_VERSION
from relay_agent.cli.qualification.lines import Result
from relay_agent.cli.qualification.running_agent import Relayed, Seen, look, running_agent_lines, state_line, undisturbed_line
from relay_agent.pipelines.client import CommandClient
from tests.unit.cli.checks.scenes import REQUIRED, settings

URL = "http://127.0.0.1:49152/qualification/1"


def seen(**more: Any) -> Seen:
    return Seen({"state": "ready", "version": AGENT_VERSION, "agent": {"id": REQUIRED["AGENT_ID"]}, "started": "earlier", **more})


def test_a_ready_agent_of_this_version_and_id_passes() -> None:
    assert state_line(seen(), settings()).result is Result.PASS


@pytest.mark.parametrize("other", [{"state": "not ready"}, {"version": "v0.0.1"}, {"agent": {"id": "another"}}, {"agent": None}])
def test_another_state_version_or_id_fails(other: dict[str, Any]) -> None:
    assert state_line(seen(**other), settings()).result is Result.FAIL


def test_without_an_agent_or_with_invalid_settings_nothing_is_posted(tmp_path: Path) -> None:
    for valid in (settings(), None):
        lines = running_agent_lines(valid, tmp_path, ["http://one.lab.example", "http://two.lab.example"])
        assert [line.number for line in lines] == ["OQ-15", "OQ-16", "OQ-17.1", "OQ-17.2", "OQ-18", "OQ-19"]
        assert [line.result for line in lines] == [Result.FAIL, *[Result.NOT_RUN] * 5]
    assert "no agent runs" in look(tmp_path).problem


def test_an_agent_that_was_restarted_meanwhile_was_disturbed() -> None:
    assert undisturbed_line(seen(), seen()).result is Result.PASS
    assert undisturbed_line(seen(), seen(started="later")).result is Result.FAIL
    assert undisturbed_line(seen(), seen(state="not ready")).result is Result.FAIL
    assert undisturbed_line(seen(), Seen(None, "no agent runs")).result is Result.FAIL


def obstacle(*, shared: bool = False, **more: str) -> str | None:
    return Relayed(settings(**more), Path(), shared=shared).obstacle(URL)


def test_a_policy_that_does_not_allow_loopback_is_respected(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    rule = '[[rule]]\nname = "one"\naction = "allow"\nhosts = ["{}"]\n'
    policy.write_text(rule.format("lims.lab.example"), encoding="utf-8")
    assert obstacle(RELAY_POLICY_FILE=str(policy)) == "the policy does not allow 127.0.0.1 (default: deny)"
    policy.write_text(rule.format("127.0.0.1"), encoding="utf-8")
    assert obstacle(RELAY_POLICY_FILE=str(policy)) is None
    assert obstacle() is None


def test_a_proxy_or_a_shared_queue_would_take_the_command_elsewhere(tmp_path: Path) -> None:
    proxied = {"RELAY_TARGET_PROXY": "http://user:canary@proxy.lab.example:3128"}
    assert "through a proxy" in (obstacle(**proxied) or "") and "canary" not in (obstacle(**proxied) or "")
    assert obstacle(**proxied, no_proxy="127.0.0.1") is None
    assert "several agents" in (obstacle(shared=True) or "")
    policy = tmp_path / "policy.toml"
    policy.write_text('default = "allow"\n[[target]]\nhosts = ["127.0.0.1"]\nproxy = "http://proxy.lab.example:3128"\n', encoding="utf-8")
    assert "sets a proxy" in (obstacle(RELAY_POLICY_FILE=str(policy)) or "")


@pytest.mark.parametrize("others, result", [(False, Result.NOT_RUN), (True, Result.NOT_APPLICABLE)], ids=["alone", "with a target"])
def test_a_target_of_the_site_takes_the_place_of_one_that_may_not_be_called(tmp_path: Path, others: bool, result: Result) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rule]]\nname = "one"\naction = "allow"\nhosts = ["lims.lab.example"]\n', encoding="utf-8")
    relayed = Relayed(settings(RELAY_POLICY_FILE=str(policy)), tmp_path, shared=False)
    line = relayed._own(cast("CommandClient", None), others)
    assert line.result is result
    assert ("--target" in line.remark) is not others
    assert relayed._recorded().result is Result.NOT_RUN
