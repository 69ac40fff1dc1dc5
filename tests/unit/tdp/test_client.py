"""The platform's client: what it does when a call of several is refused."""

from __future__ import annotations

import json

from relay_agent.core.clock import Clock
from relay_agent.core.models import Body, Headers
from relay_agent.tdp.client import Listeners, PlatformClient
from relay_agent.tdp.platform_http import MAX_ANSWER, Answer, PlatformHttp
from relay_agent.tdp.rest import AgentIdentity
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.unit.tdp.scenes import NOW, TOKEN


def test_a_token_that_may_not_ask_whether_the_agent_is_enabled_gets_its_configuration() -> None:
    class Refusing(PlatformHttp):
        def send(self, method: str, url: str, headers: Headers, body: Body | None, seconds: float, max_bytes: int = MAX_ANSWER) -> Answer:
            answer = {"agentName": "a", "region": "eu-west-1", "rpcSourceQueueUrl": "https://in", "rpcPlatformQueueUrl": "https://out"}
            return Answer(403, (), b"") if method == "GET" else Answer(200, (), json.dumps(answer).encode())

    client = PlatformClient(
        Refusing(lambda: Transport(Dialer(TlsContexts(), Resolver())), ProxyRouter({}), Policy()),
        AgentIdentity("http://platform.example", "org", "agent-1", lambda: TOKEN),
        Listeners(lambda _key, _secret: None),
        clock=Clock(now=lambda: NOW),
        endpoint_url=None,
        max_body_bytes=1000,
    )
    assert client.refresh_config()
    assert client.inbound().url == "https://in"
