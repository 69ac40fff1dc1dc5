"""What the sender's package costs a new process: modules, time and memory."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.sender_side import KEY, opened, sealed

USE = """from relay_agent.pipelines import CommandClient, ContextClient, Keyring, relay_session
relay_session(CommandClient('http://h', 'o', 'a.b.c', 'a'))"""


def alone(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True).stdout


@pytest.mark.parametrize("program", ["import relay_agent.pipelines", USE])
def test_it_loads_nothing_that_only_the_agent_needs(program: str) -> None:
    unwanted = {"pydantic", "structlog", "click", "boto3", "botocore", "jwt", "Crypto", "asyncio", "sqlite3", "pytest", "httpx"}
    loaded = set(alone(f"{program}\nimport sys\nprint(*sys.modules)").split())
    assert unwanted & loaded == set()
    assert not [name for name in loaded if name.startswith(("relay_agent.relay", "relay_agent.transport", "relay_agent.config"))]


@pytest.fixture(scope="module")
def costs() -> dict[str, float]:
    """How much of the processor's time each takes in a new process: the least of some runs of each, in turn."""
    programs = ("import requests", "import relay_agent.pipelines", USE)
    timed = "import time\nbegan = time.process_time()\n{}\nprint(time.process_time() - began)"
    rounds = [[float(alone(timed.format(program))) for program in programs] for _ in range(6)]
    return dict(zip(programs, map(min, zip(*rounds, strict=True)), strict=True))


def test_it_loads_in_at_most_1_4_times_the_time_of_requests(costs: dict[str, float]) -> None:
    assert costs["import relay_agent.pipelines"] <= 1.4 * costs["import requests"]


def test_using_it_costs_little_more(costs: dict[str, float]) -> None:
    assert costs[USE] <= 1.8 * costs["import requests"]


CLIENT, SANDBOX = "CommandClient(url, 'acme', 'a.b.c', 'agent-1')", "ContextClient(SandboxContext(url), 'agent-1')"
WAYS = {
    "api": f"relay_session({CLIENT})",
    "sandbox": f"relay_session({SANDBOX})",
    "sealed": f"relay_session({CLIENT}, keyring=Keyring.from_text('{KEY}'))",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_large_answer_costs_at_most_four_times_its_size(way: str) -> None:
    """Measured as the highest memory of a process, with a platform of one request and one answer."""
    size, session = 6_000_000, WAYS[way]
    highest = {text: peak(session, size, text) for text in ("aé", "\U0001f600 and more ASCII text" * 4)}
    empty = peak(session, 1000, "a")
    assert {text: (found - empty) / size for text, found in highest.items() if found - empty > 4 * size} == {}


@pytest.mark.parametrize("way", WAYS)
def test_a_large_answer_that_is_streamed_is_never_in_memory_as_a_whole(way: str) -> None:
    """8 MB of it, before it goes to a file, and what the allocator keeps."""
    size = 16_000_000
    assert peak(WAYS[way], size, "aé", stream=True) - peak(WAYS[way], 1000, "a", stream=True) < 0.7 * size


PEAK = """
import re, sys
from relay_agent.pipelines import CommandClient, ContextClient, Keyring, relay_session
from relay_agent.pipelines.testing import SandboxContext
url, size, made, stream = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "True"
found = eval(made).get("http://target.example/", timeout=60, stream=stream)
assert (sum(map(len, found.iter_content(100_000))) if stream else len(found.content)) == size
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024)
"""


@functools.cache
def peak(session: str, size: int, text: str, stream: bool = False) -> int:
    """The highest memory of a sender that gets a text answer of about this size."""
    repeated = text * (size // len(text.encode()))
    posted = json.dumps({"id": "command-1", "status": "PENDING"}).encode()
    body: dict[str, Any] = {"statusCode": 200, "headers": [], "body": repeated, "bodyEncoding": "utf-8"}
    finished: list[bytes] = []

    def finish(payload: dict[str, Any]) -> None:
        answered = sealed(body, opened(payload).jti) if "jwe" in payload else body
        finished.append(json.dumps({"id": "command-1", "status": "SUCCESS", "responseBody": answered}, ensure_ascii=False).encode())

    class Platform(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            finish(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["payload"])
            self.answer(posted)

        def do_GET(self) -> None:
            self.answer(finished[-1])

        def answer(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Platform) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, 0.01)
        address = f"http://127.0.0.1:{server.server_address[1]}"
        arguments = [address, str(len(repeated.encode())), session, str(stream)]
        done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, timeout=55, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
