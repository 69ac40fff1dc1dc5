"""Changes that no failing call would show are logged when they begin and end, and shown while they last."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from relay_agent.config.secrets import SecretSource
from relay_agent.diagnostics.environment_monitor import LOOKS, EnvironmentMonitor
from relay_agent.telemetry.stdout_writer import BLOCKED_SECONDS


class World:
    """A token's file and a clock that the test changes."""

    def __init__(self, directory: Path) -> None:
        self.events: list[str] = []
        self.fields: dict[str, Any] = {}
        self.off: float | None = None
        self.blocked = 0.0
        self.policy_problem: str | None = None
        self.file = directory / "jwt"
        self.file.write_text("a token", encoding="utf-8")
        self.source = SecretSource(path=self.file)
        self.source.get()
        self.environment = EnvironmentMonitor(
            secrets={"JWT_FILE": self.source},
            read=(self.source.get,),
            policy_problem=lambda: self.policy_problem,
            clock_off=lambda: self.off,
            stdout=cast("Any", SimpleNamespace(blocked_seconds=lambda: self.blocked, dropped=7)),
            log=cast("Any", self),
            monotonic=lambda: 0.0,
        )

    def bind(self, **_fields: Any) -> Self:
        return self

    def warning(self, event: str, **fields: Any) -> None:
        self.events.append(event)
        self.fields = fields

    info = warning

    def look(self, times: int = 1) -> list[str]:
        for _ in range(times):
            self.environment.look()
        return [problem.cause.cause for problem in self.environment.problems()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_file_that_is_missing_for_a_moment_is_not_logged(world: World) -> None:
    world.file.unlink()
    assert world.look(LOOKS - 1) == []
    world.file.write_text("a token", encoding="utf-8")
    assert (world.look(), world.events) == ([], [])


@pytest.mark.parametrize("empty", [True, False])
def test_a_file_that_stays_missing_or_empty_is_logged_with_its_reason_and_so_is_its_return(world: World, empty: bool) -> None:
    if empty:
        world.file.write_text("", encoding="utf-8")
    else:
        world.file.unlink()
    (cause,) = world.look(LOOKS + 5)
    assert "JWT_FILE" in cause
    assert ("is empty" if empty else "No such file") in cause
    assert world.events == ["secret-gone"]
    assert world.source.get() == "a token"
    world.file.write_text("another", encoding="utf-8")
    assert (world.look(), world.events) == ([], ["secret-gone", "secret-back"])


def test_a_policy_file_with_mistakes_is_shown_while_it_has_them(world: World) -> None:
    assert world.look() == []
    world.policy_problem = "policy.toml: unknown key 'mod'"
    (cause,) = world.look(5)
    assert "policy.toml: unknown key 'mod'; the policy that was read before stays in force" in cause
    world.policy_problem = None
    assert world.look() == []


def test_a_clock_that_is_more_than_a_minute_off_is_logged_and_so_is_its_end(world: World) -> None:
    world.off = 59.0
    assert world.look() == []
    world.off = -120.0
    (cause,) = world.look(5)
    assert "120 s behind" in cause
    world.off = 1.0
    assert (world.look(), world.events) == ([], ["clock-off", "clock-right"])


def test_a_blocked_stdout_is_logged_and_so_is_its_end_with_the_lines_dropped(world: World) -> None:
    world.blocked = 1.0
    assert (world.look(5), world.events) == ([], [])
    world.blocked = BLOCKED_SECONDS + 1
    (cause,) = world.look(5)
    assert "nothing reads" in cause
    world.blocked = 0.0
    assert (world.look(5), world.events) == ([], ["stdout-blocked", "stdout-resumed"])
    assert world.fields["dropped"] == 7


def test_a_policy_file_that_is_not_valid_is_a_problem_until_it_is_corrected(world: World) -> None:
    world.policy_problem = "policy.toml: unknown key 'host'"
    (text,) = world.look()
    assert "policy.toml: unknown key 'host'" in text
    world.policy_problem = None
    assert world.look() == []
