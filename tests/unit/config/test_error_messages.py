"""Mistakes in the settings: all in one message, each by its variable with what right looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.config.settings import variables
from tests.unit.config.scenes import REQUIRED, ROOT, Load, Problems


def test_all_missing_settings_are_reported_at_once_in_the_documented_order(problems: Problems) -> None:
    found = problems(**dict.fromkeys(REQUIRED))
    assert [line.partition(":")[0] for line in found] == ["API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT"]
    assert all("is not set; set it" in line for line in found)
    assert "https://api.tetrascience.com" in found[0]


def test_all_mistakes_are_reported_at_once(problems: Problems, env_file: Path) -> None:
    env_file.write_text("RELAY_QUEUE_SIZE=many\n")
    wrong = {"ORG_SLUG": "a b", "JWT": "no", "RELAY_WORKERS": "0", "RELAY_CA_FILE": "/nonexistent", "SECURE_COMMAND_KEY": "short"}
    found = problems(AGENT_ID=None, API_TARGET="<url>", **wrong)
    assert {line.partition(":")[0] for line in found} == {"AGENT_ID", "API_TARGET", "RELAY_QUEUE_SIZE", *wrong}
    assert len(found) == len({line.partition(":")[0] for line in found})


def test_every_invalid_value_has_one_line_that_says_what_is_expected(problems: Problems) -> None:
    for row in variables():
        if row.name in {"no_proxy", "RELAY_STATE_DIR"}:
            continue
        lines = [line for line in problems(**{row.name: "<fill in>"}) if line.startswith(f"{row.name}: ")]
        assert lines == [f"{row.name}: is still a placeholder; set it to {row.description}"]


def test_each_mistake_in_the_policy_file_has_a_line_of_its_own(problems: Problems, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("mode = 1\ndefault = 2\n")
    found = problems(RELAY_POLICY_FILE=str(file), RELAY_WORKERS="0")
    assert [line for line in found if not line.startswith("RELAY_WORKERS: ")] == [
        "RELAY_POLICY_FILE: policy.toml: mode: input should be 'enforce' or 'observe'",
        "RELAY_POLICY_FILE: policy.toml: default: input should be 'allow' or 'deny'",
    ]
    found = problems(RELAY_POLICY_FILE="/nonexistent", RELAY_WORKERS=None)
    assert found == ["RELAY_POLICY_FILE: cannot read /nonexistent (No such file or directory)"]


@pytest.mark.parametrize(
    "text", ["<token>", "https://<host>/", "https://your-company.example", "YOUR_ORG", "changeme", "CHANGE-ME", "xxxx", "..."]
)
@pytest.mark.parametrize("name", ["API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT", "https_proxy", "HTTPS_PROXY", "RELAY_WORKERS"])
def test_a_placeholder_is_a_mistake(problems: Problems, name: str, text: str) -> None:
    (line,) = problems(**{name: text})
    assert line.startswith(f"{name}: is still a placeholder; set it to ")


def test_the_unchanged_example_reports_its_four_placeholders(problems: Problems, env_file: Path) -> None:
    env_file.write_text((ROOT / ".env.example").read_text())
    found = problems(**dict.fromkeys(REQUIRED))
    assert [line.partition(";")[0] for line in found] == [f"{name}: is still a placeholder" for name in REQUIRED]


def test_a_value_that_only_resembles_a_placeholder_is_accepted(load: Load) -> None:
    load(ORG_SLUG="acme-your-labs", http_proxy="http://u:changeme@p.lab.example:1", https_proxy="http://<u>:p<a>ss@p.lab.example:1")
