"""Name resolution: literals and localhost, names that cannot exist, and look-ups that hang."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.resolver import (
    DOMAINS_LOOKUPS,
    MAX_ADDRESSES,
    MAX_LOOKUPS,
    SHARED_SECONDS,
    STRANGERS_LOOKUPS,
    ZONE_LOOKUPS,
    Address,
    Resolver,
)


@pytest.mark.parametrize(
    ("host", "text"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1"), ("0x7f.1", "127.0.0.1")]
)
def test_an_address_literal_is_returned_as_connect_takes_it(host: str, text: str) -> None:
    found = Resolver().resolve(host, 8080, Deadline(5))
    assert text in [address.text for address in found]
    assert all(address.sockaddr[1] == 8080 for address in found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("host", ["nowhere.invalid", "NOWHERE.INVALID.", "invalid"])
def test_a_name_that_never_exists_is_not_looked_up(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: pytest.fail("asked"))
    with pytest.raises(TransportFault) as caught:
        Resolver().resolve(host, 80, Deadline(5))
    assert caught.value.code == "ENOTFOUND"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "ENOTFOUND"),
        (socket.gaierror(socket.EAI_NODATA, "x"), "ENOTFOUND"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "EAI_AGAIN"),
        (socket.gaierror(socket.EAI_FAIL, "x"), "EAI_AGAIN"),
        (UnicodeError("label too long"), "ENOTFOUND"),
        (ValueError("embedded null byte"), "ENOTFOUND"),
        (OverflowError("too large"), "ENOTFOUND"),
        (MemoryError(), "EAI_AGAIN"),
    ],
)
def test_an_error_of_the_resolver_has_one_of_two_codes(error: Exception, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_args: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(TransportFault) as caught:
        Resolver().resolve("name.example", 80, Deadline(5))
    assert caught.value.code == code


def test_waiting_for_a_look_up_that_hangs_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: [] * release.wait(30))

    def check() -> None:
        raise TransportFault(Code.ECONNRESET, "broken off")

    with pytest.raises(TransportFault, match="broken off"):
        Resolver().resolve("name.example", 80, Deadline(30), check)
    release.set()


# --- look-ups that hang ---


class Names:
    """Replaces the system's resolver: answers at once, except for names that end with `silent`, which wait for `release`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *silent: str) -> None:
        self.silent = silent
        self.errors: dict[str, Exception | None] = {}
        """Names that are answered at once, whatever `silent` says: with the error, if there is one."""
        self.release = threading.Event()
        self._asked: Counter[str] = Counter()
        self._waiting = 0
        self._changed = threading.Condition()
        self._before = set(threading.enumerate())
        monkeypatch.setattr(socket, "getaddrinfo", self)

    @property
    def asked(self) -> Counter[str]:
        """The names that were looked up; waits until every look-up has ended or waits for `release`."""
        deadline = Deadline(10)
        with self._changed:
            while self._waiting != len(self.look_ups()):
                assert not deadline.passed
                self._changed.wait(0.01)  # The end of a thread sets no event.
            return self._asked

    def look_ups(self) -> list[threading.Thread]:
        """The threads of the look-ups that are running."""
        return [thread for thread in threading.enumerate() if thread.name == "lookup" and thread not in self._before]

    def __call__(self, host: str, port: int, *_args: int) -> list[object]:
        silent = host.endswith(self.silent) and host not in self.errors
        with self._changed:
            self._asked[host] += 1
            self._waiting += silent
            self._changed.notify_all()
        if silent:
            self.release.wait(30)
            with self._changed:
                self._waiting -= 1
        error = self.errors.get(host)
        if error is not None:
            raise error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """No look-up survives a test."""
    found = Names(monkeypatch, ".slow.lab.example", "silent")
    yield found
    found.release.set()
    for thread in found.look_ups():
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2 * MAX_LOOKUPS) as found:
        yield found


def _late(ours: Resolver, host: str) -> TransportFault:
    with pytest.raises(TransportFault) as caught:
        ours.resolve(host, 80, Deadline(0.001))
    assert caught.value.code == "ETIMEDOUT"
    return caught.value


def test_an_unresponsive_zone_leaves_look_ups_to_other_zones(names: Names) -> None:
    """However many names of a zone hang, names in its sibling zones, in its parent zone and elsewhere are resolved."""
    ours = Resolver()
    for number in range(3 * ZONE_LOOKUPS):
        _late(ours, f"h{number}.slow.lab.example")
    assert names.asked.total() == ZONE_LOOKUPS
    for host in ("good.lab.example", "slow.lab.example", "a.b.lab.example", "other.example", "localname"):
        assert ours.resolve(host, 443, Deadline(10)) == [Address(socket.AF_INET, "10.0.0.1", ("10.0.0.1", 443))]
    assert "16 look-ups of names in slow.lab.example are still waiting" in _late(ours, "one-more.slow.lab.example").message


