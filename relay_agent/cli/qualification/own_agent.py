"""The second agent of a qualification: `relay-agent run` as a process, with settings of its own.

Owns its process and settings. It gets nothing of the running agent's environment, so no secret of the site can reach it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from relay_agent.cli.qualification.own_platform import ORGANISATION, OwnPlatform
from relay_agent.cli.qualification.own_target import HOST
from relay_agent.protocol.jwe import generate_key

START_SECONDS = 60.0
STOP_SECONDS = 30.0
DRAIN_SECONDS = 15
_PROGRAM = "import ctypes; ctypes.CDLL(None).prctl(1, 9); from relay_agent.cli.entry import main; main()"
"""The kernel kills the agent if this process ends first (PR_SET_PDEATHSIG, SIGKILL), so that no second agent is ever left behind."""
_POLICY = """# Made by `relay-agent qualify` for its second agent: the qualification's own target, and nothing else.
[[rule]]
name = "qualification"
action = "allow"
hosts = ["{host}"]
ports = [{port}]
"""


class OwnAgent:
    """The agent's process. One thread calls."""

    def __init__(self, directory: Path, platform: OwnPlatform, target_port: int) -> None:
        self.state = directory / "state"
        self.key = generate_key()
        self._directory = directory
        self._platform = platform
        self._process: subprocess.Popen[bytes] | None = None
        policy = directory / "policy.toml"
        policy.write_text(_POLICY.format(host=HOST, port=target_port), encoding="utf-8")
        self._environment = {
            "LANG": "C.UTF-8",
            "API_TARGET": platform.url,
            "AWS_ENDPOINT_URL": platform.url,
            "ORG_SLUG": ORGANISATION,
            "AGENT_ID": platform.agent_id,
            "JWT": platform.token,
            "SECURE_COMMAND_KEY": self.key,
            "no_proxy": HOST,
            "RELAY_POLICY_FILE": str(policy),
            "RELAY_STATE_DIR": str(self.state),
            "RELAY_ADMIN_ADDR": "off",
            "RELAY_WORKERS": "2",
            "RELAY_LEASE_SECONDS": "5",
            "RELAY_DRAIN_SECONDS": str(DRAIN_SECONDS),
        }

    def start(self) -> float | None:
        """Start it, and wait until it asks its queue for commands; return the seconds, None if it does not."""
        began, before = time.monotonic(), self._platform.receives
        with Path("/dev/null").open("rb") as nothing, self._log.open("ab") as log:
            self._process = process = subprocess.Popen(  # noqa: S603 - this Python and our own program
                [sys.executable, "-I", "-c", _PROGRAM, "run"],
                cwd=self._directory,
                env=self._environment,
                stdin=nothing,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._platform.wait(lambda: self._platform.receives > before or process.poll() is not None, START_SECONDS)
        return time.monotonic() - began if self._platform.receives > before and process.poll() is None else None

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int | None:
        """Wait for its end; return the exit code, None if it does not end in time."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(STOP_SECONDS)
        return None

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def log(self) -> str:
        """Return everything that it wrote to stdout and stderr."""
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def has_logged(self, event: str) -> bool:
        """Return whether the log has a line of this event."""
        whole = [line for line in self.log().splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
        return any(json.loads(line)["event"] == event for line in whole)

    @property
    def _log(self) -> Path:
        return self._directory / "agent.log"
