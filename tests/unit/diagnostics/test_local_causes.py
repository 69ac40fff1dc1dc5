"""The causes on this machine, in the words of the command that says them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from relay_agent.config.secrets import check_token
from relay_agent.core.errors import (
    TokenExpired,
)
from relay_agent.diagnostics import local_causes
from tests.unit.cli.checks.scenes import NOW, jwt_until


def test_run_reports_an_expired_token_in_the_words_of_the_table() -> None:
    with pytest.raises(TokenExpired) as caught:
        check_token(jwt_until(NOW - timedelta(days=1)), lambda: NOW)
    row = local_causes.TOKEN_EXPIRED.about(date="2026-11-22 03:13 UTC")
    assert str(caught.value) == f"{row.cause}: {row.cure}"


def test_the_cure_of_a_pause_says_that_the_agent_resumes_by_itself() -> None:
    assert all("the agent resumes by itself" in cause.cure for cause in (local_causes.JOURNAL, local_causes.BACKLOG))
