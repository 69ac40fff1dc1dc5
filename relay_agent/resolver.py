"""Names to addresses, within a deadline.

This room owns the one thing Python cannot interrupt, `getaddrinfo`. It must not judge addresses: that
is the policy's.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from relay_agent.clock import Deadline
from relay_agent.faults import TransportFault
from relay_agent.models import Code
from relay_agent.urls import literal_address

MAX_LOOKUPS = 128
"""Look-ups that may hang at the same time; a resolver that answers none of them is not asked more."""


LOOK_SECONDS = 0.1


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to: socket family, the numeric address, and what `connect` takes."""

    family: socket.AddressFamily
    text: str
    sockaddr: tuple[object, ...]


class Resolver:
    """Looks names up on threads of their own, since a look-up that hangs cannot be stopped."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(MAX_LOOKUPS)

    def resolve(self, host: str, port: int, deadline: Deadline, check: Callable[[], None] = _nothing) -> list[Address]:
        """Every stream address of `host`, in the system's order (RFC 6724); `check` raises what ends the wait before its time.

        Raises:
            TransportFault: ENOTFOUND, EAI_AGAIN, or ETIMEDOUT when the deadline passes first.
        """
        if literal_address(host) is not None:
            return _addresses(host, port)
        name = host.rstrip(".").lower()
        if name == "invalid" or name.endswith(".invalid"):
            # RFC 6761 §6.4: this name never exists, and asking a resolver only leaks it.
            raise TransportFault(Code.ENOTFOUND, f"getaddrinfo ENOTFOUND {host}")
        return self._look_up(host, port, deadline, check)

    def _look_up(self, host: str, port: int, deadline: Deadline, check: Callable[[], None]) -> list[Address]:
        if not self._free.acquire(blocking=False):
            raise TransportFault(Code.EAI_AGAIN, f"getaddrinfo EAI_AGAIN {host}: {MAX_LOOKUPS} look-ups are still waiting for the resolver")
        answer: queue.SimpleQueue[list[Address] | TransportFault] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(host, port, answer), name="lookup", daemon=True).start()
        found = self._wait(answer, deadline, check)
        if found is None:
            raise TransportFault(Code.ETIMEDOUT, f"name resolution of {host} took longer than {deadline.seconds:g} s")
        if isinstance(found, TransportFault):
            raise found
        return found

    @staticmethod
    def _wait(
        answer: queue.SimpleQueue[list[Address] | TransportFault], deadline: Deadline, check: Callable[[], None]
    ) -> list[Address] | TransportFault | None:
        """What was found, None where the time is over. No socket is waited for that could be shut, so it looks up now and then."""
        while not deadline.passed:
            check()
            with contextlib.suppress(queue.Empty):
                return answer.get(timeout=min(LOOK_SECONDS, deadline.remaining()))
        return None

    def _run(self, host: str, port: int, answer: queue.SimpleQueue[list[Address] | TransportFault]) -> None:
        try:
            answer.put(_addresses(host, port))
        except TransportFault as fault:
            answer.put(fault)
        finally:
            self._free.release()


def _addresses(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except socket.gaierror as error:
        code = Code.ENOTFOUND if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else Code.EAI_AGAIN
        raise TransportFault(code, f"getaddrinfo {code} {host}") from None
    except (UnicodeError, OSError):
        raise TransportFault(Code.ENOTFOUND, f"getaddrinfo ENOTFOUND {host}") from None
    return [Address(family, str(sockaddr[0]), sockaddr) for family, _, _, _, sockaddr in found]
