"""The two sockets of the pages and their loop: neither keeps the other from answering, and one that is missing is reported."""

from __future__ import annotations

import contextlib
import http.client
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay_agent.agent.admin import connections, server
from relay_agent.agent.admin.client import ask
from relay_agent.agent.admin.connections import ANSWER_SECONDS, CONNECTIONS
from relay_agent.agent.admin.server import Admin
from relay_agent.diagnostics.causes import Problem
from relay_agent.diagnostics.local_causes import ADMIN_SOCKET, ADMIN_TAKEN, DEAD
from tests.unit.agent.admin.scenes import GET, MANNERS, Known, Rounds, Stepped, looping, never_read, pipeline, urgent
from tests.unit.telemetry.scenes import Written


@pytest.mark.parametrize("misbehave", MANNERS)
def test_the_unix_socket_answers_while_tcp_is_full_and_tcp_recovers_by_itself(
    pages: Stepped, misbehave: Callable[[socket.socket], None]
) -> None:
    crowd = [pages.connect() for _ in range(CONNECTIONS)]
    for client in crowd if misbehave not in (never_read, pipeline) else crowd[:5]:
        misbehave(client)
    for _ in range(5):
        pages.step()
    assert b"200 OK" in pages.asked(tcp=False)
    late = pages.call()
    late.sendall(GET)
    pages.now += ANSWER_SECONDS
    assert b"200 OK" in pages.answered(late)
    assert pages.connected == 1


def test_many_clients_are_served_in_turns(pages: Stepped) -> None:
    assert pages.admin.step() == 0
    for _ in range(server.CROWD + 1):
        pages.connect()
    assert pages.admin.step() == server.TURN_SECONDS


@pytest.mark.parametrize("misbehave", [*MANNERS, urgent])
def test_an_idle_client_costs_nothing(pages: Stepped, misbehave: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop sleeps 0.05 s here where nothing happens."""
    misbehave(pages.connect())
    for _ in range(5):
        pages.step()
    pages.until(lambda: not pages.at_work)
    assert Rounds(monkeypatch).within(pages, 0.5) < 30


def test_the_health_check_is_answered_while_the_port_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    stepped = Stepped(tmp_path, time.monotonic)
    with looping(stepped.admin), contextlib.ExitStack() as crowd:
        for _ in range(CONNECTIONS + 20):
            crowd.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", stepped.admin.port or 0)))).sendall(b"G")
        assert ask(stepped.path, "/healthz")[0] == 200
        with contextlib.closing(socket.create_connection(("127.0.0.1", stepped.admin.port or 0), timeout=20)) as client:
            client.sendall(GET)
            assert b"200 OK" in client.recv(65536)
    stepped.close()


# --- a socket that cannot be opened ---


class Opened:
    """The pages on the sockets that could be opened, and what was logged meanwhile."""

    def __init__(self, path: Path, endpoint: tuple[str, int] | None = None) -> None:
        self.written = Written()
        self.admin = Admin(Known(), lambda: b"metrics", endpoint, path, self.written.log, {"/log": lambda: "the last lines\n"})

    @property
    def logged(self) -> list[tuple[str, str]]:
        return [(line["event"], line["address"]) for line in self.written.lines]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Opened]]:
    monkeypatch.setattr(server, "LOOP_SECONDS", 0.05)
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    made: list[Opened] = []

    def make(path: Path = tmp_path / "admin.sock", **more: tuple[str, int]) -> Opened:
        made.append(Opened(path, **more))
        return made[-1]

    yield make
    for one in made:
        one.admin.close()


def test_a_taken_port_is_a_problem_with_a_cure_and_the_unix_socket_answers(tmp_path: Path, opened: Callable[..., Opened]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = opened(endpoint=other.getsockname())
        name = f"127.0.0.1:{other.getsockname()[1]}"
    (problem,) = found.admin.problems
    assert (problem.reason, problem.cause) == (
        f"{name}: Address already in use",
        ADMIN_TAKEN.about(address=name, reason="Address already in use"),
    )
    assert (found.admin.port, found.logged) == (None, [("admin-unavailable", name)])
    with looping(found.admin):
        assert ask(tmp_path / "admin.sock", "/healthz") == (200, b"alive\n")


def test_a_name_that_no_host_can_have_is_a_warning(opened: Callable[..., Opened]) -> None:
    found = opened(endpoint=("x..y", 8080))
    assert (found.admin.port, found.logged) == (None, [("admin-unavailable", "x..y:8080")])


def test_without_an_address_only_the_unix_socket_listens(opened: Callable[..., Opened]) -> None:
    found = opened()
    assert (found.admin.port, found.admin.problems, found.logged) == (None, [], [])


def test_a_unix_socket_that_cannot_be_created_is_reported_and_created_as_soon_as_it_can_be(
    tmp_path: Path, opened: Callable[..., Opened]
) -> None:
    path = tmp_path / "state" / "admin.sock"
    found = opened(path)
    assert [problem.cause.id for problem in found.admin.problems] == [ADMIN_SOCKET.id]
    assert found.admin.step() == server.LOOP_SECONDS
    path.parent.mkdir()
    found.admin.step()
    assert found.admin.problems == []
    with looping(found.admin):
        assert ask(path, "/healthz")[0] == 200
    assert found.logged[:1] == [("admin-unavailable", "admin.sock")]


def test_the_unix_socket_is_for_its_owner_only_and_goes_with_the_agent(tmp_path: Path, opened: Callable[..., Opened]) -> None:
    found = opened()
    assert stat.S_IMODE((tmp_path / "admin.sock").stat().st_mode) == 0o600
    found.admin.close()
    assert not (tmp_path / "admin.sock").exists()


def test_a_socket_that_a_killed_agent_left_is_replaced(tmp_path: Path, opened: Callable[..., Opened]) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(tmp_path / "admin.sock"))
    found = opened()
    assert found.admin.problems == []
    with looping(found.admin):
        assert ask(tmp_path / "admin.sock", "/healthz")[0] == 200


def test_only_the_unix_socket_shows_the_log(tmp_path: Path, opened: Callable[..., Opened]) -> None:
    found = opened(endpoint=("127.0.0.1", 0))
    with looping(found.admin):
        assert ask(tmp_path / "admin.sock", "/log") == (200, b"the last lines\n")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", found.admin.port, timeout=10)) as client:
            client.request("GET", "/log")
            assert client.getresponse().status == 404


def test_both_sockets_show_the_status_that_they_were_given_last(tmp_path: Path, opened: Callable[..., Opened]) -> None:
    class Dead(Known):
        def live(self) -> list[Problem]:
            return [Problem("the thread sender is dead", DEAD)]

    found = opened(endpoint=("127.0.0.1", 0))
    found.admin.show(Dead())
    with looping(found.admin):
        assert ask(tmp_path / "admin.sock", "/healthz")[0] == 503
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", found.admin.port, timeout=10)) as client:
            client.request("GET", "/healthz")
            assert client.getresponse().status == 503
