"""Which proxy and which trusted roots serve a call: one answer for both legs (SECURITY §1).

This room owns the choice of a route, and the TLS contexts. It must not open a connection or resolve a
name. `no_proxy` holds for whichever proxy a leg has: for the shared ones and for the one that
RELAY_PLATFORM_PROXY or RELAY_TARGET_PROXY puts in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from relay_agent.core.models import Url
from relay_agent.transport.no_proxy import find_entry, parse_no_proxy
from relay_agent.transport.proxy import Proxy, parse_proxy


class Leg(StrEnum):
    """The agent's two sides: the platform (REST, SQS, S3, CloudWatch, payload URLs), and what commands ask for."""

    PLATFORM = "platform"
    TARGET = "target"


@dataclass(frozen=True, slots=True)
class Route:
    """How a call leaves: through `proxy`, or directly where it is None; `reason` says which setting made it so."""

    proxy: Proxy | None
    reason: str


class ProxyRouter:
    """The proxy settings, read once.

    `shared` are proxy URLs by the variable that gives them (`http_proxy`, `https_proxy`, `all_proxy`),
    `replaced` those of one leg; `none` stands for a direct call.
    """

    def __init__(self, shared: Mapping[str, str], no_proxy: str = "", replaced: Mapping[Leg, str] | None = None) -> None:
        self._shared = {name: _proxy_or_none(text) for name, text in shared.items()}
        self._replaced = {leg: _proxy_or_none(text) for leg, text in (replaced or {}).items()}
        self._no_proxy = parse_no_proxy(no_proxy)

    def route(self, leg: Leg, url: Url) -> Route:
        """Resolve how a URL is called on a leg; the only place where that is decided."""
        name, proxy = self._chosen(leg, url.scheme)
        if proxy is None:
            return Route(None, f"{name} is none" if name else f"no proxy is set for {url.scheme}")
        entry = find_entry(self._no_proxy, url)
        return Route(None, f"no_proxy names {entry.text}") if entry else Route(proxy, name)

    def _chosen(self, leg: Leg, scheme: str) -> tuple[str, Proxy | None]:
        """Give the variable that decides, empty where none is set, and its proxy."""
        if leg in self._replaced:
            return f"RELAY_{leg.name}_PROXY", self._replaced[leg]
        for name in (f"{scheme}_proxy", "all_proxy"):
            if name in self._shared:
                return name, self._shared[name]
        return "", None


def _proxy_or_none(text: str) -> Proxy | None:
    return None if text.lower() == "none" else parse_proxy(text)
