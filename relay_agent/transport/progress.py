"""The phase of one exchange, and how another thread aborts it.

This module owns the phase, and the socket that the exchange waits on. It must not read or write on that socket.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

from relay_agent.core.failures import Code, Phase
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange, ExchangeObserver


class Progress:
    """The progress of one exchange. Belongs to the thread that sends; only `abort` may be called from another."""

    def __init__(self, exchange: Exchange, observer: ExchangeObserver | None = None) -> None:
        self.phase = Phase.CONNECT
        """What is being waited for."""
        self._exchange = exchange
        self._observer = observer or ExchangeObserver()
        self._sock: Any = None
        self._aborted = False
        self._handing_over = threading.Lock()
        """Held while the socket is shut or released: once in the pool, it may be another worker's at any moment."""

    def enter(self, phase: Phase) -> None:
        """Note what is waited for from now on."""
        self.phase = phase
        self._observer.entered(phase)

    def check_addresses(self, addresses: Sequence[str]) -> None:
        """Raise TransportFault if the call must not be made; `addresses` are all those to which the URL's host resolves."""
        self._observer.check_addresses(addresses)

    def hold(self, sock: Any) -> None:
        """Let `abort` shut down this socket, instead of the previous one."""
        self._sock = sock  # First: an abort between the two lines would otherwise neither find the socket nor be noticed.
        self.check_stop()

    def check_stop(self) -> None:
        """Raise what ends the exchange early.

        Raises:
            TransportFault: it was aborted. The observer may raise anything else.
        """
        if self._aborted:
            raise TransportFault(Code.ECONNRESET, f"the exchange with {self._exchange.peer} was broken off")
        self._observer.check_stop()

    def release(self) -> Any:
        """Return the socket, which `abort` no longer shuts down; None if there is none."""
        with self._handing_over:
            sock, self._sock = self._sock, None
        return sock

    @property
    def aborted(self) -> bool:
        """Whether it was aborted. After `release` this no longer concerns the socket."""
        return self._aborted

    def abort(self) -> None:
        """Shut down the socket; the thread that waits on it, or for a name or a connection, wakes with an error. Any thread."""
        with self._handing_over:
            self._aborted = True
            if self._sock is not None:
                with contextlib.suppress(OSError):  # It is already closed, which is the purpose.
                    self._sock.shutdown(socket.SHUT_RDWR)
