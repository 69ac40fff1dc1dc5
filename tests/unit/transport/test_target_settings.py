"""Which `[[target]]` table applies to a URL: the first whose hosts match the host as it is written (docs/policy.md)."""

from __future__ import annotations

import pytest

from relay_agent.transport.host_patterns import parse_hosts
from relay_agent.transport.policy import Policy
from relay_agent.transport.target_settings import NO_SETTINGS, CallRules, TargetSettings

LIMS = TargetSettings("lims", parse_hosts(["lims.lab.example", "10.20.0.0/16"]))
LAB = TargetSettings("lab", parse_hosts(["*.lab.example"]))
RULES = CallRules(Policy(), (LIMS, LAB))


@pytest.mark.parametrize(
    ("host", "table"),
    [
        ("lims.lab.example", LIMS),
        ("lims.lab.example.", LIMS),
        ("eln.lab.example", LAB),
        ("lab.example", NO_SETTINGS),
        ("10.20.1.2", LIMS),
        ("169083138", LIMS),
        ("::ffff:10.20.1.2", LIMS),
        ("10.21.1.2", NO_SETTINGS),
    ],
)
def test_the_first_table_whose_hosts_match_applies(host: str, table: TargetSettings) -> None:
    assert RULES.target(host) is table


def test_without_tables_no_settings_apply() -> None:
    assert CallRules(Policy()).target("lims.lab.example") is NO_SETTINGS


def test_the_values_of_added_fields_are_not_shown() -> None:
    assert "canary" not in repr(TargetSettings(headers=(("Authorization", "canary"),)))
