"""The response to an exchange, its body still on the connection.

This module owns how the body is read, and what goes wrong while it is. It must not close or keep the connection.
"""

from __future__ import annotations

import contextlib
import http.client
from typing import Any

import requests

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Phase
from relay_agent.core.models import Headers
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.exchange import Exchange
from relay_agent.transport.fault_mapping import explain
from relay_agent.transport.response_parser import Response

DRAIN_BYTES = 64 * 1024
DRAIN_SECONDS = 0.1


class StreamedResponse(requests.Response):
    """A requests.Response that reads its body straight from http.client's response, which is its `raw`.

    `fields` takes the place of `headers` and `cookies`, which stay empty: requests would join fields of one name, and take seconds
    to parse a cookie of 250 KB.
    """

    raw: Response

    def __init__(self, raw: Response, exchange: Exchange, sock: Any) -> None:
        super().__init__()
        self.raw = raw
        self.status_code = raw.status
        self.reason = raw.reason
        self.fields: Headers = tuple(raw.fields)
        """The header fields in order, names and repeats as received."""
        self.body_began = False
        """Whether a byte of the body was read."""
        self._exchange = exchange
        self._sock = sock

    @property
    def announced_length(self) -> int:
        """The bytes of body that the response says are still to come, 0 if it does not say."""
        return self.raw.length or 0

    def read(self, size: int) -> bytes:
        """Read that much of the body as it was sent, codings and all; less, and then nothing, at its end.

        Raises:
            TransportFault: it broke off, or the exchange's deadline passed.
        """
        try:
            data = self.raw.read(size)
        except (http.client.HTTPException, OSError) as error:
            raise explain(error, self._exchange, Phase.BODY) from None
        self.body_began = self.body_began or bool(data)
        return data

    def check_deadline(self) -> None:
        """Raise TransportFault once the exchange's deadline has passed.

        `read` looks by itself; this is for work on what has been read.
        """
        if self._exchange.deadline.passed:
            raise explain(TimeoutError(), self._exchange, Phase.BODY)

    def drain(self, limit: int = DRAIN_BYTES, seconds: float = DRAIN_SECONDS) -> None:
        """Read and discard a short body, so that the connection can be kept; a long or slow one is not read."""
        self._sock.deadline = Deadline(min(seconds, self._exchange.deadline.remaining()))
        with contextlib.suppress(TransportFault):
            if len(self.read(limit)) == limit:
                self.read(1)
