"""The token and the keys while their files change: which new value replaces the old one, and what the redactor and the log are told."""

from __future__ import annotations

import base64
from pathlib import Path

import jwt as pyjwt
import pytest

from relay_agent.agent.secret_rotation import CurrentKeys, CurrentToken
from relay_agent.config.secrets import SecretSource
from relay_agent.protocol.keyring import Keyring
from relay_agent.telemetry.redaction import Redactor
from tests.unit.telemetry.scenes import Written


def token(subject: str) -> str:
    return pyjwt.encode({"sub": subject}, "k" * 32, algorithm="HS256")


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


OLD, NEW, NEWEST = token("old"), token("new"), token("newest")
FIRST, SECOND, THIRD = key(1), key(2), key(3)


class World:
    """A file with a secret, a real redactor and a real log."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "secret"
        self.redactor = Redactor()
        self.registered: list[tuple[str, ...]] = []
        self.written = Written()
        self.size = 0

    def write(self, text: str) -> None:
        """Give the file another text; its size changes too, so that the coarseness of its time does not matter."""
        self.size += 1
        self.path.write_text(text + "\n" * self.size)

    def register(self, *values: str) -> None:
        self.registered.append(values)
        self.redactor.rotate("secret", *values)

    def token(self, text: str = OLD) -> CurrentToken:
        self.write(text)
        made = CurrentToken(SecretSource(path=self.path), self.register, self.written.log)
        made.get()
        return made

    def keys(self, text: str = FIRST) -> CurrentKeys:
        self.write(text)
        made = CurrentKeys(SecretSource(path=self.path), self.register, self.written.log)
        made.get()
        return made

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.written.lines]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- the token ---


def test_a_new_token_replaces_the_old_one_and_is_redacted_before_it_is_used(world: World) -> None:
    current = world.token()
    world.write(NEW)
    assert current.get() == NEW
    assert NEW not in world.redactor.known(f"sent {NEW}")
    assert (world.registered, world.events, current.unusable) == ([(OLD,), (NEW,)], [], False)


def test_an_invalid_text_does_not_replace_the_token_and_is_reported_once(world: World) -> None:
    current = world.token()
    world.write("half a token")
    assert [current.get() for _ in range(3)] == [OLD] * 3
    assert (world.events, current.unusable) == (["token-unusable"], True)


def test_an_invalid_text_is_redacted_and_so_is_the_token_that_stays_in_use(world: World) -> None:
    """It may be half of a token that is being written, and the redactor keeps only the two newest values."""
    current = world.token()
    for text in ("half a token", "another half", "a third"):
        world.write(text)
        current.get()
        assert text not in world.redactor.known(text)
        assert OLD not in world.redactor.known(OLD)


def test_each_different_invalid_text_is_reported_again(world: World) -> None:
    current = world.token()
    for text in ("half a token", "another half"):
        world.write(text)
        current.get()
    assert world.events == ["token-unusable", "token-unusable"]


@pytest.mark.parametrize("healed", [OLD, NEW], ids=["the one before", "a new one"])
def test_a_valid_token_after_an_invalid_text_ends_the_problem(world: World, healed: str) -> None:
    current = world.token()
    world.write("half a token")
    current.get()
    world.write(healed)
    assert (current.get(), current.get()) == (healed, healed)
    assert (world.events, current.unusable) == (["token-unusable", "token-usable"], False)


def test_the_same_invalid_text_after_a_valid_one_is_reported_again(world: World) -> None:
    current = world.token()
    for text in ("half a token", OLD, "half a token"):
        world.write(text)
        current.get()
    assert world.events == ["token-unusable", "token-usable", "token-unusable"]


def test_the_first_text_is_used_whatever_it_is_since_there_is_nothing_else(world: World) -> None:
    current = world.token("no token")
    assert (current.get(), current.unusable, world.events) == ("no token", False, [])
    assert world.registered == [("no token",)]


# --- the keys ---


def test_a_changed_file_replaces_the_keyring_and_every_key_of_it_is_redacted(world: World) -> None:
    current = world.keys()
    world.write(f"{SECOND}, {THIRD}")
    assert current.get().kids == Keyring.from_text(f"{SECOND},{THIRD}").kids
    assert not any(one in world.redactor.known(f"a {one} b") for one in (SECOND, THIRD))
    assert world.events == []


def test_an_unchanged_file_keeps_the_same_keyring_and_is_registered_once(world: World) -> None:
    current = world.keys()
    assert current.get() is current.get()
    assert world.registered == [(FIRST, FIRST)]


def test_a_file_without_a_valid_key_keeps_the_keyring_and_is_reported_once(world: World) -> None:
    current = world.keys()
    before = current.get()
    world.write("not a key")
    assert all(current.get() is before for _ in range(3))
    assert (world.events, current.unusable) == (["secure-key-unusable"], True)
    assert "not a key" not in world.written.stream.getvalue()


def test_each_different_file_without_a_valid_key_is_reported_again(world: World) -> None:
    current = world.keys()
    for text in ("not a key", "nor this"):
        world.write(text)
        current.get()
    assert world.events == ["secure-key-unusable", "secure-key-unusable"]


@pytest.mark.parametrize("healed", [FIRST, SECOND], ids=["the one before", "a new one"])
def test_a_valid_key_after_an_invalid_one_ends_the_problem_and_the_next_is_reported(world: World, healed: str) -> None:
    current = world.keys()
    for text in ("not a key", healed):
        world.write(text)
        current.get()
    assert (current.get().kids, current.unusable) == (Keyring.from_text(healed).kids, False)
    world.write("not a key")
    current.get()
    assert world.events == ["secure-key-unusable", "secure-key-usable", "secure-key-unusable"]


def test_without_a_setting_there_is_no_key_and_no_problem(world: World) -> None:
    current = CurrentKeys(SecretSource(), world.register, world.written.log)
    assert (bool(current.get()), current.unusable, world.events) == (False, False, [])
