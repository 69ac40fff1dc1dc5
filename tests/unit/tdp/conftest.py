"""Fixtures that the tests of `tdp` share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from relay_agent.core.clock import Clock
from relay_agent.tdp.platform_http import PlatformHttp
from relay_agent.tdp.rest import AgentIdentity, Rest
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.tls import TlsContexts
from tests.unit.tdp.scenes import NOW, TOKEN, Server, handler


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(found)) as listening:
        listening.daemon_threads = True
        listening.block_on_close = False
        found.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield found
        listening.shutdown()
        thread.join(5)


@pytest.fixture
def http() -> Iterator[PlatformHttp]:
    dialer = Dialer(TlsContexts(), Resolver())
    made = PlatformHttp(lambda: Transport(dialer), ProxyRouter({}), Policy())
    yield made
    made.close()


@pytest.fixture
def rest(server: Server, http: PlatformHttp) -> Rest:
    return Rest(http, AgentIdentity(server.url, "org", "agent-1", lambda: TOKEN), Clock(now=lambda: NOW))
