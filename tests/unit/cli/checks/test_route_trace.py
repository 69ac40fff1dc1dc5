"""The stages of a walk to a URL are those that are documented."""

from __future__ import annotations

from relay_agent.cli.checks.route_trace import STAGES
from relay_agent.core.failures import Phase
from tests.pages import ROOT, names, rows, section


def test_the_documented_stages_are_those_of_the_walk() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    told = {name for row in rows(section(text, "Explain"), "stage") for name in names(row[0])}
    assert told == {*STAGES.values(), "policy", "proxy", "http", "request", "configuration"}
    assert set(STAGES) == {phase for phase in Phase if not phase.sent}  # A walk sends nothing.
