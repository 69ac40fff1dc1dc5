"""Settings and a token: the scenes of the tests of the checks."""

from __future__ import annotations

from datetime import UTC, datetime

import jwt

from relay_agent.cli.checks.result import error, ok
from relay_agent.config.settings import Settings
from relay_agent.diagnostics import platform_causes

NOW = datetime(2026, 11, 23, 3, 13, tzinfo=UTC)
GOOD = ok("platform", "answers")
BAD = error(platform_causes.REFUSED, "the platform answered 401")
REQUIRED = {"API_TARGET": "https://api.lab.example", "ORG_SLUG": "lab", "AGENT_ID": "9b9f275c-a60d-454f-8c6c-1ea094e3fd38"}


def jwt_until(moment: datetime | None) -> str:
    claims = {} if moment is None else {"exp": int(moment.timestamp())}
    return jwt.encode(claims, "a key of thirty-two bytes or more", algorithm="HS256")


def settings(**more: str) -> Settings:
    return Settings(**{**REQUIRED, "JWT": jwt_until(None), **more})  # type: ignore[arg-type]
