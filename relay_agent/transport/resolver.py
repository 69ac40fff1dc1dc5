"""Name resolution within a deadline, and bounds on the look-ups that run at the same time.

Nothing can interrupt `getaddrinfo`, so that each look-up runs on a thread of its own and is counted until it returns. Each leg has
its own Resolver: look-ups of targets never block those of the platform.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from relay_agent.core.callbacks import nothing
from relay_agent.core.clock import HOUR_SECONDS, RECHECK_SECONDS, Deadline
from relay_agent.core.failures import Code
from relay_agent.core.urls import literal_address
from relay_agent.transport.errors import TransportFault

MAX_LOOKUPS = 128
"""Look-ups of one Resolver that may run at the same time."""
# Bounds for each zone leave look-ups to other zones if a zone's servers do not respond.
ZONE_LOOKUPS = 16
"""Look-ups for names directly below one domain. Each domain further up may have twice as many as the one below it, up to half of all;
so may a host that was resolved recently."""
STRANGERS_LOOKUPS = 96
"""Look-ups that may run when one begins in a domain whose servers have not answered recently; the rest is kept for the others,
so that a sender cannot block them with invented names."""
DOMAINS_LOOKUPS = 112
"""The same for one that begins for a host which was not itself resolved recently: anybody can have a domain that answers once and then no
more, and any number of them."""
SHARE_LEFT = 3
"""A domain may have at most this fraction of the look-ups that are left, and one in any case: the more domains do not respond, the fewer
look-ups each further one gets, so that several of them leave some to the next."""
KNOWN_SECONDS = HOUR_SECONDS
"""How long a domain or host counts as one that has answered."""
_MAX_KNOWN = 1024
SHARED_SECONDS = 30.0
"""How long a look-up is shared with others for the same name. After that its query may have been lost."""
MAX_ADDRESSES = 64
"""Addresses of one name that are kept."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address: its family, its text, and the value that `connect` takes."""

    family: socket.AddressFamily
    text: str
    sockaddr: tuple[object, ...]


@dataclass(eq=False, slots=True)
class _LookUp:
    """One call of getaddrinfo; `found` is its result once `done` is set."""

    name: str
    began: float
    done: threading.Event = field(default_factory=threading.Event)
    found: list[Address] | TransportFault | None = None


