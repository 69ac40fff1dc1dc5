"""Serves the pages on TCP and on a Unix socket in the state directory, on the thread `admin`.

Owns the two sockets. waitress reads requests and writes responses, within the limits of `connections`. It must not know what the pages
show.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from waitress import wasyncore

from relay_agent.agent.admin.connections import Server, serve
from relay_agent.agent.admin.wsgi_app import Known, Pages
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.local_causes import ADMIN_CLOSED, ADMIN_SOCKET, ADMIN_TAKEN
from relay_agent.storage.state_directory import SOCKET
from relay_agent.telemetry.logger import Logger

LOOP_SECONDS = 1.0
IDLE_SECONDS = 10.0
"""How long an iteration waits while there is no client: a new one ends the wait."""
CROWD = 10
"""With more connections the loop pauses between iterations, so that many clients that send byte by byte do not cost one for each byte."""
TURN_SECONDS = 0.02
BACKLOG = 64


class Admin:
    """The sockets, and the loop that serves them."""

    def __init__(
        self,
        facts: Known,
        render_metrics: Callable[[], bytes],
        endpoint: tuple[str, int] | None,
        path: Path,
        log: Logger,
        local: Mapping[str, Callable[[], str]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen. A taken TCP port is only a warning: the Unix socket at `path` still answers. Only that socket shows the pages `local`.

        A disk without space for the Unix socket is only a warning too: the socket is created as soon as there is space.
        """
        self._path = path
        self._log = log
        self._monotonic = monotonic
        self._map: dict[int, Any] = {}
        self._servers: list[Server] = []
        self._problems: dict[str, Problem] = {}
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # It warns of every request that waits.
        self._local = Pages(facts, render_metrics, None, local)
        self._pages = [self._local]
        self._missing = self._serve(self._local, lambda: _unix(path), SOCKET) is None
        self.port: int | None = None
        if endpoint is not None:
            self._pages.append(Pages(facts, render_metrics, endpoint[0]))
            sock = self._serve(self._pages[-1], lambda: _tcp(endpoint), f"{endpoint[0]}:{endpoint[1]}")
            self.port = None if sock is None else sock.getsockname()[1]

    def show(self, facts: Known) -> None:
        """Show this status from now on; from any thread."""
        for pages in self._pages:
            pages.show(facts)

    def step(self) -> float:
        """Serve pending requests, or wait for one."""
        if self._missing:
            self._missing = self._serve(self._local, lambda: _unix(self._path)) is None
            if not self._missing:
                self._problems.pop(SOCKET, None)
        if not self._map:
            return LOOP_SECONDS
        for server in self._servers:
            server.close_late()
        idle = not self._missing and all(server.idle for server in self._servers)
        wasyncore.loop(timeout=IDLE_SECONDS if idle else LOOP_SECONDS, use_poll=True, map=self._map, count=1)
        return TURN_SECONDS if sum(server.connections for server in self._servers) > CROWD else 0.0

    def wake(self) -> None:
        """Make the loop run an iteration at once; from another thread."""
        for server in self._servers:
            server.pull_trigger()

    def close(self) -> None:
        """Stop listening; the loop must not be running."""
        for server in self._servers:
            server.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(map=self._map, ignore_all=True)
        self._path.unlink(missing_ok=True)

    @property
    def problems(self) -> list[Problem]:
        """The sockets that could not be opened."""
        return list(self._problems.values())

    def _serve(self, pages: Pages, listen: Callable[[], socket.socket], name: str | None = None) -> socket.socket | None:
        """Listen and serve; if that fails and `name` is given, report it under this name."""
        try:
            sock = listen()
            try:
                server = serve(pages, sock, self._map, address=name or SOCKET, log=self._log, monotonic=self._monotonic)
            except OSError:
                sock.close()
                raise
        except OSError as error:
            if name is not None:
                self._say(name, error)
            return None
        self._servers.append(server)
        return sock

    def _say(self, name: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        taken = ADMIN_TAKEN if error.errno == errno.EADDRINUSE else ADMIN_CLOSED
        cause = (ADMIN_SOCKET if name == SOCKET else taken).about(address=name, reason=reason)
        self._log.warning("admin-unavailable", address=name, reason=reason, cause=cause.cause, cure=cause.cure)
        self._problems[name] = Problem(f"{name}: {reason}", cause)


def _tcp(endpoint: tuple[str, int]) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except UnicodeError:  # An empty or overlong label.
        raise OSError(errno.EADDRNOTAVAIL, "no host can have this name") from None
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _unix(path: Path) -> socket.socket:
    """Listen on a path of any length. A socket left by a killed agent is removed: this agent holds the state directory's lock."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with short(path) as name:
            sock.bind(name)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


@contextlib.contextmanager
def short(path: Path) -> Iterator[str]:
    """Give a socket's path a name that fits into the 107 bytes that the system allows (unix(7))."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
