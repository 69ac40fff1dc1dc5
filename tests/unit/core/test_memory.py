"""Free memory goes back to the system, and threads share one arena."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import psutil
import pytest

from relay_agent.core.memory import release_free_memory

PIECES = 50_000
PIECE_BYTES = 1000


def test_memory_freed_below_memory_in_use_is_given_back() -> None:
    pieces = [bytes(PIECE_BYTES) for _ in range(PIECES)]
    del pieces[:-1]  # The C library gives back by itself only what lies above all that is in use.
    process = psutil.Process()
    before = process.memory_info().rss
    release_free_memory()
    assert before - process.memory_info().rss > PIECES * PIECE_BYTES / 2


# Bytes of more than 512 are the C library's. An arena other than the first reserves 64 MB of addresses.
_THREADS = """
import threading
from relay_agent.core.memory import use_one_arena
{call}
here = threading.Barrier(5)
def work():
    kept = [bytes(1000) for _ in range(100)]
    here.wait()
    here.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
here.wait()
sizes = [line.split()[0].split("-") for line in open("/proc/self/maps") if "---p" in line]
here.wait()
print(any(int(end, 16) - int(start, 16) > 60_000_000 for start, end in sizes))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no arenas")
@pytest.mark.parametrize(("call", "several"), [("", True), ("use_one_arena()", False)], ids=["as the library does", "one"])
def test_threads_have_several_arenas_unless_one_is_asked_for(call: str, several: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    script = [sys.executable, "-c", _THREADS.format(call=call)]
    assert subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout == f"{several}\n"
