"""docs/monitoring as data: the alerts, the dashboard's panels, and the metrics that an expression names.

Only reads them; the tests that use this module say what must be true of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.pages import ROOT

MONITORING = ROOT / "docs" / "monitoring"
ALERTS = MONITORING / "alerts.yml"
README = (MONITORING / "README.md").read_text(encoding="utf-8")


def alerts() -> list[dict[str, Any]]:
    """The alert rules, in order."""
    return [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, without the rows that part them."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every expression of the dashboard, in order."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def filled(expression: str) -> str:
    """An expression as Grafana sends it."""
    return expression.replace("$__rate_interval", "2m").replace("$job", ".+").replace("$agent", ".+")


def metrics(expression: str) -> Iterator[str]:
    """The metrics that an expression names, but for Prometheus' own `up`."""
    yield from (name for name in re.findall(r"\brelay_agent_\w+", expression))
