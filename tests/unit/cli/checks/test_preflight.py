"""The plan of `relay-agent check`: its order, its waits and its bounds are those that are documented."""

from __future__ import annotations

from relay_agent.cli.checks import preflight
from relay_agent.cli.checks.preflight import CHECK_IDS, Bounds
from relay_agent.core.clock import Clock
from relay_agent.telemetry import redaction
from tests.pages import ROOT, names, rows, section
from tests.unit.cli.checks.scenes import settings


def test_the_documented_checks_are_those_of_the_code_in_their_order() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert tuple(names(row[0])[0] for row in rows(section(text, "Checks"), "check")) == CHECK_IDS


def test_the_documented_dependencies_are_those_of_the_plan() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    reported = {names(row[0])[0]: set(names(row[1])) for row in rows(section(text, "Checks"), "check")}
    steps = preflight._steps(settings(), frozenset(), ["http://h/"], Bounds(), Clock(), redaction.Redactor())
    assert {step.id: set(step.waits_for) for step in steps if step.waits_for} == {name: waits for name, waits in reported.items() if waits}


def test_the_sequential_checks_of_a_hanging_network_fit_into_30_s() -> None:
    bounds = Bounds()
    longest = 3 * (bounds.call + bounds.margin)  # platform, credentials, sqs
    assert max(longest, bounds.target + bounds.margin, bounds.local) <= bounds.whole < 29.5
