"""The plan of `relay-agent check`: all checks, their order, what each waits for, and how long each may take.

It must not check anything itself: `local_checks`, `platform_checks` and `target_check` do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from relay_agent.cli.checks.local_checks import configuration, secure_key, state_dir, token, usable
from relay_agent.cli.checks.platform_checks import PlatformChecks
from relay_agent.cli.checks.result import Check, Status
from relay_agent.cli.checks.running_agent import add_reported, reported_problems
from relay_agent.cli.checks.scheduler import Step, run_steps
from relay_agent.cli.checks.syslog_check import syslog
from relay_agent.cli.checks.target_check import check_target, shown
from relay_agent.config.loading import BOTH_LEGS_SETTINGS, ROUTE_SETTINGS, debugging
from relay_agent.config.network import SYSLOG_SETTINGS, load_rules
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Clock
from relay_agent.core.errors import ConfigurationError
from relay_agent.core.loop import call_in_thread
from relay_agent.core.urls import BadUrl, parse_url
from relay_agent.telemetry.redaction import Redactor, proxy_secrets
from relay_agent.telemetry.secret_patterns import MASK

CHECK_IDS = (
    "configuration",
    "token",
    "clock",
    "state-dir",
    "platform",
    "access",
    "agent",
    "enabled",
    "queue",
    "credentials",
    "sqs",
    "cloudwatch",
    "syslog",
    "secure-key",
    "target",
)
"""In the order of the report (docs/operations.md, "Checks")."""
_NEEDS: dict[str, Collection[str]] = {
    "token": {"jwt", "jwt_file"},
    "state-dir": {"state_dir"},
    "platform": {"api_target", "platform_proxy", *BOTH_LEGS_SETTINGS},
    "access": {"org_slug", "jwt", "jwt_file"},
    "agent": {"agent_id"},
    "sqs": {"aws_endpoint_url"},
    "cloudwatch": {"aws_endpoint_url"},
    "syslog": SYSLOG_SETTINGS,
    "secure-key": {"secure_command_key", "secure_command_key_file"},
    "target": ROUTE_SETTINGS,
}
"""The settings that a check needs, besides those of the checks that it waits for. Whether the platform can be reached is checked without
a token, whether it accepts the token without an agent's id."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Time limits in seconds. On a hanging network platform, credentials and SQS run one after the other, together within `whole`."""

    call: float = 8.0
    """One call to the platform; each of the two calls for credentials may take half of it."""
    target: float = 15.0
    local: float = 10.0
    margin: float = 1.0
    """How far a check may exceed its limit before it counts as hanging."""
    whole: float = 28.5


def check_all(
    env_file: Path | None,
    targets: Sequence[str] = (),
    *,
    named: bool = False,
    ask_agent: bool = True,
    bounds: Bounds | None = None,
    clock: Clock | None = None,
) -> list[Check]:
    """Run all checks: the settings first, then all others in parallel, unless one waits for another.

    If an agent runs on the state directory, and `ask_agent`, the problems that it reports override checks that passed.
    """
    limits = bounds or Bounds()
    clock = clock or Clock()
    settings, first = configuration(env_file, named, clock.now)
    wrong: frozenset[str] = frozenset()
    if settings is None:
        settings, wrong = usable(env_file, named)
    redactor = Redactor()
    steps = [Step("configuration", lambda: first), *_steps(settings, wrong, targets, limits, clock, redactor)]
    steps.sort(key=lambda step: CHECK_IDS.index(step.id))
    asking = call_in_thread(
        lambda: [] if not ask_agent or settings is None or "state_dir" in wrong else reported_problems(settings.state_dir), "agent-at-work"
    )
    found = run_steps(steps, limits.whole, debug=debugging())
    wait([asking], limits.margin)
    reported = asking.result() if asking.done() else []
    return [check.without(redactor.known) for check in add_reported(found, reported)]


def secrets_of(settings: Settings) -> Redactor:
    """Return a redactor for all secrets in the settings, so that no text shows one."""
    redactor = Redactor()
    _know(redactor, settings)
    return redactor


def _know(redactor: Redactor, settings: Settings) -> None:
    redactor.add(settings.token.get(), *settings.secure_key.get().split(","))
    for proxy in settings.proxy_urls:
        redactor.add(*proxy_secrets(proxy))
    with contextlib.suppress(ConfigurationError):  # It has changed since the settings were read.
        redactor.add(*load_rules(settings).secrets)


def _steps(
    settings: Settings | None, wrong: frozenset[str], targets: Sequence[str], limits: Bounds, clock: Clock, redactor: Redactor
) -> list[Step]:
    """Return all steps but the first. A check whose settings are `wrong` waits for the configuration, and so is skipped."""
    if settings is None:
        return [*(Step(check_id, _never, ("configuration",)) for check_id in CHECK_IDS[1:-1]), *_target_steps(None, wrong, targets, limits)]
    _know(redactor, settings)
    platform = PlatformChecks(settings, clock=clock, seconds=limits.call, seen_secrets=redactor.add)
    call = limits.call + limits.margin

    def step(check_id: str, run: Callable[[], Check], *waits_for: str, bound: float = call) -> Step:
        ready = wrong.isdisjoint(_NEEDS.get(check_id, ()))
        return Step(check_id, run, waits_for if ready else ("configuration",), bound)

    return [
        step("token", lambda: token(settings, clock.now()), bound=limits.local),
        step("clock", platform.clock, "platform"),
        step("state-dir", partial(state_dir, settings.state_dir), bound=limits.local),
        step("platform", platform.platform),
        step("access", platform.access, "platform"),
        step("agent", platform.agent, "access"),
        step("enabled", platform.enabled, "agent"),
        step("queue", platform.queue, "agent"),
        step("credentials", platform.credentials, "enabled"),
        step("sqs", platform.sqs, "credentials", "queue"),
        step("cloudwatch", platform.cloudwatch, "credentials"),
        *([step("syslog", lambda: syslog(settings, clock.now, limits.call))] if settings.log_syslog else []),
        step("secure-key", lambda: secure_key(settings), bound=limits.local),
        *_target_steps(settings, wrong, targets, limits),
    ]


def _target_steps(settings: Settings | None, wrong: frozenset[str], targets: Sequence[str], limits: Bounds) -> list[Step]:
    def run(url: str) -> Check:
        assert settings is not None, "it waits for the configuration"
        return check_target(settings, url, limits.target)

    waits_for = () if settings is not None and wrong.isdisjoint(_NEEDS["target"]) else ("configuration",)
    return [Step("target", partial(run, url), waits_for, limits.target + limits.margin, about=_shown(url)) for url in targets]


def _shown(url: str) -> str:
    try:
        return shown(parse_url(url))
    except BadUrl:
        return MASK


def _never() -> Check:
    return Check("", Status.SKIPPED, "")