class Resolver:
    """Looks names up, each on a thread of its own. Any thread may call."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._running = 0
        self._by_name: dict[str, _LookUp] = {}
        self._answering: OrderedDict[str, float] = OrderedDict()
        """The domains whose servers have answered, with the time."""
        self._resolved: OrderedDict[str, float] = OrderedDict()
        """The hosts that were resolved, with the time."""
        self._directly_below: Counter[str] = Counter()
        self._anywhere_below: Counter[str] = Counter()

    def resolve(self, host: str, port: int, deadline: Deadline, check: Callable[[], None] = nothing) -> list[Address]:
        """Return the addresses of `host` in the system's order (RFC 6724).

        `check` is called every RECHECK_SECONDS; an exception of it ends the wait.

        Raises:
            TransportFault: ENOTFOUND, EAI_AGAIN, or ETIMEDOUT if the deadline passes first.
        """
        if literal_address(host) is not None:
            # Without a final dot: with one the system takes the address for a name, and asks its servers.
            return _with_port(ask_system(host.rstrip("."), socket.AI_NUMERICHOST), port)
        name = host.rstrip(".").lower()
        if name == "invalid" or name.endswith(".invalid"):
            # RFC 6761 §6.4: such a name never exists, and a query would only leak it.
            raise TransportFault(Code.ENOTFOUND, f"getaddrinfo ENOTFOUND {host}")
        found = self._result(self._look_up(host, deadline, check), deadline, check)
        if isinstance(found, TransportFault):
            raise TransportFault(found.code, found.text)  # A copy for each caller: they add facts of their own.
        return _with_port(found, port)

    def _look_up(self, host: str, deadline: Deadline, check: Callable[[], None]) -> _LookUp:
        """Return the look-up of that name that is running, or start one as soon as the bounds allow it."""
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
                    raise TransportFault(Code.ETIMEDOUT, f"{late}: {obstacle} are still waiting for the DNS server")
                self._changed.wait(min(RECHECK_SECONDS, deadline.remaining()))

    @staticmethod
    def _result(look_up: _LookUp, deadline: Deadline, check: Callable[[], None]) -> list[Address] | TransportFault:
        while not deadline.passed:
            check()  # Again and again: there is no socket that an abort could shut.
            if look_up.done.wait(min(RECHECK_SECONDS, deadline.remaining())):
                assert look_up.found is not None
                return look_up.found
        raise TransportFault(Code.ETIMEDOUT, f"name resolution of {look_up.name} took longer than {deadline.seconds:g} s")

    # --- the bounds; callers hold the lock ---

    def _obstacle(self, host: str) -> str | None:
        """Return which look-ups reach a bound, so that one for `host` must wait; returns None if it may begin."""
        (parent, *further) = _zones(host)
        most, bound = self._bounds(host, parent)
        if self._running >= most:
            return f"{self._running} look-ups"
        if self._directly_below[parent] >= bound:
            return f"{self._directly_below[parent]} look-ups of names in {parent or 'the search domains'}"
        bound = max(bound, ZONE_LOOKUPS)  # A host that was resolved has the larger one further up too.
        for zone in further:
            bound = min(2 * bound, MAX_LOOKUPS // 2)
            if self._anywhere_below[zone] >= bound:
                return f"{self._anywhere_below[zone]} look-ups of names below {zone}"
        return None

    def _bounds(self, host: str, parent: str) -> tuple[int, int]:
        """Return how many look-ups may run, in all and in the host's domain, when one for the host begins."""
        if self._is_recent(self._resolved, host):
            return MAX_LOOKUPS, MAX_LOOKUPS // 2
        most = DOMAINS_LOOKUPS if self._is_recent(self._answering, parent) else STRANGERS_LOOKUPS
        return most, max(1, min(ZONE_LOOKUPS, (most - self._running) // SHARE_LEFT))

    def _start(self, host: str) -> _LookUp:
        look_up = _LookUp(host, self._monotonic())
        self._count(look_up)
        try:
            threading.Thread(target=self._run, args=(look_up,), name="lookup", daemon=True).start()
        except (RuntimeError, MemoryError):
            self._uncount(look_up)
            raise TransportFault(Code.EAI_AGAIN, f"getaddrinfo EAI_AGAIN {host}: no thread could be started for it") from None
        return look_up

    def _count(self, look_up: _LookUp) -> None:
        zones = list(_zones(look_up.name))
        self._running += 1
        self._by_name[look_up.name] = look_up
        self._directly_below[zones[0]] += 1
        self._anywhere_below.update(zones)

    def _uncount(self, look_up: _LookUp) -> None:
        zones = list(_zones(look_up.name))
        self._running -= 1
        if self._by_name.get(look_up.name) is look_up:
            del self._by_name[look_up.name]
        _subtract(self._directly_below, zones[:1])
        _subtract(self._anywhere_below, zones)
        self._changed.notify_all()

    def _remember(self, known: OrderedDict[str, float], name: str) -> None:
        known[name] = self._monotonic()
        known.move_to_end(name)
        if len(known) > _MAX_KNOWN:
            known.popitem(last=False)

    def _judge(self, host: str, found: list[Address] | TransportFault) -> None:
        """Remember that a host was resolved, or that its domain's servers have answered."""
        resolved, parent = not isinstance(found, TransportFault), next(_zones(host))
        if resolved:
            self._remember(self._resolved, host)
        # One answer among look-ups that hang is no sign that the next one will not; where they all come, the last one counts.
        if not self._directly_below[parent] and (resolved or (isinstance(found, TransportFault) and found.code == Code.ENOTFOUND)):
            self._remember(self._answering, parent)

    def _is_recent(self, known: OrderedDict[str, float], name: str) -> bool:
        return self._monotonic() - known.get(name, -KNOWN_SECONDS) < KNOWN_SECONDS

    # --- on the look-up's own thread ---

    def _run(self, look_up: _LookUp) -> None:
        found: list[Address] | TransportFault = TransportFault(Code.EAI_AGAIN, f"getaddrinfo EAI_AGAIN {look_up.name}")
        try:
            found = ask_system(look_up.name)
        except TransportFault as fault:
            found = fault
        finally:
            with self._changed:
                self._uncount(look_up)
                self._judge(look_up.name, found)
            look_up.found = found
            look_up.done.set()


def _zones(host: str) -> Iterator[str]:
    """Yield the domain directly above a name, then those further up that have at least two labels.

    For names of one label the domain is empty: they are all looked up in the machine's search domains.
    """
    labels = [label for label in host.lower().split(".") if label]
    yield ".".join(labels[1:])
    for start in range(2, len(labels) - 1):
        yield ".".join(labels[start:])


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


def _with_port(addresses: list[Address], port: int) -> list[Address]:
    return [Address(address.family, address.text, (address.sockaddr[0], port, *address.sockaddr[2:])) for address in addresses]
