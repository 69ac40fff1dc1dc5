"""What watches things around the agent that change by themselves, built from the parts of `wiring`; the loop of the thread `environment`.

It has a thread of its own so that the journal's upkeep waits neither for a long policy file nor for a disk of the site. This module starts
no thread: `thread_wiring` declares it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from relay_agent.agent.wiring import Network, Platform, Secrets, Telemetry
from relay_agent.config.certificate_files import certificates_of
from relay_agent.config.settings import Settings
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.certificates import FilesInUse
from relay_agent.diagnostics.environment_monitor import EnvironmentMonitor
from relay_agent.diagnostics.expiry_watch import ExpiryWatch
from relay_agent.diagnostics.loop_status import LoopStatus

STEP_SECONDS = 2.0
"""Pause between two looks."""


@dataclass(frozen=True, slots=True)
class Monitors:
    """What watches things around the agent that change by themselves."""

    environment: EnvironmentMonitor
    expiry: ExpiryWatch

    def step(self, status: LoopStatus) -> float:
        """Look again, and log what has changed; return the seconds to wait before the next step. `status` is the thread's."""
        status.begin("watching the settings' files and the clock")
        self.environment.look()
        self.expiry.look()
        status.success()
        return STEP_SECONDS

    def problems(self) -> list[Problem]:
        """Return what is wrong there now."""
        return [*self.environment.problems(), *self.expiry.problems()]


def build_monitors(settings: Settings, telemetry: Telemetry, secrets: Secrets, network: Network, platform: Platform) -> Monitors:
    """Build the monitors."""
    return Monitors(
        build_environment_monitor(settings, telemetry, secrets, network, platform),
        build_expiry_watch(settings, telemetry, secrets, network),
    )


def build_environment_monitor(
    settings: Settings, telemetry: Telemetry, secrets: Secrets, network: Network, platform: Platform
) -> EnvironmentMonitor:
    """Build the monitor of the secrets' files, the policy, this machine's clock and the reader of stdout."""
    policy = network.policy
    return EnvironmentMonitor(
        secrets={"JWT_FILE": settings.token, "SECURE_COMMAND_KEY_FILE": settings.secure_key},
        read=(secrets.token.get, secrets.keys.get, policy.refresh),
        policy_problem=lambda: policy.problem,
        clock_off=lambda: platform.client.rest.clock_off,
        stdout=telemetry.logs.output,
        log=telemetry.log,
        monotonic=telemetry.clock.monotonic,
    )


def build_expiry_watch(settings: Settings, telemetry: Telemetry, secrets: Secrets, network: Network) -> ExpiryWatch:
    """Build what watches the ends of the token and of the certificates in use."""
    files = FilesInUse(partial(certificates_of, settings), lambda: network.policy.loaded)
    return ExpiryWatch(
        certificates=lambda: [*files.in_use(), *network.peer_certificates.in_use()],
        token_ends=secrets.token_ends,
        log=telemetry.log,
        clock=telemetry.clock,
    )
