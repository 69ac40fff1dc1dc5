"""Names to addresses, within a deadline.

This room owns the one thing Python cannot interrupt, `getaddrinfo`, and who may wait for it at the same time. It must
not judge addresses: that is the policy's. Each leg has a Resolver of its own, so that no look-up of a target takes
the platform's place.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import RECHECK_SECONDS, Deadline
from relay_agent.core.failures import Code
from relay_agent.core.urls import literal_address
from relay_agent.transport.errors import TransportFault

MAX_LOOKUPS = 128
"""Look-ups of one Resolver that may hang at the same time."""
ZONE_LOOKUPS = 16
"""Those of them for names directly below one domain. Each domain further up has room for twice as many as the one
below it, up to half of all, so that a zone whose servers are silent leaves places to its neighbours. A host that has answered of late may
be asked for beyond the sixteen, up to half of all."""
STRANGERS_LOOKUPS = 96
"""How many may be under way when one begins for a domain whose servers have not answered of late: the rest is kept for those
that have, whatever names senders think of."""
KNOWN_SECONDS = 3600.0
_MOST_KNOWN = 1024
SHARED_SECONDS = 30.0
"""How long a look-up is joined by others that want the same name; after that its question may have been lost."""
MAX_ADDRESSES = 64
"""Addresses that are kept of an answer."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to: socket family, the numeric address, and what `connect` takes."""

    family: socket.AddressFamily
    text: str
    sockaddr: tuple[object, ...]


@dataclass(eq=False, slots=True)
class _LookUp:
    """One question to the system, and its answer once `done` is set."""

    name: str
    began: float
    done: threading.Event = field(default_factory=threading.Event)
    found: list[Address] | TransportFault | None = None


