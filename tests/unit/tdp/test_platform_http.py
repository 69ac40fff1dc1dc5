"""What stands between the agent and the platform: proxies, certificates, no answer at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay_agent.core.clock import Clock
from relay_agent.core.errors import (
    PlatformError,
    PlatformUnreachable,
)
from relay_agent.diagnostics import local_causes
from relay_agent.diagnostics.platform_causes import cause_of
from relay_agent.tdp.platform_http import PlatformHttp
from relay_agent.tdp.rest import AgentIdentity, Rest
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts, default_roots
from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import HttpProxy
from tests.targets import ByteTarget
from tests.unit.tdp.scenes import NOW, TOKEN


def test_a_proxy_that_requires_a_login_is_named_without_its_password_for_plain_http_too() -> None:
    dialer = Dialer(TlsContexts(), Resolver())
    with HttpProxy(auth=("lab", "right")) as proxy:
        http = PlatformHttp(lambda: Transport(dialer), ProxyRouter({"http_proxy": proxy.url(("lab", "canary-wrong"))}), Policy())
        rest = Rest(http, AgentIdentity("http://api.lab.example", "org", "agent-1", lambda: TOKEN), Clock(now=lambda: NOW))
        with pytest.raises(PlatformUnreachable) as caught:
            rest.heartbeat()
        http.close()
    reported = cause_of(caught.value).cause
    assert reported.startswith(f"the proxy http://lab:***@127.0.0.1:{proxy.port}, not the platform, answered 407")
    assert "canary" not in f"{caught.value}{reported}"


@pytest.mark.parametrize(
    ("fault", "says", "cure"),
    [
        ("unknown_authority", "was issued by OU=Testing CA", "RELAY_CA_FILE"),
        ("self_signed", "is self-signed (CN=a device that signed itself)", "RELAY_CA_FILE"),
        ("wrong_host", "is valid for other names only: elsewhere.lab.example", "API_TARGET"),
        ("expired", "has expired on 20", local_causes.CLOCK_OFF.cure),
        ("not_yet_valid", "is not valid yet (it is valid from 20", local_causes.CLOCK_OFF.cure),
    ],
)
def test_a_rejected_certificate_is_described_in_the_error_and_fetched_once(tmp_path: Path, fault: Any, says: str, cure: str) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(ca_pem())
    dialer = Dialer(TlsContexts(trusted=default_roots(None if fault == "unknown_authority" else bundle, None, "these")), Resolver())
    with ByteTarget(server_context(fault)) as target:
        http = PlatformHttp(lambda: Transport(dialer), ProxyRouter({}), Policy())
        rest = Rest(http, AgentIdentity(target.url(""), "org", "agent-1", lambda: TOKEN), Clock(now=lambda: NOW))
        for _ in range(3):
            with pytest.raises(PlatformUnreachable) as caught:
                rest.heartbeat()
            reported = cause_of(caught.value)
            assert says in reported.cause
            assert cure in reported.cure
        http.close()
        assert target.requests == []
        assert target.connections == 4


def test_a_platform_that_cannot_be_reached_is_a_platform_error_without_status(http: PlatformHttp) -> None:
    rest = Rest(http, AgentIdentity("http://nowhere.invalid", "org", "agent-1", lambda: TOKEN), Clock())
    with pytest.raises(PlatformError, match="ENOTFOUND") as caught:
        rest.heartbeat()
    assert caught.value.status is None
