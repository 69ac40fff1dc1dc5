"""What sends exchanges: one `requests.Session`, whose adapter holds each exchange's conversation.

The adapter is our own: requests' would rewrite URLs, join header fields, read `~/.netrc`, and its time-outs are per read. This module
owns what is switched off in requests, and which exchange is under way. It must not follow redirects or read bodies, and it knows
neither commands nor the platform. One Transport belongs to one thread; only `abort` may be called from another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import requests
from requests.adapters import BaseAdapter

from relay_agent.transport.connection_pool import ConnectionPool
from relay_agent.transport.conversation import Conversation
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.exchange import Exchange, ExchangeObserver
from relay_agent.transport.progress import Progress
from relay_agent.transport.streamed_response import StreamedResponse

_SILENT = ExchangeObserver()


class Transport:
    """Sends exchanges, one at a time, and keeps connections alive between them."""

    def __init__(self, dialer: Dialer, idle: ConnectionPool | None = None) -> None:
        """`idle` is the pool to share with other transports; its owner closes it. Without one it keeps its own."""
        self._dialer = dialer
        self._own_pool = ConnectionPool() if idle is None else None
        self._pool = idle or self._own_pool or ConnectionPool()
        self._session = _Session()
        self._under_way: Progress | None = None

    @contextmanager
    def send(self, exchange: Exchange, observer: ExchangeObserver = _SILENT) -> Iterator[StreamedResponse]:
        """Send the exchange and yield the response, its body unread; afterwards the connection is kept or closed.

        Raises:
            TransportFault: there is no response.
        """
        conversation = Conversation(exchange, observer, self._dialer, self._pool)
        self._under_way = conversation.progress
        try:
            yield self._session.converse(conversation)
        finally:
            self._under_way = None
            conversation.end()

    def abort(self) -> None:
        """Break off the exchange that is under way, from another thread; it ends with a TransportFault."""
        progress = self._under_way
        if progress is not None:
            progress.abort()

    def close(self) -> None:
        """Close every connection that is its own."""
        self._session.close()
        if self._own_pool is not None:
            self._own_pool.close()


class _Session(requests.Session):
    """Hands each request to our adapter and the response back, and does nothing else of what requests' sessions do."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def converse(self, conversation: Conversation) -> StreamedResponse:
        """Send the request of a conversation, by the session's adapter alone.

        `Session.send` would also look for hooks, store cookies of the agent's own and read the body of a redirect.
        """
        prepared = _Prepared(conversation)
        return cast("StreamedResponse", self.get_adapter(cast("str", prepared.url)).send(prepared))


class _Prepared(requests.PreparedRequest):
    """The request as requests passes it to the adapter. Its fields and body are the exchange's: nothing is parsed twice."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__()
        self.method = conversation.exchange.method
        self.url = str(conversation.exchange.url)
        self.conversation = conversation


class _Adapter(BaseAdapter):
    """What requests' Session calls to send a request."""

    def send(self, request: requests.PreparedRequest, *_args: Any, **_kwargs: Any) -> StreamedResponse:
        """Send it, and return the response with its body unread."""
        response = cast("_Prepared", request).conversation.begin()
        response.request, response.url = request, cast("str", request.url)
        return response

    def close(self) -> None:
        """Close nothing: connections are the pool's."""