class Resolver:
    """Looks names up on threads of their own, since a look-up that hangs cannot be stopped. Any thread may call."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._running = 0
        self._by_name: dict[str, _LookUp] = {}
        self._known: OrderedDict[str, float] = OrderedDict()
        """Domains whose servers answered, and hosts that have an address, and when."""
        self._directly_below: Counter[str] = Counter()
        self._anywhere_below: Counter[str] = Counter()

    def resolve(self, host: str, port: int, deadline: Deadline, check: Callable[[], None] = nothing) -> list[Address]:
        """Every stream address of `host`, in the system's order (RFC 6724); `check` raises what ends the wait before its time.

        Raises:
            TransportFault: ENOTFOUND, EAI_AGAIN, or ETIMEDOUT when the deadline passes first.
        """
        if literal_address(host) is not None:
            # The dot that ends a name makes an address one, which the system would ask its servers for.
            return _to_port(ask_system(host.rstrip("."), socket.AI_NUMERICHOST), port)
        name = host.rstrip(".").lower()
        if name == "invalid" or name.endswith(".invalid"):
            # RFC 6761 §6.4: this name never exists, and asking a resolver only leaks it.
            raise TransportFault(Code.ENOTFOUND, f"getaddrinfo ENOTFOUND {host}")
        found = self._answer(self._joined(host, deadline, check), deadline, check)
        if isinstance(found, TransportFault):
            raise TransportFault(found.code, found.text)  # It is shared: each asker has one of its own.
        return _to_port(found, port)

    def _joined(self, host: str, deadline: Deadline, check: Callable[[], None]) -> _LookUp:
        """The look-up of that name that is under way, or a new one as soon as there is a place for it."""
        while True:
            check()
            with self._changed:
                known = self._by_name.get(host)
                if known is not None and self._monotonic() - known.began < SHARED_SECONDS:
                    return known
                obstacle = self._obstacle(host)
                if obstacle is None:
                    return self._start(host)
                if deadline.passed:
                    late = f"name resolution of {host} did not begin within {deadline.seconds:g} s"
                    raise TransportFault(Code.ETIMEDOUT, f"{late}: {obstacle} are still waiting for the resolver")
                self._changed.wait(min(RECHECK_SECONDS, deadline.remaining()))

    @staticmethod
    def _answer(look_up: _LookUp, deadline: Deadline, check: Callable[[], None]) -> list[Address] | TransportFault:
        """What was found. No socket is waited for that could be shut, so it looks up now and then."""
        while not deadline.passed:
            check()
            if look_up.done.wait(min(RECHECK_SECONDS, deadline.remaining())):
                assert look_up.found is not None
                return look_up.found
        raise TransportFault(Code.ETIMEDOUT, f"name resolution of {look_up.name} took longer than {deadline.seconds:g} s")

    # --- places; the lock is held ---

    def _obstacle(self, host: str) -> str | None:
        """Which look-ups stand in the way of one more, None where there is a place."""
        if self._running >= MAX_LOOKUPS:
            return f"{self._running} look-ups"
        (parent, *further) = _zones(host)
        room = MAX_LOOKUPS // 2 if self._has_answered(host) else ZONE_LOOKUPS
        if self._directly_below[parent] >= room:
            return f"{self._directly_below[parent]} look-ups of names in {parent or 'the search domains'}"
        if self._running >= STRANGERS_LOOKUPS and not self._has_answered(parent):
            return f"{self._running} look-ups"
        room = ZONE_LOOKUPS
        for zone in further:
            room = min(2 * room, MAX_LOOKUPS // 2)
            if self._anywhere_below[zone] >= room:
                return f"{self._anywhere_below[zone]} look-ups of names below {zone}"
        return None

    def _start(self, host: str) -> _LookUp:
        look_up = _LookUp(host, self._monotonic())
        self._take(look_up)
        try:
            threading.Thread(target=self._run, args=(look_up,), name="lookup", daemon=True).start()
        except (RuntimeError, MemoryError):
            self._give_back(look_up)
            raise TransportFault(Code.EAI_AGAIN, f"getaddrinfo EAI_AGAIN {host}: the system gives no thread for it") from None
        return look_up

    def _take(self, look_up: _LookUp) -> None:
        zones = list(_zones(look_up.name))
        self._running += 1
        self._by_name[look_up.name] = look_up
        self._directly_below[zones[0]] += 1
        self._anywhere_below.update(zones)

    def _give_back(self, look_up: _LookUp) -> None:
        zones = list(_zones(look_up.name))
        self._running -= 1
        if self._by_name.get(look_up.name) is look_up:
            del self._by_name[look_up.name]
        _subtract(self._directly_below, zones[:1])
        _subtract(self._anywhere_below, zones)
        self._changed.notify_all()

    def _note(self, name: str) -> None:
        """Note that a domain, or a host, has answered."""
        self._known[name] = self._monotonic()
        self._known.move_to_end(name)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def _has_answered(self, name: str) -> bool:
        return self._monotonic() - self._known.get(name, -KNOWN_SECONDS) < KNOWN_SECONDS

    # --- on the look-up's own thread ---

    def _run(self, look_up: _LookUp) -> None:
        found: list[Address] | TransportFault = TransportFault(Code.EAI_AGAIN, f"getaddrinfo EAI_AGAIN {look_up.name}")
        try:
            found = ask_system(look_up.name)
        except TransportFault as fault:
            found = fault
        finally:
            with self._changed:
                self._give_back(look_up)
                if not isinstance(found, TransportFault) or found.code == Code.ENOTFOUND:
                    self._note(next(_zones(look_up.name)))
                if not isinstance(found, TransportFault):
                    self._note(look_up.name)
            look_up.found = found
            look_up.done.set()


def _zones(host: str) -> Iterator[str]:
    """The domain that a name stands directly in, then those above it with two labels or more.

    Names of one label stand in one domain together, without a name: they are asked for in the machine's search domains.
    """
    labels = [label for label in host.lower().split(".") if label]
    yield ".".join(labels[1:])
    for place in range(2, len(labels) - 1):
        yield ".".join(labels[place:])


def _subtract(counts: Counter[str], zones: list[str]) -> None:
    for zone in zones:
        counts[zone] -= 1
        if not counts[zone]:
            del counts[zone]


def ask_system(host: str, flags: int = 0) -> list[Address]:
    """Ask the system for the addresses of a host; nothing interrupts that."""
    try:
        found = socket.getaddrinfo(host, 0, 0, socket.SOCK_STREAM, 0, flags)[:MAX_ADDRESSES]
    except socket.gaierror as error:
        code = Code.ENOTFOUND if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else Code.EAI_AGAIN
        raise TransportFault(code, f"getaddrinfo {code} {host}") from None
    except MemoryError:
        raise TransportFault(Code.EAI_AGAIN, f"getaddrinfo {Code.EAI_AGAIN} {host}") from None
    except (ValueError, OverflowError, OSError):
        raise TransportFault(Code.ENOTFOUND, f"getaddrinfo ENOTFOUND {host}") from None
    if not found:
        raise TransportFault(Code.ENOTFOUND, f"getaddrinfo ENOTFOUND {host}: no address")
    return [Address(family, str(sockaddr[0]), sockaddr) for family, _, _, _, sockaddr in found]


def _to_port(addresses: list[Address], port: int) -> list[Address]:
    return [Address(address.family, address.text, (address.sockaddr[0], port, *address.sockaddr[2:])) for address in addresses]
