"""Fixtures: the sandbox's settings for a container, agents in containers, and the delivery as an administrator receives it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from tests.image import engine
from tests.image.administrator import Administrator
from tests.image.engine import CONFINED, DIST, DOCKER, MARK, Container, docker, fresh_name, image

Start = Callable[..., Container]
SECONDS = 240
"""How long a test may take here: some build images, and a machine may have more to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this directory their time."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session", autouse=True)
def _engine() -> Iterator[None]:
    if docker("version", check=False).returncode:
        pytest.fail("no Docker engine answers here; the image cannot be tested")
    if not (DIST / "IMAGE_ID").is_file():
        pytest.fail("there is no delivery in dist/ to test; make test-image builds it")
    engine.sweep_after_the_dead()
    yield
    engine.sweep()
    for lock in Path("/run").glob(f"ts-agent-http-relay-{os.getuid()}-{engine.NAMES}-*.lock"):
        lock.unlink()  # run.sh keeps it, since another run.sh may wait for it.


@pytest.fixture(scope="module")
def files() -> Iterator[tarfile.TarFile]:
    """The image's only layer."""
    saved = subprocess.run([DOCKER, "save", image()], capture_output=True, check=True, timeout=60).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as whole:
        (layer,) = json.load(whole.extractfile("manifest.json"))[0]["Layers"]  # type: ignore[arg-type]
        with tarfile.open(fileobj=whole.extractfile(layer)) as inner:
            yield inner


@pytest.fixture
def settings(sandbox: Sandbox, agent_id: str) -> dict[str, str]:
    """What an agent needs to know, a new one on the platform."""
    return {**sandbox.environment(agent_id), "RELAY_ADMIN_ADDR": "off"}


@pytest.fixture
def started(sandbox: Sandbox, agent_id: str, settings: dict[str, str]) -> Iterator[Start]:
    """Start agents as containers, confined as run.sh confines them; nothing of them survives the test."""
    made: list[Container] = []

    def start(
        *options: str, environment: dict[str, str] | None = None, which: str | None = None, command: tuple[str, ...] = ()
    ) -> Container:
        container = Container(sandbox, fresh_name("agent"), agent_id)
        made.append(container)
        given = [part for name, value in {**settings, **(environment or {})}.items() for part in ("-e", f"{name}={value}")]
        return container.run(*CONFINED, *given, *options, which=which, command=command)

    yield start
    for container in made:
        docker("rm", "--force", "--volumes", container.name, check=False)


@pytest.fixture
def labelled(tmp_path: Path) -> dict[str, str]:
    """The environment for a script: its `docker run` marks what it makes as the test's."""
    shim = tmp_path / "bin" / "docker"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\n[ "$1" != run ] || {{ shift; exec {DOCKER} run --label {MARK} "$@"; }}\nexec {DOCKER} "$@"\n')
    shim.chmod(0o755)
    return {"PATH": f"{shim.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    """The delivery without the large tarballs, in a directory of the test's own."""
    place = tmp_path / "delivery"
    shutil.copytree(DIST, place, ignore=shutil.ignore_patterns("*.tar.gz"))
    return place


@pytest.fixture
def administrator(
    sandbox: Sandbox, agent_id: str, settings: dict[str, str], delivery: Path, labelled: dict[str, str]
) -> Iterator[Administrator]:
    """One with settings that work."""
    container = Container(sandbox, fresh_name("script"), agent_id)
    docker("volume", "create", "--label", MARK, f"{container.name}-state")
    one = Administrator(delivery, labelled, container)
    one.fill_in(settings)
    yield one
    for name in (container.name, f"{container.name}-previous"):
        docker("rm", "--force", "--volumes", name, check=False)


__all__ = ["Start", "image"]
