"""docs/monitoring checked by Prometheus' own promtool.

The rules are valid, each fires when it should and not otherwise, and the pages' metrics are accepted unchanged. That the rules name
metrics of the agent is tested in `tests/integration/test_monitoring.py`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.monitoring import ALERTS, MONITORING, README, alerts, expressions, filled
from tests.pages import ROOT, blocks

TESTS = MONITORING / "alerts_test.yml"
_FETCHED = ROOT / "build" / "tools" / "promtool"
PROMTOOL = shutil.which("promtool") or (str(_FETCHED) if _FETCHED.is_file() else None)
WRONG = {"never": "vector(0) > 1", "always": 'group without (nothing) ({__name__=~"relay_agent_.*|up"})'}
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool on this machine: make promtool")


def promtool(*arguments: str, directory: Path = MONITORING) -> str:
    """What promtool says when it is content; otherwise fail with what it says."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=directory, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_promtool
def test_the_alert_rules_are_rules() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", ALERTS.name)


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", TESTS.name)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What promtool says of the tests of single alerts whose rule never fires or always does."""
    place = tmp_path_factory.mktemp("spoilt")
    tests = yaml.load(TESTS.read_text(encoding="utf-8"), yaml.CSafeLoader)
    cases = {case["name"]: case for case in tests["tests"]}
    for rule in alerts():
        for change, wrong in WRONG.items():
            file = f"{rule['alert']}-{change}.yml"
            (place / file).write_text(json.dumps({"groups": [{"name": "spoilt", "rules": [rule | {"expr": wrong, "for": "0s"}]}]}))
            (place / f"test-{file}").write_text(json.dumps(tests | {"rule_files": [file], "tests": [cases[rule["alert"]]]}))
    assert PROMTOOL is not None
    command = [PROMTOOL, "test", "rules", *(path.name for path in place.glob("test-*"))]
    return subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=50, check=False).stdout


@needs_promtool
@pytest.mark.parametrize("change", WRONG)
@pytest.mark.parametrize("name", [alert["alert"] for alert in alerts()])
def test_an_alert_that_never_fires_and_one_that_always_does_are_caught(spoilt: str, name: str, change: str) -> None:
    """The rule's test distinguishes both from the real rule, so the tests of the rules prove something."""
    verdict = spoilt.partition(f"test-{name}-{change}.yml\n")[2].partition("Unit Testing:")[0]
    assert verdict.lstrip().startswith("FAILED:"), spoilt
    assert name in verdict and "got:" in verdict, verdict


@needs_promtool
def test_every_expression_of_the_dashboard_is_one(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{place}", "expr": filled(text)} for place, text in enumerate(expressions())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "panels.yml", directory=tmp_path)


@needs_promtool
def test_prometheus_takes_the_scrape_configurations_that_are_shown(tmp_path: Path) -> None:
    (tmp_path / "relay-agent").mkdir()
    shutil.copy(ALERTS, tmp_path / "relay-agent" / ALERTS.name)
    shown = [block for block in blocks(README, "yaml") if "scrape_configs" in block]
    assert len(shown) == 2
    for block in shown:
        (tmp_path / "prometheus.yml").write_text(block)
        promtool("check", "config", *(["--agent"] if "remote_write" in block else []), "prometheus.yml", directory=tmp_path)


def test_each_alert_has_a_test_of_its_name() -> None:
    cases = [case["name"] for case in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]]
    assert [name for name in cases if re.fullmatch(r"RelayAgent\w+", name)] == [alert["alert"] for alert in alerts()]
