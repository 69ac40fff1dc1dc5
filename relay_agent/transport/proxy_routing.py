"""Which proxy serves a call; the only place that decides it.

`no_proxy` applies to the shared proxies, and equally to RELAY_PLATFORM_PROXY and RELAY_TARGET_PROXY, which replace them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from relay_agent.core.models import Url
from relay_agent.transport.no_proxy import find_entry, parse_no_proxy
from relay_agent.transport.proxy import Proxy, parse_proxy


class Leg(StrEnum):
    """The two sides that the agent calls: the platform (REST, SQS, S3, CloudWatch, payload URLs), and the targets of commands."""

    PLATFORM = "platform"
    TARGET = "target"


@dataclass(frozen=True, slots=True)
class Route:
    """How a call is made: through `proxy`, or directly if it is None. `reason` names the setting that decides."""

    proxy: Proxy | None
    reason: str


class ProxyRouter:
    """Chooses proxies by the settings.

    `shared` has proxy URLs by their variable (`http_proxy`, `https_proxy`, `all_proxy`), `replaced` those of one leg; `none` means
    a direct call.
    """

    def __init__(self, shared: Mapping[str, str], no_proxy: str = "", replaced: Mapping[Leg, str] | None = None) -> None:
        self._shared = {name: _proxy_or_none(text) for name, text in shared.items()}
        self._replaced = {leg: _proxy_or_none(text) for leg, text in (replaced or {}).items()}
        self._no_proxy = parse_no_proxy(no_proxy)

    def route(self, leg: Leg, url: Url) -> Route:
        """Return how a URL is called on a leg."""
        name, proxy = self._chosen(leg, url.scheme)
        if proxy is None:
            return Route(None, f"{name} is set to `none`" if name else f"no proxy is set for {url.scheme}")
        entry = find_entry(self._no_proxy, url)
        return Route(None, f"no_proxy names {entry.text}") if entry else Route(proxy, name)

    def _chosen(self, leg: Leg, scheme: str) -> tuple[str, Proxy | None]:
        """Return the variable that decides (empty if none is set) and its proxy."""
        if leg in self._replaced:
            return f"RELAY_{leg.name}_PROXY", self._replaced[leg]
        for name in (f"{scheme}_proxy", "all_proxy"):
            if name in self._shared:
                return name, self._shared[name]
        return "", None


def _proxy_or_none(text: str) -> Proxy | None:
    return None if text.lower() == "none" else parse_proxy(text)
