"""What an administrator sets for calls to some targets: the `[[target]]` tables of the policy file (docs/policy.md).

This module owns the values and which table is a target's. It must not read files; `config.policy_file` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay_agent.core.models import Headers
from relay_agent.core.urls import literal_address
from relay_agent.transport.authentication import Credentials
from relay_agent.transport.host_patterns import HostPatterns
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import Route
from relay_agent.transport.tls import TlsContexts


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """The settings of one table. A field that is None leaves the agent's own setting in force; `name` is as people see the table."""

    name: str = ""
    hosts: HostPatterns = field(default_factory=HostPatterns)
    group: str = ""
    """What `max_concurrency` counts by: the hosts as text. A table's number in the file, and so its name, changes with other tables."""
    tls: TlsContexts | None = None
    allow_ignore_tls: bool = True
    route: Route | None = None
    max_concurrency: int | None = None
    timeout_seconds: float | None = None
    max_response_bytes: int | None = None
    headers: Headers = field(default=(), repr=False)
    """Fields to add, in place of the command's own of these names; their values may be secrets that senders do not have."""
    redirect_headers: frozenset[str] = frozenset()
    """Names, in lower case, of fields that may be sent on to another origin."""
    auth: Credentials | None = None
    """What answers a target's 401."""
    proxy_auth: Credentials | None = None
    """What answers an HTTP proxy's 407."""

    def match(self, host: str) -> bool:
        """Return whether these are the settings for a host: as it is written in the URL, not by what a name resolves to."""
        address = literal_address(host)
        return self.hosts.match_name(host) or (address is not None and self.hosts.all_within((address,)))


NO_SETTINGS = TargetSettings()


@dataclass(frozen=True, slots=True)
class CallRules:
    """Everything that an administrator decides about calls to targets: which are allowed, and how they are made."""

    policy: Policy
    targets: Sequence[TargetSettings] = ()

    def target(self, host: str) -> TargetSettings:
        """Return the settings for a host: the first table that matches, or NO_SETTINGS."""
        return next((settings for settings in self.targets if settings.match(host)), NO_SETTINGS)
