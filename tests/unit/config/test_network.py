"""The settings, made into a choice of proxies."""

from __future__ import annotations

import pytest

from relay_agent.config.network import proxy_router
from relay_agent.config.settings import Settings
from relay_agent.core.urls import parse_url
from relay_agent.transport.proxy import Proxy
from relay_agent.transport.proxy_routing import Leg, Route


def test_settings_give_the_proxies_of_both_legs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    required = {"API_TARGET": "https://api.lab.example", "ORG_SLUG": "acme", "AGENT_ID": "a", "JWT": "x.y.z"}
    given_ = {"HTTPS_PROXY": "p:1", "NO_PROXY": "n.example", "RELAY_PLATFORM_PROXY": "none", "RELAY_TARGET_PROXY": ""}
    for name, value in {**required, **given_}.items():
        monkeypatch.setenv(name, value)
    proxies = proxy_router(Settings(_env_file=None))
    assert proxies.route(Leg.TARGET, parse_url("https://h/")) == Route(Proxy("http", "p", 1), "https_proxy")
    assert proxies.route(Leg.TARGET, parse_url("https://n.example/")).reason == "no_proxy names n.example"
    assert proxies.route(Leg.PLATFORM, parse_url("https://h/")).reason == "RELAY_PLATFORM_PROXY is set to `none`"