def test_the_zones_below_one_domain_use_at_most_half_of_the_look_ups(names: Names) -> None:
    """Sub-zones do not multiply the look-ups of a domain."""
    ours = Resolver()
    names.silent = (".lab.example",)
    for deep in ("", "b.", "c.b.", "d.c.b."):
        for number in range(10 * ZONE_LOOKUPS):
            _late(ours, f"h{number}.z{number % 10}.{deep}lab.example")
    assert names.asked.total() == MAX_LOOKUPS // 2
    assert ours.resolve("good.elsewhere.example", 80, Deadline(10))
    names.silent = ()
    assert ours.resolve("good.lab.example", 80, Deadline(10))


def test_the_number_of_look_ups_is_bounded_whatever_their_zones(names: Names) -> None:
    ours = Resolver()
    names.silent = ()
    for number in range(MAX_LOOKUPS + 20):
        ours.resolve(f"h.z{number}.silent", 80, Deadline(10))
    names.silent = ("silent",)
    names.asked.clear()
    for number in range(MAX_LOOKUPS + 20):
        _late(ours, f"h.z{number}.silent")
    assert names.asked.total() == MAX_LOOKUPS
    assert f"{MAX_LOOKUPS} look-ups are still waiting" in _late(ours, "good.lab.example").message
    assert Resolver().resolve("good.lab.example", 80, Deadline(10)), "another leg's places are its own"


@pytest.mark.parametrize("name", ["h.z{}.silent", "x{0}.zone{0}silent", "x{}.silent"])
def test_domains_that_never_answered_leave_look_ups_to_those_that_have(names: Names, name: str) -> None:
    """A sender that invents any number of domains does not block the hosts of other senders."""
    ours = Resolver()
    assert ours.resolve("good.lab.example", 80, Deadline(10))
    for number in range(MAX_LOOKUPS + 20):
        _late(ours, name.format(number))
    assert names.asked.total() - 1 in (ZONE_LOOKUPS, STRANGERS_LOOKUPS)
    assert ours.resolve("another.lab.example", 80, Deadline(10))


def test_six_domains_that_never_answered_leave_look_ups_to_a_seventh(names: Names) -> None:
    """One sender may use several domains: each gets a part of what the others left."""
    ours = Resolver()
    names.silent = ("silent.example",)
    for number in range(20 * ZONE_LOOKUPS):
        _late(ours, f"h{number}.z{number % 6}silent.example")
    assert 2 * ZONE_LOOKUPS < names.asked.total() < STRANGERS_LOOKUPS
    assert ours.resolve("lims.good.example", 80, Deadline(10))


@pytest.mark.parametrize("domains", [8, 20, 200])
def test_domains_that_answered_once_leave_look_ups_to_hosts_that_were_resolved(names: Names, domains: int) -> None:
    ours = Resolver()
    assert ours.resolve("lims.good.example", 80, Deadline(10))
    names.silent = ()
    for number in range(domains):
        ours.resolve(f"first.z{number}silent", 80, Deadline(10))
    names.silent = ("silent",)
    names.asked.clear()
    for number in range(2 * MAX_LOOKUPS):
        _late(ours, f"h{number}.z{number % domains}silent")
    assert names.asked.total() <= DOMAINS_LOOKUPS
    assert ours.resolve("lims.good.example", 80, Deadline(10))


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "x"), None])
def test_one_answer_among_look_ups_that_hang_does_not_make_a_domain_known(names: Names, error: Exception | None) -> None:
    ours = Resolver()
    names.silent = ("silent",)
    domains = STRANGERS_LOOKUPS // 2
    for number in range(domains):
        _late(ours, f"h.z{number}.silent")
        names.errors[f"first.z{number}.silent"] = error
        with contextlib.suppress(TransportFault):
            ours.resolve(f"first.z{number}.silent", 80, Deadline(10))
    for number in range(STRANGERS_LOOKUPS):
        _late(ours, f"h.other{number}.silent")
    for number in range(domains):
        _late(ours, f"another.z{number}.silent")
    assert names.asked.total() == STRANGERS_LOOKUPS + domains
    assert not any(name.startswith("another") for name in names.asked)


def test_a_domain_is_known_once_all_its_look_ups_were_answered(names: Names) -> None:
    ours = Resolver()
    names.errors["nothing.lab.example"] = socket.gaierror(socket.EAI_NONAME, "x")
    with pytest.raises(TransportFault, match="ENOTFOUND"):
        ours.resolve("nothing.lab.example", 80, Deadline(10))
    for number in range(MAX_LOOKUPS):
        _late(ours, f"h.z{number}.silent")
    assert names.asked.total() == STRANGERS_LOOKUPS + 1
    assert ours.resolve("good.lab.example", 80, Deadline(10))


def test_a_host_that_was_resolved_before_is_looked_up_although_its_zone_is_full(names: Names) -> None:
    """Names of one label are all in one zone; names that do not exist must not block names that do."""
    ours = Resolver()
    assert ours.resolve("lims", 80, Deadline(10))
    for number in range(MAX_LOOKUPS):
        _late(ours, f"n{number}silent")
    assert ours.resolve("lims", 80, Deadline(10))
    names.silent = ("lims", "silent")
    assert "look-ups of names in the search domains" in _late(ours, "another").message
    _late(ours, "lims")
    assert names.asked["lims"] == 3


