"""Runs one peer against all three clients, and many peers in parallel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.peers.agent_client import Agent
from tests.peers.compare import Verdict, judge
from tests.peers.curl_client import Curl
from tests.peers.outcome import Client, Outcome
from tests.peers.requests_client import Requests
from tests.peers.script import Script
from tests.peers.stage import Stage, authority

SIDE_BY_SIDE = 12
PATIENCE_SECONDS, MORE_PATIENCE_SECONDS = 0.7, 2.5
LIMIT_SECONDS = 20.0
"""Longer than a peer waits, so that no client gives up by itself."""


@dataclass(frozen=True, slots=True)
class Trio:
    """The clients."""

    agent: Client
    curl: Client
    requests: Client

    def try_out(self, script: Script, patience_seconds: float = MORE_PATIENCE_SECONDS) -> Verdict:
        """Play the script for each, one after the other."""
        outcomes = [play(script, client, patience_seconds) for client in (self.agent, self.curl, self.requests)]
        return judge(script, *outcomes)

    def try_all(self, scripts: Iterable[Script]) -> list[Verdict]:
        """Play many side by side."""
        with ThreadPoolExecutor(SIDE_BY_SIDE, "peer") as pool:
            return list(pool.map(lambda script: self.try_out(script, PATIENCE_SECONDS), scripts))

    def confirmed(self, verdicts: Sequence[Verdict], differing: Iterable[Verdict]) -> list[Verdict]:
        """Play those that differed again, alone and with longer time limits, since a busy machine makes differences too."""
        again = {verdict.script.seed: self.try_out(verdict.script) for verdict in differing}
        return [again.get(verdict.script.seed, verdict) for verdict in verdicts]


@contextmanager
def trio() -> Iterator[Trio]:
    """The three clients, all of which trust the peers' authority."""
    with TemporaryDirectory() as name:
        ca = Path(name) / "ca.pem"
        ca.write_bytes(authority().cert_pem.bytes())
        yield Trio(Agent(ca, LIMIT_SECONDS), Curl(ca, LIMIT_SECONDS), Requests(ca, LIMIT_SECONDS))


def play(script: Script, client: Client, patience_seconds: float) -> Outcome:
    """Play the script for one client."""
    with Stage(script, patience_seconds) as stage:
        results = tuple(client.run(script, stage.port))
        if not any(reply.early for reply in script.replies):  # That peer reads nothing more until it is closed.
            stage.wait_idle(LIMIT_SECONDS)
    return Outcome(results, tuple(stage.seen), stage.connections, stage.waited)
