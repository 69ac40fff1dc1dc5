"""docs/monitoring compared with the metrics of a running agent: rules, dashboard and table name what exists, and leave nothing out.

Whether Prometheus accepts the rules is tested in `tests/e2e/test_monitoring.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from relay_agent.core.failures import Code
from relay_agent.core.models import CertificateRole, Status
from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from relay_agent.tdp import call_outcomes
from tests.agents import ThreadedAgent, page, running, wait_until
from tests.integration.monitoring import ALERTS, MONITORING, README, alerts, dashboard, expressions, metrics, panels
from tests.pages import blocks, names, rows, section
from tests.target_certificates import ca_pem

SCRIPT = MONITORING / "textfile.sh"
RULES = [alert["expr"] for alert in alerts()]


@pytest.fixture(scope="module")
def exposed(sandbox: Sandbox, demo_target: DemoTarget, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metric]:
    """The metrics of an agent that has carried out some commands, by name as the documentation has it."""
    directory = tmp_path_factory.mktemp("agent")
    (directory / "ca.pem").write_bytes(ca_pem())
    with running(ThreadedAgent(sandbox, directory, {"RELAY_CA_FILE": str(directory / "ca.pem")})) as agent:
        assert agent.ask_until_logged({"url": f"{demo_target.http_url}/json"}).status == Status.SUCCESS
        assert agent.ask_until_logged({"url": f"{demo_target.http_url}/status/404"}).status == Status.FAILURE
        assert agent.ask_until_logged({"url": "http://127.0.0.1:9/"}).status == Status.FAILURE
        wait_until(sandbox, lambda: all(late in page(agent, "/metrics")[1] for late in ('call="logs put"', "last_heartbeat")))
        found = list(text_string_to_metric_families(page(agent, "/metrics")[1]))
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in found}


def series(exposed: dict[str, Metric]) -> set[str]:
    """The names of all series, as an expression has them."""
    return {sample.name for family in exposed.values() for sample in family.samples}


# --- the dashboard ---


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    assert len(panels()) >= 15
    for panel in panels():
        assert panel["title"] and panel["description"].endswith("."), panel
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


def test_the_dashboard_asks_the_chosen_data_source_about_the_chosen_agents() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [chosen] * (1 + len(panel["targets"]))
    for expression in expressions():
        assert expression.count('job=~"$job", instance=~"$agent"') == len(re.findall(r"\{", expression)), expression
    assert [variable["name"] for variable in dashboard()["templating"]["list"]] == ["datasource", "job", "agent"]


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_different_ids() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    taken = [(at["x"] + x, at["y"] + y) for at in places for x in range(at["w"]) for y in range(at["h"])]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


# --- the metrics by name ---


def test_every_metric_that_is_asked_for_is_one_that_an_agent_exposes(exposed: dict[str, Metric]) -> None:
    for expression in (*RULES, *expressions()):
        asked = set(metrics(expression))
        assert asked or re.search(r"\bup\{", expression), expression
        assert asked - series(exposed) == set(), expression


def test_every_metric_of_the_agent_is_on_the_dashboard(exposed: dict[str, Metric]) -> None:
    shown = {name.removesuffix("_bucket") for expression in expressions() for name in metrics(expression)}
    assert set(exposed) - shown == set()


def test_no_page_of_the_monitoring_names_a_metric_that_does_not_exist(exposed: dict[str, Metric]) -> None:
    assert set(re.findall(r"\brelay_agent_\w+\w\b(?!\")", README.replace("relay_agent.", ""))) - series(exposed) - set(exposed) == set()


def test_the_labels_that_a_rule_chooses_by_have_such_values(exposed: dict[str, Metric]) -> None:
    known = {
        "code": set(Code),
        "call": calls(),
        "outcome": outcomes(),
        "state": values(exposed, "relay_agent_journal_commands", "state"),
        "stage": values(exposed, "relay_agent_command_seconds", "stage"),
        "status": set(Status),
        "role": set(CertificateRole),
    }
    for expression in (*RULES, *expressions()):
        for label, sign, pattern in re.findall(r"\b(\w+)(!=|=~|!~|=)\"([^\"]*)\"", expression):
            if label in known:
                for part in re.split(r"\|(?![^(]*\))", pattern) if "~" in sign else [pattern]:
                    assert any(re.fullmatch(part if "~" in sign else re.escape(part), value) for value in known[label]), (part, expression)


# --- the table ---


def test_every_metric_stands_in_the_table_with_its_type_and_labels(exposed: dict[str, Metric]) -> None:
    reported = {names(name)[0]: (kind, set(names(labels))) for name, kind, labels, _, _ in rows(section(README, "Every metric"), "metric")}
    found = {
        name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"}) for name, family in exposed.items()
    }
    assert reported == found
    assert [row for row in rows(section(README, "Every metric"), "metric") if not row[4] or not (row[3] or "info" in row[0])] == []


def test_the_label_values_in_the_table_are_the_agents(exposed: dict[str, Metric]) -> None:
    meaning = {names(row[0])[0]: names(row[4]) for row in rows(section(README, "Every metric"), "metric")}
    assert set(meaning["relay_agent_journal_commands"]) == values(exposed, "relay_agent_journal_commands", "state")
    assert set(CertificateRole) <= set(meaning["relay_agent_certificate_expiry_timestamp_seconds"])
    assert set(meaning["relay_agent_command_seconds"]) == values(exposed, "relay_agent_command_seconds", "stage")
    assert {status for status in Status if status != Status.PROCESSING} <= set(meaning["relay_agent_commands_total"])
    assert values(exposed, "relay_agent_platform_requests_total", "call") <= calls()
    assert {names(row[0])[0] for row in rows(section(README, "Calls and outcomes"), "outcome")} == outcomes()


def values(exposed: dict[str, Metric], metric: str, label: str) -> set[str]:
    return {sample.labels[label] for sample in exposed[metric].samples}


def outcomes() -> set[str]:
    return {"ok", "error", *(word for _, word in call_outcomes.WORDS)}


def calls() -> set[str]:
    return {name for row in rows(section(README, "Calls and outcomes"), "call") for name in names(row[0])}


# --- the alerts ---


def test_every_alert_says_what_it_means_what_to_do_first_and_how_bad_it_is() -> None:
    for alert in alerts():
        annotations = alert["annotations"]
        assert "{{ $labels.instance }}" in annotations["summary"], alert["alert"]
        assert "First step: " in annotations["description"], alert["alert"]
        assert alert["labels"] == {"severity": alert["labels"]["severity"]}
        assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_the_table_of_alerts_is_the_file_s() -> None:
    reported = [(names(name)[0], severity) for name, severity, _ in rows(section(README, "Alerts"), "alert")]
    assert reported == [(alert["alert"], alert["labels"]["severity"]) for alert in alerts()]


def test_what_is_summed_keeps_whatever_labels_the_scraping_gave_it() -> None:
    """`sum by (instance)` would throw together two agents of one machine."""
    assert re.findall(r"\b(?:by|on) ?\(", ALERTS.read_text(encoding="utf-8")) == []


# --- what the pages show ---


def test_every_yaml_example_is_yaml() -> None:
    for block in blocks(README, "yaml"):
        assert yaml.safe_load(block)


def test_the_health_check_that_is_shown_asks_the_agent_of_the_state_directory(sandbox: Sandbox, tmp_path: Path) -> None:
    (block,) = [block for block in blocks(README, "yaml") if "healthcheck" in block]
    _, _, options, place = yaml.safe_load(block)["services"]["agent"]["healthcheck"]["test"]
    script = MONITORING.parents[1] / "docker" / Path(place).name

    def check() -> int:
        environment = os.environ | {"RELAY_STATE_DIR": str(tmp_path / "state")}
        return subprocess.run([sys.executable, options, script], env=environment, capture_output=True, timeout=30, check=False).returncode

    with running(ThreadedAgent(sandbox, tmp_path)):
        assert check() == 0
    assert check() == 1


def samples(text: str) -> list[tuple[str, dict[str, str]]]:
    """The samples of a page, without their values."""
    return [(sample.name, sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_metrics_are_copied_into_a_file_for_the_node_exporter_and_removed_with_the_agent(sandbox: Sandbox, tmp_path: Path) -> None:
    directory = tmp_path / ("a long name of a directory " * 5)
    file = tmp_path / "agent.prom"

    def copy() -> int:
        command = [str(SCRIPT), str(directory / "state"), str(file), "lab-1"]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode

    with running(ThreadedAgent(sandbox, directory)) as agent:
        agent.ask_until_logged({"url": "http://127.0.0.1:9/"})
        # The agent changes its metrics meanwhile: compare a copy taken between two equal readings.
        for _ in range(20):
            before = samples(page(agent, "/metrics")[1])
            assert copy() == 0
            asked = list(text_string_to_metric_families(page(agent, "/metrics")[1]))
            if before == samples(page(agent, "/metrics")[1]):
                break
        copied = list(text_string_to_metric_families(file.read_text()))
    assert [family.name for family in copied] == [family.name for family in asked]
    assert {sample.labels["agent"] for family in copied for sample in family.samples} == {"lab-1"}
    without = [(sample.name, {k: v for k, v in sample.labels.items() if k != "agent"}) for family in copied for sample in family.samples]
    assert without == [(sample.name, sample.labels) for family in asked for sample in family.samples]
    assert file.stat().st_mode & 0o777 == 0o644
    assert copy() == 1
    assert list(tmp_path.glob("agent.prom*")) == []
