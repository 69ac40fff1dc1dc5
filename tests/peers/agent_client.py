"""The agent as a client: its own decoding, Executor and Transport, and the sender's reading of the answer."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

from relay_agent.core.callbacks import nothing
from relay_agent.pipelines.encoding import Answer
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.storage.spool import Spool
from relay_agent.transport.connection_pool import ConnectionPool
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import Leg, ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.target_settings import CallRules
from relay_agent.transport.tls import TlsContexts
from tests.contract.relaying import run
from tests.peers.outcome import Kind, Result, grouped
from tests.peers.script import Ask, Script

_KINDS: dict[str, Kind] = {
    "EBADRESPONSE": "bad",
    "ERESPONSETOOLARGE": "bad",
    "ECONNRESET": "reset",
    "EPIPE": "reset",
    "ETIMEDOUT": "timeout",
    "ETOOMANYREDIRECTS": "redirects",
    "ECONNREFUSED": "refused",
    "EPROTO": "tls",
    "CERT_HAS_EXPIRED": "tls",
    "DEPTH_ZERO_SELF_SIGNED_CERT": "tls",
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": "tls",
    "ERR_TLS_CERT_ALTNAME_INVALID": "tls",
}


class Agent:
    """Ours."""

    name = "agent"

    def __init__(self, authority: Path, limit_seconds: float) -> None:
        self._dialer = Dialer(TlsContexts(ca_file=authority), Resolver())
        self._limit = limit_seconds

    def run(self, script: Script, port: int) -> list[Result]:
        """Run each request as a command, on one worker."""
        proxy = f"http://127.0.0.1:{port}" if script.tunnel else "none"
        pool = ConnectionPool()
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            proxies = ProxyRouter({}, "", {Leg.TARGET: proxy})
            executor = Executor(Transport(self._dialer, pool), lambda: CallRules(Policy()), proxies, Limits(), directory)
            try:
                return [self._one(executor, Spool(directory), script, ask, port) for ask in script.asks]
            finally:
                executor.close()
                pool.close()

    def _one(self, executor: Executor, spool: Spool, script: Script, ask: Ask, port: int) -> Result:
        scheme = "http" if script.tls is None else "https"
        payload: dict[str, Any] = {"method": ask.method, "url": f"{scheme}://{ask.at}:{port}{ask.path}"}
        if script.tunnel:
            payload["url"] = f"https://target.example{ask.path}"
        if ask.body:
            payload["body"] = {"mode": "base64", "base64": base64.b64encode(ask.body).decode()}
        if ask.host is not None:
            payload["headers"] = [{"Host": ask.host}]
        reported = run(executor, payload, self._limit, nothing, spool)
        if "statusCode" not in reported:
            return Result(_KINDS.get(reported["code"], "other"), detail=f"{reported['code']}: {reported['message']}")
        answer = Answer("", reported["status"], reported)
        return Result("answer", reported["statusCode"], grouped(answer.headers(), port), answer.content())
