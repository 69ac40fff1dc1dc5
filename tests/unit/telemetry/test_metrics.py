"""The metrics' names, bounded labels, and the lines of the system metrics."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from relay_agent.core.clock import Clock
from relay_agent.telemetry.metrics import Metrics, system_metrics

ACTION = "TetraScience.Connector.gdc.HttpRequest"


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def test_the_documented_metrics_are_on_the_page() -> None:
    metrics = Metrics("0.1.0", [ACTION])
    metrics.command_finished(ACTION, "SUCCESS", "200", 0.002, 0.2)
    metrics.command_delivered(0.01)
    metrics.platform_request("agent/status", "ok")
    metrics.watch(
        queue_depth=lambda: 3,
        workers_busy=lambda: 2,
        workers=lambda: 16,
        journal_bytes=lambda: 4096,
        journal_commands=lambda: {"admitted": 1, "started": 2},
        log_events_dropped=lambda: 7,
        moments=lambda: {"last_receive": 1.5, "last_heartbeat": 2.5, "token_expiry": 3.5, "credentials_expiry": 4.5},
    )
    found = samples(metrics)
    expected = {
        ("commands_total", (("action", ACTION), ("code", "200"), ("status", "SUCCESS"))): 1,
        ("command_seconds_count", (("stage", "queued"),)): 1,
        ("command_seconds_count", (("stage", "target"),)): 1,
        ("command_seconds_count", (("stage", "delivered"),)): 1,
        ("platform_requests_total", (("call", "agent/status"), ("outcome", "ok"))): 1,
        ("queue_depth", ()): 3,
        ("workers_busy", ()): 2,
        ("workers", ()): 16,
        ("journal_bytes", ()): 4096,
        ("journal_commands", (("state", "admitted"),)): 1,
        ("journal_commands", (("state", "started"),)): 2,
        ("last_receive_timestamp_seconds", ()): 1.5,
        ("last_heartbeat_timestamp_seconds", ()): 2.5,
        ("token_expiry_timestamp_seconds", ()): 3.5,
        ("credentials_expiry_timestamp_seconds", ()): 4.5,
        ("log_events_dropped_total", ()): 7,
        ("info", (("version", "0.1.0"),)): 1,
    }
    for (name, labels), value in expected.items():
        assert found[f"relay_agent_{name}", labels] == value, name
    assert all(name.startswith("relay_agent_") for name, _ in found)


def test_two_agents_in_one_process_count_separately() -> None:
    first, second = Metrics("1", [ACTION]), Metrics("2", [ACTION])
    first.command_finished(ACTION, "SUCCESS", "200", 0, 0)
    assert not any(name.endswith("commands_total") for name, _ in samples(second))


def test_a_sender_cannot_make_labels() -> None:
    metrics = Metrics("1", [ACTION])
    for number in range(500):
        metrics.command_finished(f"action-{number}", "REJECTED", f"code-{number}", 0, None)
    labels = {labels for name, labels in samples(metrics) if name == "relay_agent_commands_total"}
    assert len(labels) == 129
    assert {dict(label)["action"] for label in labels} == {"other"}


def test_an_event_that_never_happened_has_no_timestamp() -> None:
    metrics = Metrics("1", [])
    metrics.watch(moments=dict)
    assert not any("timestamp" in name for name, _ in samples(metrics))


def test_each_certificate_has_the_time_of_its_end_and_without_one_there_is_no_such_metric() -> None:
    metrics = Metrics("1", [])
    assert b"certificate" not in metrics.render()
    metrics.watch(certificates=lambda: {("target", "lims.lab.example:443"): 1.5, ("ca", 'ca.pem (CN="x")'): 2.5})
    assert {labels: value for (name, labels), value in samples(metrics).items() if "certificate" in name} == {
        (("name", "lims.lab.example:443"), ("role", "target")): 1.5,
        (("name", 'ca.pem (CN="x")'), ("role", "ca")): 2.5,
    }


def test_a_number_that_cannot_be_read_leaves_the_others_on_the_page() -> None:
    metrics = Metrics("1", [])
    metrics.watch(queue_depth=lambda: 1 // 0, workers=lambda: 4)
    found = {name for name, _ in samples(metrics)}
    assert "relay_agent_workers" in found and "relay_agent_queue_depth" not in found


def test_system_metrics_are_one_data_point_a_line(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    text = system_metrics(Clock(now=lambda: now), psutil.Process(), tmp_path).decode()
    points = [json.loads(line) for line in text.splitlines()]
    assert text.endswith("\n")
    assert {point["name"]: point["unit"] for point in points} == {
        "cpu_usage": "Percent",
        "memory_total": "Bytes",
        "memory_used": "Bytes",
        "disk_total": "Bytes",
        "disk_used": "Bytes",
        "process_cpu_usage": "Percent",
        "process_memory_used": "Bytes",
        "process_threads": "Count",
        "process_uptime": "Seconds",
    }
    for point in points:
        assert isinstance(point["point"]["value"], (int, float))
        assert datetime.fromisoformat(point["point"]["time"]).utcoffset() is not None
    values = {point["name"]: point["point"]["value"] for point in points}
    assert 0 < values["memory_used"] < values["memory_total"]
    assert values["process_threads"] >= 1


def test_values_that_the_system_does_not_give_are_left_out(tmp_path: Path) -> None:
    text = system_metrics(Clock(), psutil.Process(), tmp_path / "gone").decode()
    names = {json.loads(line)["name"] for line in text.splitlines()}
    assert "disk_total" not in names and "memory_total" in names
