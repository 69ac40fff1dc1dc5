"""Which idle connections are reused, and which are closed."""

from __future__ import annotations

import threading

import pytest

from relay_agent.transport.connection_pool import (
    MAX_AGE_SECONDS,
    MAX_SEVERAL,
    PATIENCE_SECONDS,
    ROOM_SECONDS,
    SEVERAL_SECONDS,
    ConnectionPool,
)


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
    """The limit is the target's `Keep-Alive: timeout=`."""
    long, short = Sock(), Sock()
    world.pool.keep("a", long, 20.0)
    world.pool.keep("a", short, 4.0)
    world.now = 4.5
    assert world.pool.take("a") is long
    assert short.closed and not long.closed


def test_no_connection_is_kept_once_a_new_one_has_waited_for_its_answer(world: World) -> None:
    """An instrument that serves one connection at a time answers on a second one only after the first is closed."""
    early, late, kept = Sock(), Sock(), Sock()
    with world.pool.opening("a"):
        world.pool.keep("a", early)
        assert not early.closed
        world.now = ROOM_SECONDS * 1.5
        world.pool.keep("a", late)
        assert early.closed and late.closed
    world.pool.keep("a", kept)
    assert world.pool.take("a") is kept


def test_a_connection_that_was_kept_before_is_closed_when_the_new_one_has_waited(world: World) -> None:
    """Though nothing else happens at this target: a thread looks."""
    pool, closed = ConnectionPool(), threading.Event()
    sock = Sock()
    sock.close = closed.set  # type: ignore[method-assign]
    with pool.opening("a"):
        pool.keep("a", sock)
        assert closed.wait(20)
    with world.pool.opening("a"), world.pool.opening("b"):
        late, elsewhere = Sock(), Sock()
        world.pool.keep("a", late)
        world.pool.keep("c", elsewhere)
        assert world.pool.make_room()
        assert not late.closed
        world.now = ROOM_SECONDS * 1.5
        assert not world.pool.make_room()
        assert late.closed and not elsewhere.closed


def test_a_connection_that_was_kept_just_before_the_new_one_began_is_closed_too() -> None:
    """Another worker may keep one after this one found none to reuse; then nothing else may happen at this target."""
    pool, closed = ConnectionPool(), threading.Event()
    sock = Sock()
    sock.close = closed.set  # type: ignore[method-assign]
    pool.keep("a", sock)
    with pool.opening("a"):
        assert closed.wait(5)


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


def show_two_answers_at_once(world: World, key: object) -> None:
    """Two new connections, of which the second is answered while the first one's answer is read."""
    world.pool.answering(key, reused_at=None)
    world.pool.answering(key, reused_at=None)
    world.pool.answered(key)
    world.pool.answered(key)


def is_kept(world: World, key: object) -> bool:
    """Whether a connection is kept beside a new one that waits longer than for a target of which nothing is known."""
    sock = Sock()
    with world.pool.opening(key):
        world.now += ROOM_SECONDS * 1.5
        world.pool.keep(key, sock)
    return world.pool.take(key) is sock


def test_a_target_that_answers_two_connections_at_the_same_time_keeps_its_connections(world: World) -> None:
    """Otherwise a busy target would get a new connection for nearly every request."""
    show_two_answers_at_once(world, "a")
    assert is_kept(world, "a") and not is_kept(world, "b")
    world.now += SEVERAL_SECONDS + 1
    assert not is_kept(world, "a")


def test_a_target_that_answers_a_new_connection_between_request_and_answer_of_a_kept_one_serves_several(world: World) -> None:
    """The kept one was open there all the time, since it is answered afterwards."""
    world.now = 5.0
    sent = world.now
    world.now = 5.1
    world.pool.answering("a", reused_at=None)
    world.pool.answered("a")
    world.now = 5.2
    world.pool.answering("a", reused_at=sent)
    world.pool.answered("a")
    assert is_kept(world, "a")


def test_a_new_connection_that_waits_ends_the_kept_ones_whatever_the_target_did_before(world: World) -> None:
    show_two_answers_at_once(world, "a")
    first, second = Sock(), Sock()
    with world.pool.opening("a"):
        world.pool.keep("a", first)
        assert not first.closed
        world.now = PATIENCE_SECONDS + 0.1
        world.pool.keep("a", second)
        assert first.closed and second.closed
    assert not is_kept(world, "a")


@pytest.mark.parametrize("reused", [False, True])
def test_answers_one_after_the_other_do_not_show_that_a_target_serves_several(world: World, reused: bool) -> None:
    world.pool.answering("a", reused_at=None)
    world.pool.answered("a")
    world.now = 1.0
    world.pool.answering("a", reused_at=1.0 if reused else None)
    world.pool.answered("a")
    assert not is_kept(world, "a")


def test_only_so_many_targets_are_remembered(world: World) -> None:
    for number in range(MAX_SEVERAL + 1):
        show_two_answers_at_once(world, number)
    assert is_kept(world, MAX_SEVERAL) and not is_kept(world, 0)
