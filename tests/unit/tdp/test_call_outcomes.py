"""Each call to the platform is counted once, by a fixed word for its outcome."""

from __future__ import annotations

import pytest

from relay_agent.core.errors import (
    Call,
    CredentialsExpired,
    NotThePlatform,
    PayloadRefused,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    RateLimited,
    UnknownAgent,
)
from relay_agent.tdp.call_outcomes import WORDS, count_nothing, count_outcome


class Counted(list[tuple[str, str]]):
    def __call__(self, call: str, outcome: str) -> None:
        self.append((call, outcome))


def test_a_call_that_succeeds_is_counted_as_ok() -> None:
    counted = Counted()
    with count_outcome(counted, Call.CONFIG):
        assert counted == []
    assert counted == [("agent/config", "ok")]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (PlatformUnreachable(Call.STATUS, "x"), "unreachable"),
        (PlatformRefused(Call.STATUS, "x"), "refused"),
        (UnknownAgent(Call.STATUS, "x"), "unknown_agent"),
        (RateLimited(Call.STATUS, 1.0), "rate_limited"),
        (CredentialsExpired(Call.STATUS, "x"), "credentials_expired"),
        (NotThePlatform(Call.STATUS, "x"), "not_the_platform"),
        (PlatformError(Call.STATUS, "x"), "error"),
        (PayloadRefused(Call.UPLOAD, "x"), "error"),
        (QueueUnavailable(Call.SQS_SEND, "x"), "error"),
        (ValueError("not the platform's at all"), "error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_a_call_that_fails_is_counted_by_its_kind_and_its_error_comes_through(error: Exception, word: str) -> None:
    counted = Counted()
    with pytest.raises(type(error)) as caught, count_outcome(counted, Call.STATUS):
        raise error
    assert (caught.value, counted) == (error, [("agent/status", word)])


def test_no_kind_hides_another_because_it_stands_before_it() -> None:
    kinds = [kind for kind, _ in WORDS]
    assert [(kind, other) for place, kind in enumerate(kinds) for other in kinds[place + 1 :] if issubclass(other, kind)] == []


def test_what_ends_the_process_is_no_outcome() -> None:
    counted = Counted()
    with pytest.raises(KeyboardInterrupt), count_outcome(counted, Call.STATUS):
        raise KeyboardInterrupt
    assert counted == []


def test_without_metrics_the_call_is_made_all_the_same() -> None:
    with count_outcome(count_nothing, Call.STATUS):
        done = True
    assert done
