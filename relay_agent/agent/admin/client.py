"""Requests a page from the agent of a state directory, over its Unix socket.

Used by `status`, `support-bundle` and the container's health check. It must not read the journal.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

from relay_agent.agent.admin.server import short

ASK_SECONDS = 10.0


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
