"""Curl as a client: one process per script, so that no state carries over."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.peers.outcome import Kind, Result, grouped
from tests.peers.script import Ask, Script

_KINDS: dict[int, Kind] = {7: "refused", 28: "timeout", 35: "tls", 47: "redirects", 52: "reset", 55: "reset", 59: "tls", 60: "tls"}
_SIGNED = re.compile(r"\\?u(?:ffffff|00)([0-9a-f]{2})")
"""How curl 7.88 writes a control character, or a byte beyond ASCII."""
_MARK = "\x1e"
_WRITTEN = f"%{{json}}{_MARK}%{{header_json}}{_MARK}"


def found() -> str | None:
    """Where curl is, None where it is not."""
    return shutil.which("curl")


def version() -> str:
    """What curl says of itself, in short."""
    return " ".join(_called(["curl", "-V"]).split()[:2])


class Curl:
    """Debian's curl."""

    name = "curl"

    def __init__(self, authority: Path, limit_seconds: float) -> None:
        self._common = ["-g", "--http1.1", "-s", "-S", "-L", "--compressed", "--max-redirs", "10", "-b", "", "--noproxy", "*"]
        self._common += ["--max-time", f"{limit_seconds:g}", "--cacert", str(authority), "-H", "Expect:", "-w", _WRITTEN]

    def run(self, script: Script, port: int) -> list[Result]:
        """Make the requests in one process."""
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            arguments = ["curl", "-q"]
            for number, ask in enumerate(script.asks):
                arguments += ["--next"] if number else []
                arguments += [*self._common, *_request(ask, directory / f"out{number}", directory / f"in{number}")]
                arguments.append(f"{'http' if script.tls is None else 'https'}://{ask.at}:{port}{ask.path}")
            written = _called(arguments).split(_MARK)
            found = list(zip(script.asks, written[::2], written[1::2], strict=False))
            assert len(found) == len(script.asks), f"curl said {written}"
            return [_result(ask, json.loads(said), fields, directory / f"out{n}", port) for n, (ask, said, fields) in enumerate(found)]


def _called(arguments: list[str]) -> str:
    done = subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"}
    )
    return done.stdout.decode("latin-1")


def _request(ask: Ask, output: Path, content: Path) -> list[str]:
    """The options of one request; POST and PUT by what implies them, since a method that is named stays through redirects."""
    options = ["-o", str(output)]
    if ask.host is not None:
        options += ["-H", f"Host: {ask.host}"]
    if ask.body:
        content.write_bytes(ask.body)
    if ask.method == "HEAD":
        options.append("-I")
    elif ask.method == "PUT":
        options += ["-T", str(content)]
    elif ask.method == "POST":
        options += ["--data-binary", f"@{content}"]
    return options


def _result(ask: Ask, said: dict[str, Any], fields: str, output: Path, port: int) -> Result:
    code = said["exitcode"]
    if code:
        detail = f"{code}: {said['errormsg']}"
        lost = code == 56 and ("reset" in detail.lower() or "Recv failure" in detail)
        return Result("reset" if lost else _KINDS.get(code, "bad"), detail=detail)
    body = output.read_bytes() if output.exists() and ask.method != "HEAD" else b""
    return Result("answer", said["http_code"], grouped(_pairs(fields), port), body)


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        named: dict[str, list[str]] = json.loads(_SIGNED.sub(r"\\u00\1", text), strict=False)
    except ValueError:
        return [("unreadable", text)]
    return [(name, value) for name, values in named.items() for value in values]
