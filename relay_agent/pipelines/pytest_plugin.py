"""The pytest fixture `relay_session`, which comes with the package wherever pytest is.

Owns the fixture. It must not load the agent's code before a test asks for the fixture: every test run of the environment loads this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import requests


@pytest.fixture
def relay_session() -> Iterator[requests.Session]:
    """A session whose requests an agent in this process executes: as through a real agent, without a platform."""
    from relay_agent.pipelines.requests_adapter import relay_session as session_for
    from relay_agent.pipelines.testing import LocalAgent

    with session_for(LocalAgent()) as session:
        yield session
