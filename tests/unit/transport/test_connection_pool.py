"""Which idle connections are reused, and which are closed."""

from __future__ import annotations

import pytest

from relay_agent.transport.connection_pool import MAX_AGE_SECONDS, ConnectionPool


class Sock:
    """Something that can be closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


class World:
    """A pool, and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pool = ConnectionPool(3, lambda: self.now)


@pytest.fixture
def world() -> World:
    return World()


def test_the_most_recently_used_connection_of_a_key_is_taken_first(world: World) -> None:
    first, second = Sock(), Sock()
    world.pool.keep("a", first)
    world.now = 1.0
    world.pool.keep("a", second)
    world.now = 1.5
    assert world.pool.take("b") is None
    assert world.pool.take("a") is second
    assert world.pool.take("a") is first
    assert world.pool.take("a") is None


def test_the_oldest_connection_is_closed_if_there_are_too_many(world: World) -> None:
    socks = [Sock() for _ in range(5)]
    for place, sock in enumerate(socks):
        world.pool.keep(place, sock)
    assert [sock.closed for sock in socks] == [True, True, False, False, False]


def test_a_connection_that_is_too_old_is_closed_and_not_reused(world: World) -> None:
    sock = Sock()
    world.pool.keep("a", sock)
    world.now = MAX_AGE_SECONDS + 1
    assert world.pool.take("a") is None
    assert sock.closed


def test_a_connection_is_reused_only_as_long_as_it_may_be_kept(world: World) -> None:
    """The time comes from the target's `Keep-Alive: timeout=`."""
    long, short = Sock(), Sock()
    world.pool.keep("a", long, 20.0)
    world.pool.keep("a", short, 4.0)
    world.now = 4.5
    assert world.pool.take("a") is long
    assert short.closed and not long.closed


def test_no_connection_is_kept_while_a_new_one_has_no_answer(world: World) -> None:
    """An instrument that serves one connection at a time answers on the second only when the first is closed."""
    sock = Sock()
    world.pool.opening("a")
    world.pool.keep("a", sock)
    assert sock.closed
    world.pool.opened("a")
    kept = Sock()
    world.pool.keep("a", kept)
    assert world.pool.take("a") is kept


def test_a_connection_that_cannot_be_closed_does_not_leave_the_others_open(world: World) -> None:
    class Broken(Sock):
        def close(self) -> None:
            raise OSError("the system says no")

    socks = [Broken(), Sock(), Broken(), Sock()]
    pool = ConnectionPool(4)
    for sock in socks:
        pool.keep("a", sock)
    pool.close()
    assert [sock.closed for sock in socks] == [False, True, False, True]


def test_closing_closes_all(world: World) -> None:
    socks = [Sock(), Sock()]
    for sock in socks:
        world.pool.keep("a", sock)
    world.pool.close()
    assert all(sock.closed for sock in socks)
