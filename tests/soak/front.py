"""A loopback port in front of another that can refuse, hang, and lose an answer after the request was forwarded.

Handles the sockets between the agent and its peers, all on the thread `soak-front`. It parses no HTTP except the words that
identify the call whose answer is to be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

HOST = "127.0.0.1"
# Below the range from which systems take the ports of outgoing connections: a closed port of that range may be
# taken by another, and a connect to it may even meet itself. Two soaks at a time begin at different places.
_PORTS = range(20_000 + os.getpid() % 10_000, 32_000)
_PATIENCE_SECONDS = 10.0


class FrontLoop:
    """The thread that all fronts share."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="soak-front")

    def __enter__(self) -> FrontLoop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._cancel_all)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self.loop.close()

    def call(self, act: Callable[[], Any]) -> Any:
        """Run a coroutine function in the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(_PATIENCE_SECONDS)

    async def _cancel_all(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Front:
    """One port. `refuse`, `hang`, `lose` and `restore` may be called from any thread but the loop's."""

    def __init__(self, fronts: FrontLoop, upstream: int = 0, host: str = HOST, port: int | None = None) -> None:
        self.upstream = upstream
        self.host = host
        self.port = free_port() if port is None else port
        self.lost_answers = 0
        self._fronts = fronts
        self._server: asyncio.Server | None = None
        self._live: set[asyncio.StreamWriter] = set()
        self._losing: dict[bytes, int] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        fronts.call(self._open)

    # -- any thread --------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Stop listening and reset every connection."""
        self._fronts.call(self._close)

    def cut(self) -> None:
        """Reset every connection, and go on listening."""
        self._fronts.call(self._cut)

    def hang(self) -> None:
        """Accept, and pass nothing on."""
        self._fronts.loop.call_soon_threadsafe(self._flowing.clear)

    def lose(self, words: bytes, count: int) -> None:
        """Of the next `count` calls that hold these words, pass on the request and reset instead of the answer; 0 ends it."""
        self._losing[words] = count

    def restore(self) -> None:
        """Be as a wire again; what hung is passed on late."""
        self._losing.clear()
        self._fronts.loop.call_soon_threadsafe(self._flowing.set)
        self._fronts.call(self._open)

    # -- the loop ----------------------------------------------------------------------------------

    async def _open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, backlog=128)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        for writer in list(self._live):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._live.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            await self._flowing.wait()
            answers, upstream = await asyncio.open_connection(HOST, self.upstream)
            self._live.add(upstream)
            await self._relay(reader, upstream, answers, writer)
        except OSError:
            _reset(writer)
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self._live.discard(end)
                    end.close()

    async def _relay(
        self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, answers: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        doomed = asyncio.Event()
        ways = [
            asyncio.create_task(self._pump(reader, upstream, lambda data: self._doom(data, doomed))),
            asyncio.create_task(self._pump(answers, writer, lambda _: not doomed.is_set())),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if any(not task.cancelled() and task.exception() is not None for task in done):
                _reset(writer)
                _reset(upstream)
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _doom(self, data: bytes, doomed: asyncio.Event) -> bool:
        for words, left in list(self._losing.items()):
            if left > 0 and words in data:
                self._losing[words] = left - 1
                self.lost_answers += 1
                doomed.set()
        return True

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[bytes], bool]) -> None:
        """Pass on what comes until its end; raise where the connection was reset, or is to be."""
        while data := await reader.read(65_536):
            await self._flowing.wait()
            if not passes(data):
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def free_port() -> int:
    """Return a port of loopback that nothing uses and no other front has taken."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            if port not in _taken:
                _taken.add(port)
                return port
    raise OSError("no port is free on loopback")


_taken: set[int] = set()
