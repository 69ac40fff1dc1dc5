"""Requests a page from the agent of a state directory, over its Unix socket.

Used by `status`, `check`, `qualify`, `support-bundle` and the container's health check. It must not read the journal.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from relay_agent.agent.admin.server import short
from relay_agent.storage.state_directory import SOCKET

ASK_SECONDS = 10.0
_PARTS = {"state", "sentence", "problems", "warnings", "agent", "time", "workers", "queue", "journal", "threads", "logLines"}
"""What every `status.json` of this version has."""


class NoAgent(Exception):
    """No agent runs on this state directory."""


class NoAnswer(Exception):
    """An agent runs, but its pages do not answer."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with short(self._path) as name:
            self.sock.connect(name)


def ask(path: Path, page: str, seconds: float = ASK_SECONDS) -> tuple[int, bytes]:
    """Return the status code and the body of a page, from the agent that listens at `path`.

    Raises:
        NoAgent: none listens there.
        NoAnswer: it does not answer in time, or not in HTTP.
        PermissionError: the socket belongs to another user.
    """
    connection = _Connection(path, seconds)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NoAgent(f"no agent listens at {path}") from None
    except PermissionError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"the agent's pages do not answer at {path} ({type(error).__name__})") from None
    finally:
        connection.close()


def ask_status(state_directory: Path, seconds: float = ASK_SECONDS) -> dict[str, Any]:
    """Return `status.json` of the agent on a state directory.

    Raises:
        NoAgent, NoAnswer, PermissionError: as `ask`; NoAnswer also if what answers is not an agent of this version.
    """
    _, body = ask(state_directory / SOCKET, "/status.json", seconds)
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.keys() >= _PARTS:
        raise NoAnswer(f"an agent of another version answers on {SOCKET}")
    return found


def agent_runs(state_directory: Path) -> bool:
    """Return whether an agent uses a state directory: one that does not answer, or is another user's, does too."""
    try:
        ask(state_directory / SOCKET, "/healthz")
    except NoAgent:
        return False
    except (NoAnswer, OSError):
        pass
    return True
