"""What `relay_agent.pipelines` exports, and what loading it loads and costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import relay_agent.pipelines
from relay_agent.pipelines.requests_adapter import RelayAdapter

NAMES = ["Answer", "CommandClient", "ContextClient", "Keyring", "NoAnswer", "RelayAdapter", "relay_session"]
USE = """from relay_agent.pipelines import CommandClient, ContextClient, Keyring, relay_session
relay_session(CommandClient('http://h', 'o', 'a.b.c', 'a'))"""


def alone(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True).stdout


def test_every_name_can_be_had_and_is_listed() -> None:
    assert relay_agent.pipelines.__all__ == NAMES
    assert set(NAMES) <= set(dir(relay_agent.pipelines))
    assert relay_agent.pipelines.RelayAdapter is RelayAdapter
    assert alone("from relay_agent.pipelines import *\nprint(relay_session.__name__)") == "relay_session\n"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = relay_agent.pipelines.nonsense


@pytest.mark.parametrize("program", ["import relay_agent.pipelines", USE])
def test_it_loads_nothing_that_only_the_agent_needs(program: str) -> None:
    unwanted = {"pydantic", "structlog", "click", "boto3", "botocore", "jwt", "Crypto", "asyncio", "sqlite3", "pytest", "httpx"}
    loaded = set(alone(f"{program}\nimport sys\nprint(*sys.modules)").split())
    assert unwanted & loaded == set()
    assert not [name for name in loaded if name.startswith(("relay_agent.relay", "relay_agent.transport", "relay_agent.config"))]


def ratio(statement: str) -> float:
    """How much more of the processor's time it takes than `import requests`: the least of some runs of each, in turn."""
    measured: dict[str, list[float]] = {statement: [], "import requests": []}
    for _ in range(7):
        for program, found in measured.items():
            found.append(float(alone(f"import time\nbegan = time.process_time()\n{program}\nprint(time.process_time() - began)")))
    return min(measured[statement]) / min(measured["import requests"])


def test_it_loads_in_at_most_1_4_times_the_time_of_requests() -> None:
    assert ratio("import relay_agent.pipelines") <= 1.4


def test_using_it_costs_little_more() -> None:
    assert ratio(USE) <= 1.8
