"""The command line in a new process, in which nothing is imported yet."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from relay_agent.cli.main import main


@pytest.mark.parametrize("arguments", [["explain", "http://127.0.0.1:1/"], ["check"], ["policy", "test", "http://127.0.0.1:1/"]])
def test_output_that_nobody_reads_on_ends_a_command_quietly(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        program = f"from relay_agent.cli.main import main; main({arguments!r})"
        done = subprocess.run([sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def apart(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, in which nothing is imported yet."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


def test_the_version_is_printed_without_importing_any_command() -> None:
    found = apart("""
import sys
from relay_agent.cli.main import main
main(["--version"], standalone_mode=False)
parts = ("relay_agent.agent", "relay_agent.sandbox", "relay_agent.cli.")
print([name for name in sys.modules if name.startswith(parts) and not name.endswith((".main", ".options"))])
""")
    assert found.stdout.splitlines()[-1] == "[]"


def test_without_the_sandbox_s_packages_its_command_says_which_extra_to_install() -> None:
    found = apart("""
import sys
sys.modules["hypercorn"] = None
from relay_agent.cli.main import main
main(["sandbox"])
""")
    assert (found.returncode, "pip install 'tdp-relay-agent[sandbox]'" in found.stderr) == (2, True)


def test_the_help_of_the_sandbox_is_the_same_without_its_packages_but_for_its_options() -> None:
    found = apart("""
import sys
sys.modules["hypercorn"] = None
from relay_agent.cli.main import main
main(["sandbox", "--help"])
""")
    whole = CliRunner().invoke(main, ["sandbox", "--help"]).stdout
    example = whole[whole.index("Example, in two terminals") :]
    assert found.returncode == 0 and "relay-agent sandbox --env-file sandbox.env" in example
    assert [line.strip() for line in found.stdout.splitlines()][-len(example.splitlines()) :] == [
        line.strip() for line in example.splitlines()
    ]
    said = " ".join(found.stdout.split())
    assert "Prints the address of the page" in said and "Needs the extra `sandbox`" in said
