"""Values shared by the tests of `transport`."""

from __future__ import annotations

from relay_agent.core.urls import parse_url
from relay_agent.transport.proxy_routing import Leg, ProxyRouter, Route

SHARED = "http://shared.lab.example:3128"


def route(url: str, no_proxy: str = "", leg: Leg = Leg.TARGET, replaced: dict[Leg, str] | None = None, **shared: str) -> Route:
    return ProxyRouter(shared, no_proxy, replaced).route(leg, parse_url(url))
