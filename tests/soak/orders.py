"""The commands of a soak, drawn from a seed: what each asks for, and how it tells its target what to answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.soak.plan import INSTRUMENTS

# Method, and whether it carries an Idempotency-Key.
_METHODS = (("GET", False), ("PUT", False), ("DELETE", False), ("POST", False), ("PATCH", False), ("POST", True))
_WEIGHTS = (25, 15, 8, 27, 10, 15)
_IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})
_STATUSES = (200, 201, 404, 500)


def digest(data: bytes) -> str:
    """A digest that represents a body, so that no body need be kept."""
    return hashlib.sha256(data).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class Order:
    """One command to be sent. `status`, `size` and `seconds` are what its target answers when nothing is wrong with it."""

    number: int
    instrument: int
    method: str
    keyed: bool
    body: str
    timeout: float
    referenced: bool
    status: int
    size: int
    seconds: float

    @property
    def repeatable(self) -> bool:
        """Whether sending the request twice is as sending it once."""
        return self.keyed or self.method in _IDEMPOTENT

    def payload(self, address: str) -> dict[str, Any]:
        """The request that the agent is asked to make, of the instrument at `host:port`."""
        query = f"status={self.status}&size={self.size}&seconds={self.seconds:.2f}"
        payload: dict[str, Any] = {
            "method": self.method,
            "url": f"http://{address}/{self.instrument}/{self.number}?{query}",
            "headers": [{"Content-Type": "text/plain"}],
            "timeout": round(self.timeout, 2),
        }
        if self.keyed:
            payload["headers"].append({"Idempotency-Key": f"soak-{self.number}"})
        if self.body:
            payload["body"] = {"mode": "raw", "raw": self.body}
        return payload


def orders(seed: int) -> Iterator[Order]:
    """Draw orders without end."""
    rng = Random(f"{seed}-orders")
    number = 0
    while True:
        number += 1
        method, keyed = rng.choices(_METHODS, _WEIGHTS)[0]
        yield Order(
            number,
            rng.randrange(INSTRUMENTS),
            method,
            keyed,
            _body(rng, number) if method in ("PUT", "POST", "PATCH") else "",
            rng.uniform(0.4, 1.5) if rng.random() < 0.1 else rng.uniform(5.0, 9.0),
            rng.random() < 0.1,
            rng.choices(_STATUSES, (85, 5, 5, 5))[0],
            # Above 256 KiB an answer goes through S3.
            rng.choices((rng.randrange(2000), rng.randrange(20_000, 200_000), rng.randrange(300_000, 900_000)), (90, 6, 4))[0],
            rng.uniform(0.3, 1.5) if rng.random() < 0.06 else 0.0,
        )


def _body(rng: Random, number: int) -> str:
    # The large ones: above 16 KiB a payload waits only in the agent's journal, above 256 KiB it is sent by reference.
    size = rng.choices((rng.randrange(500), rng.randrange(20_000, 100_000), rng.randrange(300_000, 500_000)), (92, 6, 2))[0]
    return f"body of {number} " + "z" * size
