"""Steps that wait for each other, and what one that hangs or fails does to the others."""

from __future__ import annotations

import threading

import pytest

from relay_agent.cli.checks.result import Check, Status, error, ok, warning
from relay_agent.cli.checks.scheduler import Step, run_steps
from relay_agent.diagnostics import local_causes, platform_causes
from tests.unit.cli.checks.scenes import BAD, GOOD


def test_checks_are_reported_in_the_order_of_the_plan() -> None:
    later = threading.Event()

    def first() -> Check:
        assert later.wait(5)
        return ok("first", "")

    def second() -> Check:
        later.set()
        return ok("second", "")

    assert [check.id for check in run_steps([Step("first", first), Step("second", second)], 10)] == ["first", "second"]


def test_a_step_runs_after_those_it_waits_for_even_if_they_come_later_in_the_plan() -> None:
    seen: list[str] = []

    def note(name: str) -> Check:
        seen.append(name)
        return ok(name, "")

    run_steps([Step("clock", lambda: note("clock"), ("platform",)), Step("platform", lambda: note("platform"))], 10)
    assert seen == ["platform", "clock"]


def test_a_check_that_waits_for_a_failed_one_is_skipped_and_names_it_and_the_first_failure() -> None:
    steps = [
        Step("platform", lambda: GOOD),
        Step("access", lambda: BAD, ("platform",)),
        Step("agent", lambda: pytest.fail("ran"), ("access",)),
        Step("queue", lambda: pytest.fail("ran"), ("agent",)),
        Step("target", lambda: ok("target", "reached")),
    ]
    found = run_steps(steps, 10)
    assert [check.status for check in found] == [Status.OK, Status.ERROR, Status.SKIPPED, Status.SKIPPED, Status.OK]
    assert [check.summary for check in found[2:4]] == ["waits for access", "waits for agent, which waits for access"]


def test_a_warning_skips_no_other_check() -> None:
    steps = [Step("platform", lambda: warning(platform_causes.SLOW, "slow")), Step("access", lambda: ok("access", ""), ("platform",))]
    assert [check.status for check in run_steps(steps, 10)] == [Status.WARNING, Status.OK]


@pytest.mark.parametrize(("bound", "whole"), [(0.05, 10.0), (10.0, 0.05)])
def test_a_check_that_hangs_is_an_error_after_its_own_or_the_whole_limit_and_hides_no_other(bound: float, whole: float) -> None:
    release = threading.Event()

    def hang() -> Check:
        release.wait(10)
        return GOOD

    steps = [
        Step("state-dir", hang, bound_seconds=bound),
        Step("token", lambda: ok("token", "good")),
        Step("queue", lambda: GOOD, ("state-dir",)),
    ]
    try:
        hung, good, skipped = run_steps(steps, whole)
    finally:
        release.set()
    assert (hung.id, hung.status, good.status, skipped.status) == ("state-dir", Status.ERROR, Status.OK, Status.SKIPPED)
    assert hung.cause == "the check got no answer within 0.05 s"
    assert 0.05 <= hung.seconds < 5


def test_an_unexpected_error_is_reported_by_its_type_alone_and_hides_no_other() -> None:
    def broken() -> Check:
        raise RuntimeError("with a secret in it")

    found, other = run_steps([Step("clock", broken), Step("token", lambda: ok("token", "good"))], 10)
    assert (found.id, found.status, other.status) == ("clock", Status.ERROR, Status.OK)
    assert "RuntimeError" in (found.cause or "")
    assert "secret" not in str(found)


def test_several_skipped_targets_are_named() -> None:
    steps = [
        Step("configuration", lambda: error(local_causes.CONFIGURATION, "")),
        Step("target", lambda: GOOD, ("configuration",), about="http://a/"),
    ]
    assert run_steps(steps, 10)[1].summary == "http://a/: waits for configuration"
