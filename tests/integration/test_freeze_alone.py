"""A freeze in C code that holds the interpreter's lock ends the process and prints on stderr where it froze; only then.

Each in a process of its own that is not an agent. Whole agents are tested in `test_freeze.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FROZEN = "__import__('ctypes').PyDLL(None).sleep(60)"
"""A call into C that keeps the interpreter's lock."""
CANARY = "canary-71fe"


def run(code: str, directory: Path, environment: dict[str, str] | None = None, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_a_freeze_ends_the_process_with_every_thread_s_stack_and_no_value(tmp_path: Path) -> None:
    ended = run(
        "import re, threading\n"
        "from relay_agent.agent.freeze import Freeze\n"
        "def work(secret):\n"
        f"    {FROZEN}\n"
        "Freeze(1.0).keep_alive()\n"
        f"threading.Thread(target=work, args=('{CANARY}',)).start()\n"
        "threading.Event().wait()\n",
        tmp_path,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Timeout" in ended.stderr
    assert "in work" in ended.stderr
    assert "in <module>" in ended.stderr
    assert CANARY not in ended.stderr


@pytest.mark.parametrize("last", ["freeze.disarm()", "freeze.allow(60.0)"])
def test_a_process_that_reports_progress_or_may_pause_is_not_ended(tmp_path: Path, last: str) -> None:
    ended = run(
        "import threading\n"
        "from relay_agent.agent.freeze import Freeze\n"
        "freeze, wait = Freeze(3.0), threading.Event().wait\n"
        "for _ in range(40):\n"
        "    freeze.keep_alive()\n"
        "    wait(0.1)\n"
        f"{last}\n"
        "wait(3.5)\n",
        tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_process_without_stderr_ends_too_and_writes_into_no_other_file(tmp_path: Path) -> None:
    code = f"import re\nfrom relay_agent.agent.freeze import Freeze\nfile = open('other', 'w')\nFreeze(1.0).keep_alive()\n{FROZEN}\n"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=30, check=False, preexec_fn=lambda: os.close(2))
    assert ended.returncode == 1
    assert (tmp_path / "other").read_text() == ""
