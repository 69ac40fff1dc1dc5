"""Programs that `make` fetches and tests start beside themselves: where they are, their ports, their start and their end.

It must not know what a program does. A test whose program is missing is skipped, and says so.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relay_agent.core.clock import Deadline
from tests.pages import ROOT

TOOLS = ROOT / "build" / "tools"
PATIENCE_SECONDS = 20.0
_PORTS = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections, so that none of them takes a port before its program listens."""


@contextlib.contextmanager
def running(arguments: Sequence[str], ports: Sequence[int], log: Path) -> Iterator[None]:
    """Run a program until the block ends; it must listen on each port, and go when it is asked to."""
    with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
        process = subprocess.Popen(arguments, stdin=nothing, stdout=output, stderr=output, env=environment())
    try:
        deadline = Deadline(PATIENCE_SECONDS)
        for port in ports:
            _wait_listening(process, port, deadline, log)
        yield
        assert process.poll() is None, f"{arguments[0]} has ended: {log.read_text()[-2000:]}"
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE_SECONDS)
            raise


def _wait_listening(process: subprocess.Popen[bytes], port: int, deadline: Deadline, log: Path) -> None:
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), deadline.remaining()):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
        if process.poll() is not None or deadline.passed:
            raise AssertionError(f"{process.args!r} does not listen on {port}: {log.read_text(errors='replace')[-2000:]}")


def fetched(path: str) -> str:
    """The path of a program below `build/tools`; skip the test if it is not there."""
    program = TOOLS / path
    if not program.is_file():
        pytest.skip(f"no {program.name} on this machine: make proxies")
    return str(program)


def environment() -> dict[str, str]:
    """What a fetched program needs: its libraries, which are not installed."""
    found = [path for below in ("proxies/usr/lib", "proxies/lib") for path in sorted((TOOLS / below).glob("*-linux-gnu*"))]
    libraries = ":".join(map(str, found))
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LD_LIBRARY_PATH": libraries}


@contextlib.contextmanager
def readable_directory() -> Iterator[Path]:
    """A directory that other users may read: squid and dante give up being root."""
    with tempfile.TemporaryDirectory(prefix="proxy-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in found:
                found.append(port)
    return found
