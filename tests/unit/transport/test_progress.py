"""The phase of an exchange, and how another thread aborts it."""

from __future__ import annotations

import pytest

from relay_agent.core.failures import Code, Phase
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import ExchangeObserver
from relay_agent.transport.progress import Progress
from tests.unit.transport.fake_socket import FakeSocket, exchange


def test_an_abort_shuts_the_socket_that_is_held_and_ends_the_exchange() -> None:
    progress, first, second = Progress(exchange()), FakeSocket(), FakeSocket()
    progress.hold(first)
    progress.hold(second)
    progress.abort()
    assert (len(first.shut), len(second.shut), second.closed) == (0, 1, False)
    with pytest.raises(TransportFault, match=r"dev\.lab\.example:80 was broken off") as caught:
        progress.check_stop()
    assert caught.value.code == Code.ECONNRESET


def test_an_abort_that_came_before_there_was_a_socket_is_not_lost() -> None:
    progress = Progress(exchange())
    progress.abort()
    with pytest.raises(TransportFault):
        progress.hold(FakeSocket())


def test_a_socket_that_was_released_is_out_of_reach() -> None:
    progress, sock = Progress(exchange()), FakeSocket()
    progress.hold(sock)
    assert progress.release() is sock
    assert progress.release() is None
    progress.abort()
    assert sock.shut == []


def test_a_socket_that_was_closed_meanwhile_needs_no_shutting() -> None:
    class Closed(FakeSocket):
        def shutdown(self, how: int) -> None:
            raise OSError("it is closed")

    progress = Progress(exchange())
    progress.hold(Closed())
    progress.abort()
    assert progress.aborted


def test_the_observer_sees_each_phase_and_may_end_it() -> None:
    class Observer(ExchangeObserver):
        def __init__(self) -> None:
            self.phases: list[Phase] = []
            self.stopped = False

        def entered(self, phase: Phase) -> None:
            self.phases.append(phase)

        def check_stop(self) -> None:
            if self.stopped:
                raise RuntimeError("stopped")

    observer = Observer()
    progress = Progress(exchange(), observer)
    progress.enter(Phase.NAME)
    progress.enter(Phase.TLS)
    assert (progress.phase, observer.phases) == (Phase.TLS, [Phase.NAME, Phase.TLS])
    progress.hold(FakeSocket())
    observer.stopped = True
    with pytest.raises(RuntimeError, match="stopped"):
        progress.hold(FakeSocket())
