"""The AWS credentials that the sandbox issues, and whether they are valid."""

from __future__ import annotations

import pytest

from relay_agent.sandbox.aws.credentials import Credentials, Keys, Verdict
from tests.unit.sandbox.scenes import Time


class World:
    def __init__(self) -> None:
        self.time = Time()
        self.keys = Keys(self.time)

    def verdict(self, credentials: Credentials, token: str | None = None) -> Verdict:
        return self.keys.verdict(credentials.access_key_id, token or credentials.session_token)


@pytest.fixture
def world() -> World:
    return World()


def test_issued_credentials_are_valid_until_they_expire(world: World) -> None:
    issued = world.keys.issue(60)
    world.time.passes(59.9)
    assert world.verdict(issued) is Verdict.GOOD
    world.time.passes(0.1)
    assert world.verdict(issued) is Verdict.EXPIRED


def test_a_key_is_valid_with_its_own_token_only(world: World) -> None:
    issued, other = world.keys.issue(60), world.keys.issue(60)
    assert world.verdict(issued, other.session_token) is Verdict.WRONG_TOKEN
    assert world.keys.verdict(issued.access_key_id, None) is Verdict.WRONG_TOKEN
    assert world.keys.verdict("AKIANOBODY", None) is Verdict.UNKNOWN


def test_the_root_key_needs_no_token_and_never_expires(world: World) -> None:
    world.keys.expire_all()
    world.time.passes(1e9)
    assert (world.keys.root.access_key_id[:4], world.verdict(world.keys.root)) == ("AKIA", Verdict.GOOD)


def test_all_temporary_keys_can_be_let_expire_at_once_and_new_ones_are_valid(world: World) -> None:
    old = [world.keys.issue(60), world.keys.issue(60)]
    world.keys.expire_all()
    assert [world.verdict(one) for one in old] == [Verdict.EXPIRED] * 2
    assert world.verdict(world.keys.issue(60)) is Verdict.GOOD


def test_no_two_credentials_are_alike_and_no_secret_is_in_their_repr(world: World) -> None:
    one, other = world.keys.issue(60), world.keys.issue(60)
    assert len({one.access_key_id, other.access_key_id, one.secret_access_key, other.secret_access_key}) == 4
    assert one.access_key_id.startswith("ASIA")
    assert one.secret_access_key not in repr(one) and (one.session_token or "") not in repr(one)
