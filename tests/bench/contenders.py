"""Who is measured: the agent with its whole job, the floors, the vendor's SDK. Each is a process of its own.

A contender knows how its process is started. It must not know what it is given to do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jwt

from relay_agent.protocol.keyring import Keyring
from tests.bench.places import AGENT_ID, INBOUND, ORG_SLUG, OUTBOUND, REGION
from tests.bench.processes import ROOT, BareSqs, Measured, Target, end

KEY = "bench-bench-bench-bench-bench-32"
INHERITED = ("PATH", "HOME", "LANG")
VENDOR_PYTHON = ROOT / "build/tools/vendor-sdk/bin/python"
_TOKEN_SECONDS = 86_400


@dataclass(frozen=True)
class Run:
    """A contender's running process. `output` is the file that its stdout goes to."""

    process: Measured
    began: float
    output: Path
    errors: Path

    def log_bytes(self) -> int:
        """What it has written to stdout and stderr."""
        return self.output.stat().st_size + self.errors.stat().st_size


Start = Callable[[Path, BareSqs, Target], tuple[list[str], dict[str, str]]]
"""Returns the command that starts a contender, and its environment."""


@dataclass(frozen=True)
class Contender:
    """`promises` says that it does the whole job: secure commands, a journal, a log that is shipped."""

    name: str
    title: str
    start: Start
    promises: bool = False
    slow: bool = False
    """It is given fewer commands, or the bench would take hours."""
    emulated: bool = False
    """Its platform is the sandbox, with the sandbox's emulator of SQS."""
    missing: Callable[[], str | None] = lambda: None
    """Returns why it cannot be measured here, None if it can."""

    @contextlib.contextmanager
    def running(self, place: Path, sqs: BareSqs, target: Target, wrapper: Sequence[str] = (), **settings: str) -> Iterator[Run]:
        """Start it; `wrapper` is a command before its own, `settings` are more variables."""
        place.mkdir(parents=True, exist_ok=True)
        command, environment = self.start(place, sqs, target)
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | environment | settings
        output, errors = place / "stdout.txt", place / "stderr.txt"
        with output.open("wb") as out, errors.open("wb") as err:
            began = time.monotonic()
            process = subprocess.Popen([*wrapper, *command], cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            yield Run(Measured(process), began, output, errors)
        except AssertionError as error:
            error.add_note(f"{self.name}'s stderr ends: {errors.read_text()[-2000:]}")
            raise
        finally:
            end(process)


def agent_environment(place: Path, url: str, target: Target) -> dict[str, str]:
    """The settings of an agent as an administrator would have them: defaults, a policy, a key, its pages on a port."""
    policy = place / "policy.toml"
    ports = ", ".join(map(str, target.ports))
    policy.write_text(f'[[rule]]\nname = "bench"\naction = "allow"\nhosts = ["127.0.0.1"]\nports = [{ports}]\n')
    expiry = int(time.time()) + _TOKEN_SECONDS
    return {
        "API_TARGET": url,
        "ORG_SLUG": ORG_SLUG,
        "AGENT_ID": AGENT_ID,
        "JWT": jwt.encode({"sub": "bench", "exp": expiry}, KEY, algorithm="HS256"),
        "AWS_ENDPOINT_URL": url,
        "no_proxy": "127.0.0.1",
        "SECURE_COMMAND_KEY": KEY.encode().hex(),
        "RELAY_STATE_DIR": str(place / "state"),
        "RELAY_POLICY_FILE": str(policy),
        "RELAY_ADMIN_ADDR": f"127.0.0.1:{_free_port()}",
        "RELAY_DRAIN_SECONDS": "5",
    }


def keyring() -> Keyring:
    """The key that the agent is given."""
    return Keyring.from_text(KEY.encode().hex())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _agent(place: Path, sqs: BareSqs, target: Target) -> tuple[list[str], dict[str, str]]:
    return [str(Path(sys.executable).with_name("relay-agent")), "run"], agent_environment(place, sqs.url, target)


def _floor(*arguments: str) -> Start:
    def start(_place: Path, sqs: BareSqs, _target: Target) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-m", "tests.bench.floor", sqs.url, *arguments]
        return command, {"no_proxy": "127.0.0.1", "PYTHONPATH": str(ROOT)}

    return start


def _vendor(_place: Path, sqs: BareSqs, _target: Target) -> tuple[list[str], dict[str, str]]:
    """Its "standalone" way of being run: a token, and credentials from the platform."""
    return [str(VENDOR_PYTHON), str(ROOT / "tests/bench/vendor_agent.py")], {
        "CONNECTOR_ID": AGENT_ID,
        "CONNECTOR_TOKEN": "bench",
        "ORG_SLUG": ORG_SLUG,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": sqs.url,
        "TDP_ENDPOINT": sqs.url,
        "OUTBOUND_COMMAND_QUEUE": sqs.queue_url(OUTBOUND),
        "COMMAND_QUEUE": sqs.queue_url(INBOUND),
        "STREAM_BUCKET": "bench",
        "DATALAKE_BUCKET": "bench",
        "NO_PROXY": "127.0.0.1",
    }


def _vendor_missing() -> str | None:
    return None if VENDOR_PYTHON.exists() else "the vendor's SDK is not installed (make vendor-sdk)"


AGENT = Contender("agent", "agent, whole job", _agent, promises=True)
FLOOR = Contender("floor", "floor: boto3 + requests", _floor())
BATCHED = Contender("batched", "floor, batched sends", _floor("--batched"))
VENDOR = Contender("vendor", "vendor's SDK", _vendor, slow=True, missing=_vendor_missing)
EMULATOR = Contender("emulator", "agent on the sandbox's emulator", _agent, promises=True, emulated=True)
CONTENDERS = (AGENT, FLOOR, BATCHED, VENDOR, EMULATOR)
