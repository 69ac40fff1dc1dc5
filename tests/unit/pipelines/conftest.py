"""Fixtures that the tests of `pipelines` share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from relay_agent.pipelines.client import CommandClient
from relay_agent.pipelines.requests_adapter import RelayAdapter
from tests.sender_side import AGENT, TOKEN, Platform


@pytest.fixture
def plain() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def client(served: tuple[Platform, str], plain: requests.Session) -> CommandClient:
    return CommandClient(f"{served[1]}/v1/", "acme", TOKEN, AGENT, plain)


@pytest.fixture
def relayed(client: CommandClient) -> Iterator[requests.Session]:
    """A session as a pipeline would mount it."""
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, RelayAdapter(client))
        yield session
