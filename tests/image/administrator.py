"""Runs the delivered scripts as an administrator does: how a script is called, waited for and interrupted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from tests.image.engine import DIST, Container

PATIENCE_SECONDS = 120


class Administrator:
    """Somebody with the delivery in a directory, and a filled-in agent.env."""

    def __init__(self, delivery: Path, environment: dict[str, str], container: Container) -> None:
        self.delivery = delivery
        self.container = container
        self.environment = {**environment, "CONTAINER_NAME": container.name}

    def fill_in(self, settings: dict[str, str], without: tuple[str, ...] = ()) -> None:
        """Fill in the template, as by hand; further settings go to its end."""
        file = self.delivery / "agent.env"
        text = (DIST / "agent.env").read_text(encoding="utf-8")
        for name, value in settings.items():
            line = f"{name}={value}"
            text, count = re.subn(rf"^#?{name}=.*$", lambda _, line=line: line, text, count=1, flags=re.MULTILINE)
            text += "" if count else f"{line}\n"
        for name in without:
            text = re.sub(rf"^{name}=.*$", f"{name}=", text, flags=re.MULTILINE)
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)

    def call(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the delivery."""
        return subprocess.run(
            [self.delivery / script, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def begin(self, script: str, **environment: str) -> Begun:
        """Run a script of the delivery, and leave it to itself, as in a terminal of its own."""
        return Begun(
            subprocess.Popen(
                # A shell cannot trap a signal that was ignored when it started, for example by nohup.
                [shutil.which("env") or "env", "--default-signal=HUP,INT,TERM", self.delivery / script],
                env={**self.environment, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def run(self, **environment: str) -> None:
        """Run run.sh, which must start the agent."""
        done = self.call("run.sh", **environment)
        assert done.returncode == 0, done.stdout + done.stderr


class Begun:
    """A script that runs, as its terminal sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.reported = ""

    def wait_for(self, text: str) -> None:
        """Read what it says until it has said that."""
        assert self._process.stdout
        while text not in self.reported:
            line = self._process.stdout.readline()
            self.reported += line
            assert line, f"it has ended, and did not say {text!r}: {self.reported}"

    def signal(self, number: signal.Signals, group: bool) -> None:
        """Send it a signal: as Ctrl-C and a closed terminal do, to all that it has started too, or as `kill` does."""
        (os.killpg if group else os.kill)(self._process.pid, number)

    def wait(self) -> int:
        """Read what it says until it ends; its exit code."""
        assert self._process.stdout
        self.reported += self._process.stdout.read()
        return self._process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self.wait()
