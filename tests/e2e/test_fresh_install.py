"""`pip install` of the distribution alone, into an environment that holds nothing else: what comes, what it weighs, what works."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from tests.agents import RunningAgent, running
from tests.pages import ROOT
from tests.targets import ByteTarget, reply

pytestmark = pytest.mark.timeout(400)
SOURCES = ("relay_agent", "setup.cfg", "setup.py", "README.md", "LICENSE")
MAX_PACKAGES, MAX_BYTES = 12, 35_000_000


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The environment's directory, and how many bytes the installation added."""
    directory = tmp_path_factory.mktemp("fresh")
    (directory / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, directory / "source" / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True, timeout=100)
    before = size(directory / "venv")
    # The pip of this environment installs into the other, whose own would take longer to come than all the rest.
    pip = [sys.executable, "-m", "pip", "--python", directory / "venv" / "bin" / "python", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "install", "--quiet", "--use-pep517", directory / "source"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    yield directory / "venv", size(directory / "venv") - before
    shutil.rmtree(directory)


def run(venv: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program, *rest = arguments
    return subprocess.run(
        [venv / "bin" / program, *rest], cwd=venv, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False
    )


def test_few_and_small_packages_come(fresh: tuple[Path, int]) -> None:
    venv, added = fresh
    listed = run(venv, "python", "-c", "import importlib.metadata as m; print(*(one.name.lower() for one in m.distributions()))").stdout
    names = set(listed.split())
    assert "tdp-relay-agent" in names and len(names) <= MAX_PACKAGES, names
    assert added <= MAX_BYTES
    assert not {"pydantic", "structlog", "click", "boto3"} & names


def test_the_command_says_what_to_install(fresh: tuple[Path, int]) -> None:
    done = run(fresh[0], "relay-agent", "run")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "pip install 'tdp-relay-agent[agent]'" in done.stderr


def test_a_request_goes_through_an_agent_plain_and_sealed(fresh: tuple[Path, int], sandbox: Sandbox, tmp_path: Path) -> None:
    key = "ab" * 32
    program = """
import sys
from relay_agent.pipelines import CommandClient, Keyring, relay_session
api_target, org_slug, jwt, agent_id, url, key = sys.argv[1:]
client = CommandClient(api_target, org_slug, jwt, agent_id)
for keyring in (None, Keyring.from_text(key)):
    with relay_session(client, keyring=keyring, retries=3) as session:
        print(session.get(url, timeout=30).json()["id"])
"""
    with ByteTarget() as target, running(RunningAgent(sandbox, tmp_path, {"SECURE_COMMAND_KEY": key})) as agent:
        target.on("/", reply(200, [("Content-Type", "application/json")], '{"id": 7}'))
        where = (sandbox.api_target, sandbox.org_slug, sandbox.jwt, agent.agent_id)
        done = run(fresh[0], "python", "-W", "error", "-c", program, *where, target.url("/"), key)
    assert (done.returncode, done.stdout) == (0, "7\n7\n"), done.stderr
