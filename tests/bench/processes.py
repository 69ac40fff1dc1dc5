"""What the bench starts, and what the kernel knows about it: CPU time, memory, bytes written. Linux only."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 30.0
_PATIENCE_SECONDS = 30.0

Json = dict[str, Any]


class Measured:
    """A process and its descendants, looked at from outside."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The first process's id."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time so far, in nanoseconds' resolution (clock_getcpuclockid(3)); that of threads which have ended is in it."""
        return self._sum(lambda pid: time.clock_gettime((~pid << 3) | 2))

    def resident_bytes(self) -> int:
        """The memory that it has now (VmRSS)."""
        return int(self._sum(lambda pid: _kilobytes(pid, "VmRSS:"))) * 1024

    def peak_bytes(self) -> int:
        """The most memory that it ever had (VmHWM)."""
        return int(self._sum(lambda pid: _kilobytes(pid, "VmHWM:"))) * 1024

    def threads(self) -> int:
        """How many threads it has."""
        return int(self._sum(lambda pid: len(list(Path(f"/proc/{pid}/task").iterdir()))))

    def _sum(self, value: Callable[[int], float]) -> float:
        """Add up the process's value and its descendants'; one of those that ends meanwhile counts nothing."""
        if self._process.poll() is not None:
            raise AssertionError(f"{self._process.args} has ended with {self._process.returncode}")
        total = value(self.pid)
        for pid in self._descendants():
            with contextlib.suppress(OSError, ValueError):
                total += value(pid)
        return total

    def _descendants(self) -> list[int]:
        found = [self.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    with contextlib.suppress(OSError):
                        found += map(int, (task / "children").read_text().split())
        return found[1:]


def _kilobytes(pid: int, name: str) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that this program started: SIGTERM, and SIGKILL if that does not help."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Target:
    """The C target on so many ports, each a host of its own for the agent."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports

    def url(self, path: str, host: int = 0) -> str:
        """Return a URL of one of the hosts."""
        return f"http://127.0.0.1:{self.ports[host % len(self.ports)]}{path}"

    def counts(self) -> tuple[int, int]:
        """Return how many requests were answered and how many connections accepted so far."""
        requests, connections = _call(self.url("/count"), "GET", None).split()
        return int(requests), int(connections)


@contextlib.contextmanager
def target(place: Path, ports: int) -> Iterator[Target]:
    """Compile the target if that is not done yet, and run it."""
    source, program = Path(__file__).with_name("target.c"), place / "target"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], check=True)
    process = subprocess.Popen([program, str(ports)], stdout=subprocess.PIPE)
    try:
        yield Target([int(port) for port in _first_line(process).split()])
    finally:
        end(process)


class BareSqs:
    """The bare platform's process, and the bench's calls to it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def queue_url(self, name: str) -> str:
        """Return the URL of one of the two queues."""
        return f"{self.url}/000000000000/{name}"

    def load(self, messages: list[Json], pause: float | None = None) -> None:
        """Release commands; see `Platform.load`."""
        self._call("POST", "load", {"messages": messages, "pause": pause})

    def wait(self, seconds: float) -> Json:
        """Wait until each command is answered, at most so long."""
        return self._call("GET", f"wait?{seconds}")

    def report(self) -> Json:
        """Return the outcome of the last commands."""
        return self._call("GET", "report")

    def put_blob(self, name: str, body: bytes) -> str:
        """Keep something for a GET; return its URL."""
        _call(f"{self.url}/bench/blob/{name}", "PUT", body)
        return f"{self.url}/s3/{name}"

    def upload(self, name: str) -> bytes:
        """Return what was uploaded under a name, empty if nothing was."""
        return _call(f"{self.url}/bench/upload/{name}", "GET", None)

    def _call(self, method: str, what: str, body: Json | None = None) -> Json:
        answer: Json = json.loads(_call(f"{self.url}/bench/{what}", method, None if body is None else json.dumps(body).encode()))
        return answer


@contextlib.contextmanager
def bare_sqs() -> Iterator[BareSqs]:
    """Run a bare platform."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.bare_sqs"], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        yield BareSqs(int(_first_line(process)))
    finally:
        end(process)


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    if not line:
        raise AssertionError(f"{process.args} said nothing")
    return line


def _call(url: str, method: str, body: bytes | None) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=600)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise AssertionError(f"{method} {url}: {answer.status} {text[:200]!r}")
        return text
    finally:
        connection.close()
