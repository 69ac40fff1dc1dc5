"""Which requests may be sent twice (PROTOCOL §4)."""

from __future__ import annotations

import pytest

from relay_agent.core.models import may_repeat


@pytest.mark.parametrize(
    ("method", "headers", "repeat"),
    [
        ("GET", (), True),
        ("DELETE", (), True),
        ("POST", (), False),
        ("get", (), False),
        ("PATCH", (("X-A", "1"),), False),
        ("POST", (("Idempotency-Key", "k"),), True),
    ],
)
def test_a_request_may_be_repeated_if_its_method_is_idempotent_or_it_has_an_idempotency_key(
    method: str, headers: tuple[tuple[str, str], ...], repeat: bool
) -> None:
    assert may_repeat(method, headers) is repeat
