"""The agent's status on the platform: when it may poll, and what a refusal of its token sets off."""

from __future__ import annotations

import pytest

from relay_agent.core.errors import Call, PlatformRefused
from relay_agent.diagnostics.platform_status import PlatformStatus

REFUSAL = PlatformRefused(Call.STATUS, "answered 401", 401)


@pytest.mark.parametrize(
    ("registered", "disabled", "may"), [(False, False, False), (True, False, True), (True, True, False), (False, True, False)]
)
def test_only_an_agent_that_is_registered_and_enabled_may_poll(registered: bool, disabled: bool, may: bool) -> None:
    assert PlatformStatus(registered=registered, disabled=disabled).may_poll == may


def test_a_refused_token_is_kept_and_requests_a_heartbeat_at_once() -> None:
    status = PlatformStatus()
    status.judge(REFUSAL)
    assert (status.rejected, status.heartbeat_requested.is_set()) == (REFUSAL, True)


def test_an_accepted_token_ends_the_refusal_but_leaves_the_heartbeat_requested() -> None:
    status = PlatformStatus()
    status.judge(REFUSAL)
    status.judge(None)
    assert (status.rejected, status.heartbeat_requested.is_set()) == (None, True)


def test_an_accepted_token_requests_no_heartbeat() -> None:
    status = PlatformStatus()
    status.judge(None)
    assert not status.heartbeat_requested.is_set()


def test_no_two_agents_share_an_event() -> None:
    one, other = PlatformStatus(), PlatformStatus()
    one.judge(REFUSAL)
    one.ready.set()
    one.refresh_requested.set()
    assert not (other.heartbeat_requested.is_set() or other.ready.is_set() or other.refresh_requested.is_set())
