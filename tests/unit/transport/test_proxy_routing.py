"""Which proxy serves a call of which leg."""

from __future__ import annotations

import pytest

from relay_agent.core.urls import parse_url
from relay_agent.transport.proxy import Proxy, parse_proxy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter, Route
from tests.unit.transport.scenes import SHARED, route


def test_without_settings_a_call_is_direct() -> None:
    assert route("http://h/") == Route(None, "no proxy is set for http")


def test_each_scheme_has_its_proxy_and_all_proxy_is_for_the_rest() -> None:
    shared = {"http_proxy": "http://a:1", "all_proxy": "socks5h://b:2"}
    assert route("http://h/", **shared) == Route(Proxy("http", "a", 1), "http_proxy")
    assert route("https://h/", **shared) == Route(Proxy("socks5h", "b", 2), "all_proxy")
    assert route("https://h/", http_proxy="http://a:1") == Route(None, "no proxy is set for https")


@pytest.mark.parametrize("leg", list(Leg))
def test_shared_variables_apply_to_both_legs(leg: Leg) -> None:
    assert route("https://h/", leg=leg, https_proxy=SHARED).proxy == parse_proxy(SHARED)


@pytest.mark.parametrize("leg, other", [(Leg.TARGET, Leg.PLATFORM), (Leg.PLATFORM, Leg.TARGET)])
def test_a_legs_own_proxy_replaces_the_shared_one_for_that_leg_only(leg: Leg, other: Leg) -> None:
    proxies = ProxyRouter({"https_proxy": SHARED}, "", {leg: "socks5h://own:1"})
    url = parse_url("https://h/")
    assert proxies.route(leg, url) == Route(Proxy("socks5h", "own", 1), f"RELAY_{leg.name}_PROXY")
    assert proxies.route(other, url).reason == "https_proxy"


def test_none_makes_a_leg_direct() -> None:
    found = route("https://h/", replaced={Leg.TARGET: "None"}, https_proxy=SHARED)
    assert found == Route(None, "RELAY_TARGET_PROXY is set to `none`")


def test_no_proxy_applies_to_a_legs_own_proxy_too() -> None:
    found = route("https://x.lab.example/", ".lab.example", replaced={Leg.TARGET: "http://own:1"})
    assert found == Route(None, "no_proxy names .lab.example")
