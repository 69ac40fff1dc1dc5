"""The output of `check --nagios`: one line and an exit code as plugins of Nagios, Icinga and their like have them.

Owns that form (docs/monitoring/README.md, "Nagios and Icinga"). It must not check anything itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from relay_agent.agent.admin.client import NoAgent, NoAnswer, ask_status
from relay_agent.cli.checks.result import Check, Status
from relay_agent.diagnostics.causes import SOON_DAYS
from relay_agent.storage.state_directory import SOCKET

NAME = "RELAY AGENT"
MAX_CHARACTERS = 1000
"""Length of the text before the performance data: Nagios and NRPE cut long output."""
ASK_SECONDS = 5.0
CRITICAL_DAYS = 3
"""The token's remaining days below which the alert rules are critical."""


class State(IntEnum):
    """The exit code of a plugin (the Monitoring Plugins' guidelines)."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """What the agent on the state directory says: `status.json`, or None and why there is none."""

    status: dict[str, Any] | None
    obstacle: str = ""
    absent: bool = False
    """Whether no agent runs there."""


def look(state_dir: Path) -> RunningAgent:
    """Ask the running agent for its status."""
    try:
        return RunningAgent(ask_status(state_dir, ASK_SECONDS))
    except NoAgent:
        return RunningAgent(None, f"no agent runs on {state_dir}", absent=True)
    except PermissionError:
        return RunningAgent(None, f"{state_dir / SOCKET} belongs to another user")
    except NoAnswer as error:
        return RunningAgent(None, str(error))


def unknown(reason: str) -> tuple[State, str]:
    """Return the state and the line of a check that could not be made."""
    return State.UNKNOWN, _line(State.UNKNOWN, reason, [])


def plugin_output(checks: Sequence[Check], agent: RunningAgent, now: datetime, seconds: float) -> tuple[State, str]:
    """Return the state and the line for the checks and the running agent; both must be well.

    An agent that does not run or is not ready is critical, as a check with an error is. An invalid configuration alone is unknown: the
    agent runs, so the plugin was probably started with other settings.
    """
    errors = [check for check in checks if check.status is Status.ERROR and check.id != "configuration"]
    unusable = [check for check in checks if check.status is Status.ERROR and check.id == "configuration"]
    warnings = [check for check in checks if check.status is Status.WARNING and not check.optional]
    reasons = [*_of_agent(agent), *(f"{check.id}: {check.summary}" for check in [*errors, *unusable, *warnings])]
    if errors or agent.absent or _unready(agent):
        state = State.CRITICAL
    elif unusable or agent.status is None:
        state = State.UNKNOWN
    else:
        state = State.WARNING if warnings else State.OK
    cure = next((check.cure for check in [*errors, *unusable, *warnings] if check.cure), None)
    if reasons and cure:
        reasons.append(f"cure: {cure}")
    passed = sum(check.status is Status.OK for check in checks)
    text = "; ".join(reasons) or f"the agent is ready, {passed} checks passed"
    counts = [f"errors={len(errors) + len(unusable)};;0;0", f"warnings={len(warnings)};0;;0", f"time={seconds:.2f}s;;;0;30"]
    return state, _line(state, text, [*counts, *_of_status(agent.status or {}, now)])


def _unready(agent: RunningAgent) -> bool:
    return agent.status is not None and agent.status.get("state") != "ready"


def _of_agent(agent: RunningAgent) -> list[str]:
    if agent.status is None:
        return [agent.obstacle]
    return [str(agent.status.get("sentence", "the agent is not ready")).rstrip(".")] if _unready(agent) else []


def _of_status(status: dict[str, Any], now: datetime) -> list[str]:
    """Return the performance data of the running agent: `label=value[unit];warning;critical;minimum;maximum`."""
    data = []
    for label, part, name, most in (("waiting", "queue", "waiting", "capacity"), ("busy", "workers", "busy", "total")):
        if isinstance(values := status.get(part), dict) and name in values:
            data.append(f"{label}={values[name]};;;0;{values.get(most, '')}")
    if "untold" in status:
        data.append(f"unsent={status['untold']};;;0")
    if isinstance(journal := status.get("journal"), dict) and "bytes" in journal:
        data.append(f"journal={journal['bytes']}B;;;0")
    for label, name in (("last_receive", "lastReceive"), ("last_heartbeat", "lastHeartbeat")):
        if status.get(name):
            data.append(f"{label}={max(0, int(_seconds_since(status[name], now)))}s;;;0")
    if status.get("tokenEnds"):
        days = int(-_seconds_since(status["tokenEnds"], now) // 86_400)
        data.append(f"token_days={days};{SOON_DAYS}:;{CRITICAL_DAYS}:")
    return data


def _seconds_since(moment: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(moment)).total_seconds()


def _line(state: State, text: str, data: list[str]) -> str:
    # A bar begins the performance data, and a line's end ends the output.
    plain = " ".join(text.replace("|", "/").split())
    cut = plain if len(plain) <= MAX_CHARACTERS else plain[: MAX_CHARACTERS - 3] + "..."
    return f"{NAME} {state.name} - {cut}" + (f" | {' '.join(data)}" if data else "")
