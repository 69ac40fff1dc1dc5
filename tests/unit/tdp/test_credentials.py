"""AWS credentials that all threads share: when they are due, and who fetches them."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from relay_agent.core.errors import (
    Call,
    PlatformError,
)
from tests.unit.tdp.scenes import NOW, Source

# --- credentials ---


def test_credentials_are_due_ten_minutes_before_they_expire() -> None:
    source = Source()
    assert source.credentials.due_seconds() == 0
    source.credentials.renew(None)
    assert source.credentials.due_seconds() == 50 * 60
    assert source.credentials.expiration == NOW + timedelta(hours=1)
    source.now += timedelta(minutes=50)
    assert source.credentials.due_seconds() == 0


def test_short_lived_credentials_are_due_a_fifth_of_their_lifetime_before_they_expire() -> None:
    source = Source(timedelta(seconds=60))
    source.credentials.renew(None)
    assert source.credentials.due_seconds() == 48


def test_signing_uses_the_current_credentials_and_fetches_only_once() -> None:
    source = Source()
    for _ in range(3):
        frozen = source.credentials.get_frozen_credentials()
        assert (frozen.access_key, frozen.secret_key, frozen.token) == ("key-1", "secret-1", "token-1")
    source.credentials.renew("key-1")
    assert source.credentials.get_frozen_credentials().access_key == "key-2"
    assert source.fetches == 2


def test_a_secret_is_passed_to_the_redactor_before_it_is_used() -> None:
    source = Source()
    source.credentials.renew(None)
    assert source.seen == [("secret-1", "token-1")]


def test_credentials_refused_long_ago_are_not_renewed_again() -> None:
    source = Source()
    source.credentials.renew(None)
    source.credentials.renew("key-1")
    assert source.credentials.renew("key-1").access_key == "key-2"
    assert source.fetches == 2


def test_many_threads_whose_credentials_are_refused_fetch_once() -> None:
    source = Source()
    source.credentials.renew(None)
    used, entered, go = source.credentials.access_key_in_use, threading.Event(), threading.Event()

    def gate() -> None:
        entered.set()
        assert go.wait(10)

    source.gate = gate
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(source.credentials.renew(used).access_key)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    assert source.credentials.get_frozen_credentials().access_key == "key-1"
    go.set()
    for thread in threads:
        thread.join(10)
    assert (found, source.fetches) == (["key-2"] * 8, 2)


def test_a_failed_renewal_keeps_the_old_credentials() -> None:
    source = Source()
    source.credentials.renew(None)
    source.fault = PlatformError(Call.CREDENTIALS, "answered 500", 500)
    with pytest.raises(PlatformError):
        source.credentials.renew("key-1")
    assert source.credentials.get_frozen_credentials().access_key == "key-1"
    source.fault = None
    assert source.credentials.renew("key-1").access_key == "key-3"


# --- queues ---


def test_credentials_are_renewed_within_an_hour_whatever_expiration_they_name() -> None:
    source = Source()
    source.life = timedelta(days=3000)
    source.credentials.renew(None)
    assert source.credentials.due_seconds() == 50 * 60
