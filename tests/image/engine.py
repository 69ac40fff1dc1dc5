"""The Docker engine for tests: starts, watches and ends containers; all carry one label, by which they are removed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay_agent.core.models import ACTION_HTTP
from relay_agent.sandbox.commands import Command
from relay_agent.sandbox.server import Sandbox

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
DOCKER = shutil.which("docker") or "docker"
LABEL = "org.tetrascience.test"
MARK = f"{LABEL}=image-{os.getpid()}"
NAMES = f"relay-test-{os.getpid()}"
"""What the names begin with that this process gives."""
STATE = "/var/lib/relay-agent"
PATIENCE_SECONDS = 30.0
CONFINED = [
    "--net=host",
    "--read-only",
    "--tmpfs",
    "/tmp:rw,noexec,nosuid,nodev,mode=1777,size=320m",
    "--cap-drop=ALL",
    "--security-opt",
    "no-new-privileges",
    "--ulimit",
    "core=0",
    "--memory",
    "1g",
    "--log-driver",
    "local",
]
Json = dict[str, Any]


def docker(*arguments: str, check: bool = True, timeout: float = 120.0, text_in: str | None = None) -> subprocess.CompletedProcess[str]:
    """Call the docker command; a failure is the test's, with what docker said."""
    done = subprocess.run([DOCKER, *arguments], capture_output=True, text=True, timeout=timeout, check=False, input=text_in)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)[:200]}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def image(kind: str = "") -> str:
    """The image under test: the tag that dist/ holds."""
    version = next(DIST.glob("ts-agent-http-relay-v*.sbom.cdx.json")).name.split("-v")[1].removesuffix(".sbom.cdx.json")
    return f"ts-agent-http-relay{kind}:v{version}"


def inspect(name: str) -> Json:
    """All that the engine knows of a container or an image."""
    found: Json = json.loads(docker("inspect", name).stdout)[0]
    return found


def wait_until(what: Callable[[], Any], named: str, timeout: float = PATIENCE_SECONDS) -> Any:
    """Ask the engine, which has no event for it, until the condition holds; fail loudly if it never does."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout:g} s: {named}")


def fresh_name(stem: str) -> str:
    """A name that is not in use."""
    return f"{NAMES}-{stem}-{uuid.uuid4().hex[:8]}"


def volume() -> str:
    """A new named volume."""
    return docker("volume", "create", "--label", MARK, fresh_name("state")).stdout.strip()


def sweep(mark: str = MARK) -> None:
    """Remove every container, volume and image that carries the label."""
    for kind, listing, remove in (
        ("container", ("ps", "-aq"), ("rm", "--force", "--volumes")),
        ("volume", ("volume", "ls", "-q"), ("volume", "rm", "--force")),
        ("image", ("images", "-q"), ("rmi", "--force")),
    ):
        ids = docker(*listing, "--filter", f"label={mark}", check=False).stdout.split()
        if ids:
            done = docker(*remove, *ids, check=False)
            assert done.returncode == 0, f"{kind}s are left: {done.stderr}"


def sweep_after_the_dead() -> None:
    """Remove what test runs left that were killed: their label names a process that is no more."""
    form = f'{{{{.Label "{LABEL}"}}}}'
    marks = {
        mark
        for listing in (("ps", "-a"), ("volume", "ls"))
        for mark in docker(*listing, "--filter", f"label={LABEL}", "--format", form).stdout.split()
    }
    for mark in marks:
        pid = mark.removeprefix("image-")
        if pid.isdigit() and not Path("/proc", pid).exists():
            sweep(f"{LABEL}={mark}")


class Container:
    """One agent's container on the sandbox. Its name may be a script's, which made it."""

    def __init__(self, sandbox: Sandbox, name: str, agent_id: str) -> None:
        self.sandbox = sandbox
        self.name = name
        self.agent_id = agent_id

    def run(self, *options: str, which: str | None = None, command: tuple[str, ...] = ()) -> Container:
        """Start it: detached, labelled, with these options of `docker run`."""
        docker("run", "--detach", "--label", MARK, "--name", self.name, *options, which or image(), *command)
        return self

    @property
    def logs(self) -> list[Json]:
        """Its log lines so far; what is no JSON is left out."""
        text = docker("logs", self.name).stdout
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def output(self) -> str:
        """All it wrote."""
        done = docker("logs", self.name)
        return done.stdout + done.stderr

    def wait_log(self, event: str, timeout: float = PATIENCE_SECONDS, count: int = 1) -> Json:
        """Wait for the `count`th line of an event."""

        def look() -> Json | None:
            lines = self.lines(event)
            return lines[count - 1] if len(lines) >= count else None

        try:
            found: Json = wait_until(look, f"{event} in the log of {self.name}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; it wrote: {self.output()[-1500:]}") from None
        return found

    def ready(self) -> Container:
        """Wait until the platform gave it its configuration."""
        self.wait_log("agent-ready")
        return self

    def lines(self, event: str) -> list[Json]:
        """Its log lines of an event so far."""
        return [line for line in self.logs if line["event"] == event]

    def peak_bytes(self) -> int:
        """The most memory that any process in it had at once."""
        peaks = self.exec("sh", "-c", "grep -h VmHWM /proc/[0-9]*/status").stdout
        return max(int(kilobytes) for kilobytes in re.findall(r"(\d+) kB", peaks)) * 1024

    def state(self) -> Json:
        """The engine's word on it."""
        found: Json = inspect(self.name)["State"]
        return found

    def create(self, url: str, method: str = "GET", **fields: Any) -> Command:
        """Create a command for it."""
        payload = {"method": method, "url": url, **fields}
        return self.sandbox.command(self.sandbox.create_command(self.agent_id, payload, ACTION_HTTP))

    def get(self, url: str, **fields: Any) -> Command:
        """Have it fetch a URL, and wait for the answer."""
        return self.sandbox.wait_final(self.create(url, **fields).id, PATIENCE_SECONDS)

    def exec(self, *command: str, check: bool = True, text_in: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return docker("exec", *(("-i",) if text_in is not None else ()), self.name, *command, check=check, text_in=text_in)

    def kill(self) -> None:
        """End its first process as the kernel would, from outside."""
        os.kill(int(self.state()["Pid"]), 9)

    def stop(self, seconds: int = 40) -> int:
        """Stop it as an administrator does; its exit code."""
        docker("stop", "--time", str(seconds), self.name)
        return int(self.state()["ExitCode"])
