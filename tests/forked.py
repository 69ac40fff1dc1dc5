"""`relay-agent` processes that start with the modules already loaded, since loading them is most of the cost of a start.

Owns the process that loads the package once and forks for each command, and the object that represents such a command here. A complete
start in a new Python is `agents.launched`; tests request it with `whole`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from tests import botocore_data

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 1024 * 1024
PR_SET_CHILD_SUBREAPER = 36
NOT_LOADED = {"sandbox", "__main__"}


class Process:
    """A command's process: as much of `subprocess.Popen` as tests use. Any thread may call."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with self._lock:
            if self.returncode is None and self._ended(0):
                _, status = os.waitpid(self.pid, 0)
                self.returncode = os.waitstatus_to_exitcode(status)
                os.close(self._descriptor)
            return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end, and give its exit code."""
        if self.poll() is None:
            self._ended(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("relay-agent", timeout)
        return code

    def _ended(self, seconds: float) -> bool:
        end = select.poll()
        end.register(self._descriptor, select.POLLIN)
        return bool(end.poll(seconds * 1000))

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks. It ends with this one; what it forked becomes this one's child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start(self, arguments: Sequence[str], directory: Path, environment: dict[str, str], streams: Sequence[int]) -> Process:
        """Start a command with these descriptors as its stdin, stdout and stderr."""
        order = json.dumps([list(arguments), str(directory), environment]).encode()
        with self._lock:
            if self._control is None:
                self._control = self._begin()
            socket.send_fds(self._control, [order], list(streams))
            return Process(int(self._control.recv(32)))

    def _begin(self) -> socket.socket:
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no child subreaper")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        return ours


# --- in the process that forks ---


def _load() -> None:
    """Load what the commands load, in the order of `run`, which keeps optional packages away while it loads the first."""
    from relay_agent.cli.main import main

    with contextlib.suppress(SystemExit):
        main(["run", "--env-file", "/nonexistent/.env"])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    import relay_agent

    for module in pkgutil.walk_packages(relay_agent.__path__, "relay_agent."):
        if not NOT_LOADED & set(module.name.split(".")):
            importlib.import_module(module.name)
    botocore_data.read()
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


def _serve(control: socket.socket) -> list[str]:
    """Fork for each order, twice, so that whoever asked becomes the parent; returns the arguments, in the process that is to run them."""
    while True:
        order, streams, _, _ = socket.recv_fds(control, MOST_BYTES, 3)
        if not order:
            os._exit(0)
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            pid = os.fork()
            if not pid:
                break
            os.write(writing, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        control.send(os.read(reading, 32))
        for descriptor in (reading, writing, *streams):
            os.close(descriptor)
    control.close()
    for place, descriptor in enumerate(streams):
        os.dup2(descriptor, place)
    for descriptor in (reading, writing, *streams):
        os.close(descriptor)
    arguments, directory, environment = json.loads(order)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    return [str(Path(sys.executable).with_name("relay-agent")), *arguments]


def _end(main: Callable[[], object]) -> NoReturn:
    """Run a command and end as Python does, but for taking every module apart, which takes longer than many a command."""
    code: object = None
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        code = 120
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    _load()
    sys.argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    from relay_agent.cli.main import main

    _end(main)
