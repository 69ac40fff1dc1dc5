"""Asking an agent for a page over its Unix socket: what is answered, and which failure means that none runs."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_agent.agent.admin.client import NoAgent, NoAnswer, ask, ask_status
from tests.unit.agent.admin.scenes import Stepped, looping


@contextlib.contextmanager
def saying(path: Path, text: bytes | None) -> Iterator[None]:
    """Answer the first client at `path` with this text and close; with None, answer nothing until the test is over."""
    over = threading.Event()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            with listening.accept()[0] as client:
                client.recv(65536)
                if text is None:
                    over.wait(10)
                else:
                    client.sendall(text)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(10)


def test_a_page_comes_with_its_status_code(pages: Stepped) -> None:
    with looping(pages.admin):
        assert ask(pages.path, "/readyz") == (200, b"ready\n")
        assert ask(pages.path, "/nothing")[0] == 404


def test_a_path_that_is_too_long_for_a_socket_s_name_is_asked_all_the_same(tmp_path: Path) -> None:
    """The system allows 107 bytes (unix(7))."""
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    stepped = Stepped(directory)
    with looping(stepped.admin):
        assert ask(stepped.path, "/healthz")[0] == 200
    stepped.close()


@pytest.mark.parametrize("place", ["nothing", "missing/admin.sock", "file/admin.sock", "left"])
def test_where_nothing_listens_no_agent_runs(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(tmp_path / "left"))
    with pytest.raises(NoAgent, match="no agent listens at"):
        ask(tmp_path / place, "/healthz")


@pytest.mark.parametrize(
    "text", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"], ids=["nothing", "other", "cut"]
)
def test_what_listens_but_does_not_answer_in_http_gives_no_answer(tmp_path: Path, text: bytes) -> None:
    with saying(tmp_path / "a", text), pytest.raises(NoAnswer, match="the agent's pages do not answer at"):
        ask(tmp_path / "a", "/healthz")


def test_an_agent_that_hangs_gives_no_answer_in_time(tmp_path: Path) -> None:
    with saying(tmp_path / "a", None), pytest.raises(NoAnswer, match="TimeoutError"):
        ask(tmp_path / "a", "/healthz", 0.1)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"no JSON", b'{"state": "ready"}'])
def test_a_status_is_that_of_an_agent_of_this_version_or_none(tmp_path: Path, body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with saying(tmp_path / "admin.sock", head + body), pytest.raises(NoAnswer, match=r"an agent of another version answers on admin\.sock"):
        ask_status(tmp_path)
