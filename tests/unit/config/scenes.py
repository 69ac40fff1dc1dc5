"""Settings that are complete, and a token: the scenes of the tests of `config`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jwt

from relay_agent.config.settings import Settings

SIGNING = "a-key-of-the-platform-32-bytes-long"
KEY = bytes(range(32))
ROOT = Path(__file__).parents[3]


def signed_token(**claims: object) -> str:
    return jwt.encode({"sub": "service", **claims}, SIGNING, algorithm="HS256")


REQUIRED = {"API_TARGET": "https://api.lab.example", "ORG_SLUG": "acme-labs", "AGENT_ID": "9b9f275c-a60d", "JWT": signed_token()}
Load = Callable[..., Settings]
Problems = Callable[..., list[str]]
