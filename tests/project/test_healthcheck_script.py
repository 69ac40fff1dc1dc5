"""docker/healthcheck.py: which page it asks for over `admin.sock`, and what its exit code says."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.pages import ROOT

SCRIPT = ROOT / "docker" / "healthcheck.py"


def check(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it for a state directory."""
    command = [sys.executable, "-ISs", SCRIPT, *arguments]
    return subprocess.run(command, env={"RELAY_STATE_DIR": str(state)}, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(("arguments", "page"), [((), "/healthz"), (("/readyz",), "/readyz")])
@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("503 Service Unavailable", 1)])
def test_it_asks_for_the_page_and_answers_with_its_status(
    arguments: tuple[str, ...], page: str, status: str, code: int, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(tmp_path / "admin.sock"))
        listener.listen()
        listener.settimeout(30)
        checked = pool.submit(check, tmp_path, *arguments)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            asked = connection.recv(65536).decode()
            connection.sendall(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\nsaid so\n".encode())
        done = checked.result(30)
    assert asked.startswith(f"GET {page} HTTP/1.1\r\nHost: localhost\r\n")
    assert (done.returncode, done.stdout) == (code, "said so\n")


def test_without_an_agent_it_says_so(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("no agent answers at ")
