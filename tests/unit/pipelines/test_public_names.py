"""What `relay_agent.pipelines` exports."""

from __future__ import annotations

import pytest

import relay_agent.pipelines
from relay_agent.pipelines.requests_adapter import RelayAdapter

NAMES = ["Answer", "CommandClient", "ContextClient", "Keyring", "NoAnswer", "RelayAdapter", "relay_session"]


def test_every_name_can_be_had_and_is_listed() -> None:
    assert relay_agent.pipelines.__all__ == NAMES
    assert set(NAMES) <= set(dir(relay_agent.pipelines))
    assert relay_agent.pipelines.RelayAdapter is RelayAdapter
    names: dict[str, object] = {}
    exec("from relay_agent.pipelines import *", names)
    assert set(NAMES) <= names.keys()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = relay_agent.pipelines.nonsense
