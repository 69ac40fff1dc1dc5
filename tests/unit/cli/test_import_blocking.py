"""What `run` loads, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = "import relay_agent.cli.main, relay_agent.agent.signals\nfrom relay_agent.cli.import_blocking import without_extras\n"
FIRST = "with without_extras():\n    import relay_agent.transport.session, relay_agent.telemetry.logs\n"
REST = FIRST + "import relay_agent.config.settings, relay_agent.agent.agent, sys\n"


def loaded(script: str) -> set[str]:
    """The modules that a fresh interpreter has after a script."""
    done = subprocess.run(
        [sys.executable, "-Werror", "-c", f"{script}print(*sys.modules)"], capture_output=True, text=True, check=True, timeout=30
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def modules() -> set[str]:
    """What the agent loads before its first call, in the order of `run`."""
    return loaded(START + REST)


@pytest.mark.parametrize(
    "unwanted",
    [
        "rich",
        "charset_normalizer",
        "chardet",
        "pygments",
        "markdown_it",
        "boto3",
        "s3transfer",
        "flask",
        "ministack",
        "relay_agent.cli.checks",
        "relay_agent.sandbox",
    ],
)
def test_run_loads_no_module_that_it_does_not_need(modules: set[str], unwanted: str) -> None:
    assert unwanted not in modules


def test_a_blocked_module_can_be_loaded_afterwards() -> None:
    assert {"rich", "structlog", "charset_normalizer"} <= loaded(START + REST + "import rich, charset_normalizer\n")
