"""Collects what the vendor's support needs to know about an agent in one file, without secrets.

Owns which parts it has, and their names. It must not send the file: a person does.
"""

from __future__ import annotations

import json
import os
import platform
import ssl
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from relay_agent import AGENT_VERSION
from relay_agent.agent.admin.client import NoAgent, NoAnswer, agent_runs, ask
from relay_agent.core.errors import JournalError
from relay_agent.diagnostics import command_history
from relay_agent.storage.journal_reader import SQLITE_VERSION, Reader
from relay_agent.storage.state_directory import JOURNAL, SOCKET

COMMANDS = 200
_LIBRARIES = (
    "requests",
    "urllib3",
    "boto3",
    "botocore",
    "PyJWT",
    "pycryptodome",
    "pydantic",
    "structlog",
    "waitress",
    "prometheus-client",
    "psutil",
)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the bundle."""

    name: str
    about: str
    text: str


def collect(
    directory: Path, configuration: list[dict[str, Any]], checks: Callable[[], Mapping[str, Any]], redact: Callable[[str], str]
) -> list[Part]:
    """Collect all parts; a part that is not available contains the reason. `redact` is applied to each part at the end."""
    reader = Reader(directory / JOURNAL, in_use=agent_runs(directory))
    parts = [
        Part("checks.json", "the output of relay-agent check", _json(_or_why(checks))),
        *_pages(directory),
        Part("configuration.json", "the settings, with secrets masked", _json(configuration)),
        Part("commands.json", f"the newest {COMMANDS} commands, as listed by relay-agent commands", _json(_commands(reader))),
        Part(
            "journal.json",
            "the number of commands in each state, and the files of the state directory",
            _json(_journal(reader, directory)),
        ),
        Part("versions.json", "the versions of the agent, Python, the libraries and the system", _json(_versions())),
    ]
    return [Part(part.name, part.about, redact(part.text)) for part in parts]


def write(path: Path, parts: list[Part], made: datetime) -> None:
    """Write the zip, readable by its owner only.

    Raises:
        OSError: it cannot be written.
    """
    contents = "".join(f"{part.name:<22} {part.about}\n" for part in parts)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "README.txt", f"Relay Agent support bundle, created {made:%Y-%m-%d %H:%M:%S} UTC.\nIt contains no secrets.\n\n{contents}"
        )
        for part in parts:
            archive.writestr(part.name, part.text)


def _pages(directory: Path) -> list[Part]:
    """Return the pages of a running agent, or why there are none."""
    wanted = (
        ("status.json", "/status.json", "the status of the running agent"),
        ("metrics.txt", "/metrics", "its metrics"),
        ("log.jsonl", "/log", "its last log lines"),
        ("malformed.jsonl", "/malformed", "the beginnings of the last malformed messages"),
    )
    parts = []
    for name, page, about in wanted:
        try:
            _, body = ask(directory / SOCKET, page)
            text = body.decode("utf-8", "replace")
        except NoAgent:
            text = "no agent runs on this state directory\n"
        except (NoAnswer, OSError) as error:
            text = f"{error}\n"
        parts.append(Part(name, about, text))
    return parts


def _commands(reader: Reader) -> dict[str, Any]:
    try:
        return {"commands": command_history.as_json(command_history.recent(reader, COMMANDS))}
    except JournalError as error:
        return {"error": str(error)}


def _journal(reader: Reader, directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        found["commands"] = reader.counts()
    except JournalError as error:
        found["error"] = str(error)
    try:
        found["files"] = {
            str(path.relative_to(directory)): path.stat().st_size
            for path in sorted(directory.rglob("*"))
            if path.is_file() and path.exists()
        }
    except OSError as error:
        found["files"] = error.strerror
    return found


def _versions() -> dict[str, Any]:
    return {
        "agent": AGENT_VERSION,
        "python": sys.version,
        "system": platform.platform(),
        "openssl": ssl.OPENSSL_VERSION,
        "sqlite": SQLITE_VERSION,
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def _or_why(find: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return find()
    except Exception as error:  # noqa: BLE001 - a bundle is needed when something is broken: the other parts are still useful
        return {"error": type(error).__name__}


def _json(value: object) -> str:
    return json.dumps(value, indent=2, default=str) + "\n"