def test_a_host_that_was_resolved_before_is_looked_up_although_its_sisters_domains_are_full(names: Names) -> None:
    ours = Resolver()
    names.silent = ("c.lab.example", "d.lab.example", "e.lab.example")
    assert ours.resolve("press.b.lab.example", 80, Deadline(10))
    for zone in ("c", "d"):
        for number in range(ZONE_LOOKUPS):
            _late(ours, f"n{number}.{zone}.lab.example")
    assert "look-ups of names below lab.example" in _late(ours, "stranger.e.lab.example").message
    assert ours.resolve("press.b.lab.example", 80, Deadline(10))


def test_names_of_one_label_share_a_zone(names: Names) -> None:
    """They are looked up in the same search domains."""
    ours = Resolver()
    for number in range(MAX_LOOKUPS):
        _late(ours, f"n{number}silent")
    assert names.asked.total() == ZONE_LOOKUPS
    assert "look-ups of names in the search domains" in _late(ours, "localname").message
    assert ours.resolve("good.example", 80, Deadline(10))


def test_one_look_up_serves_all_callers_with_the_same_name(names: Names, pool: ThreadPoolExecutor) -> None:
    """Callers ask for different ports; the system is asked once."""
    ours = Resolver()
    barrier = threading.Barrier(100)

    def ask(port: int) -> object:
        steps = iter((lambda: None, barrier.wait))  # before it asks, and when it waits for the answer
        (address,) = ours.resolve("h.slow.lab.example", port, Deadline(10), lambda: next(steps, lambda: None)())
        return address.sockaddr

    asking = [pool.submit(ask, port) for port in range(1, 100)]
    barrier.wait(10)
    names.release.set()
    assert [future.result(10) for future in asking] == [("10.0.0.1", port) for port in range(1, 100)]
    assert names.asked.total() == 1


def test_a_look_up_above_the_bound_waits(names: Names, pool: ThreadPoolExecutor) -> None:
    ours = Resolver()
    for number in range(ZONE_LOOKUPS):
        _late(ours, f"h{number}.slow.lab.example")
    asked = threading.Event()
    waiting: Future[list[Address]] = pool.submit(ours.resolve, "late.slow.lab.example", 80, Deadline(20), asked.set)
    assert asked.wait(10)
    assert not waiting.done()
    names.release.set()
    assert waiting.result(10)


def test_waiting_to_begin_a_look_up_can_be_interrupted(names: Names) -> None:
    ours = Resolver()
    for number in range(ZONE_LOOKUPS):
        _late(ours, f"h{number}.slow.lab.example")
    calls = iter([None, None, TransportFault(Code.ECONNRESET, "broken off")])

    def check() -> None:
        if (fault := next(calls)) is not None:
            raise fault

    with pytest.raises(TransportFault, match="broken off"):
        ours.resolve("late.slow.lab.example", 80, Deadline(30), check)


def test_an_old_look_up_is_not_shared(names: Names) -> None:
    """A lost query does not block its name permanently."""
    now = 0.0
    ours = Resolver(lambda: now)
    _late(ours, "h.slow.lab.example")
    _late(ours, "h.slow.lab.example")
    assert names.asked.total() == 1
    now, names.silent = SHARED_SECONDS, ("nothing",)
    assert ours.resolve("h.slow.lab.example", 80, Deadline(10))


def test_a_thread_that_cannot_be_started_is_a_fault_and_is_not_counted(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Resolver()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for number in range(MAX_LOOKUPS + 1):
            with pytest.raises(TransportFault) as caught:
                ours.resolve(f"h{number}.lab.example", 80, Deadline(5))
            assert caught.value.code == "EAI_AGAIN"
    assert ours.resolve("good.lab.example", 80, Deadline(10))


def test_finished_look_ups_leave_no_counts_behind(names: Names) -> None:
    ours = Resolver()
    for number in range(50):
        ours.resolve(f"h.z{number}.lab.example", 80, Deadline(10))
    _late(ours, "h.slow.lab.example")
    names.release.set()
    ours.resolve("h.slow.lab.example", 80, Deadline(10))
    assert (ours._running, len(ours._by_name), len(ours._directly_below), len(ours._anywhere_below)) == (0, 0, 0, 0)


def test_the_number_of_addresses_that_are_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.{number // 256}.{number % 256}", 0)) for number in range(5000)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: many)
    assert len(Resolver().resolve("name.example", 80, Deadline(10))) == MAX_ADDRESSES


@pytest.mark.parametrize("host", ["127.0.0.1.", "127.1.", "10.1.2.3", "fe80::1%1"])
def test_an_address_literal_is_never_looked_up(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would query its DNS servers for `127.0.0.1.`, and that cannot be interrupted."""
    real, flags = socket.getaddrinfo, []

    def note(*args: object) -> object:
        flags.append(args[5])
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", note)
    assert Resolver().resolve(host, 80, Deadline(5))
    assert flags == [socket.AI_NUMERICHOST]
