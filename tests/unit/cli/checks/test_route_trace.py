"""The stages of a walk to a URL are those that are documented."""

from __future__ import annotations

import re

from relay_agent.cli.checks.route_trace import STAGES
from relay_agent.core.failures import Phase
from tests.pages import ROOT, names, rows, section

WRITERS = ("checks/route_trace.py", "checks/target_check.py", "diagnose.py")
"""The modules that name stages."""


def test_the_documented_stages_are_those_of_the_walk() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    reported = {name for row in rows(section(text, "Explain"), "stage") for name in names(row[0])}
    sources = [(ROOT / "relay_agent" / "cli" / name).read_text(encoding="utf-8") for name in WRITERS]
    literal = {name for source in sources for name in re.findall(r'(?:\bStage\(|_fail\(found, )"([a-z-]+)"', source)}
    assert {"policy", "http"} <= literal
    assert reported == {*STAGES.values(), *literal}
    assert set(STAGES) == {phase for phase in Phase if not phase.sent}  # A walk sends nothing.
