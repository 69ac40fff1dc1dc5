"""Whether every command was answered rightly and once. What the target says is known, so each answer can be made here again."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from typing import Any

from relay_agent.protocol.jwe import open_answer
from relay_agent.protocol.keyring import Keyring

Json = dict[str, Any]
PATTERN_BYTES = 1 << 20
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_MASK = (1 << 64) - 1
_SHOWN = 5


class Wrong(AssertionError):
    """A contender lost, doubled or altered something: its figures mean nothing."""


class Text:
    """What target.c answers: the id, then a pattern that compresses badly."""

    @functools.cached_property
    def _pattern(self) -> str:
        seed = 88172645463325252
        letters = []
        for _ in range(PATTERN_BYTES):
            seed ^= (seed << 13) & _MASK
            seed ^= seed >> 7
            seed ^= (seed << 17) & _MASK
            letters.append(_ALPHABET[seed & 63])
        return "".join(letters)

    def answer(self, command_id: str, size: int) -> str:
        """Return the body of `/<size>?id=<command_id>`."""
        whole = self._pattern * (size // PATTERN_BYTES + 1)
        return (command_id + whole[len(command_id) :])[: max(size, len(command_id))]


def fnv1a(data: bytes) -> int:
    """Return what target.c computes of a body (64 bits)."""
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * 1099511628211) & _MASK
    return value


def check(report: Json, expected: dict[str, str], upload: Callable[[str], bytes], keyring: Keyring | None = None) -> None:
    """Compare what arrived with what the target said.

    Raises:
        Wrong: with the first few of what is lost, doubled or altered.
    """
    problems = [f"an update for no command: {text[:200]}" for text in report["unmatched"]]
    for command_id, body in expected.items():
        found = report["commands"][command_id]
        problem = _problem(command_id, found, body, upload, keyring)
        if problem:
            problems.append(f"{command_id}: {problem}")
    if report["waiting"] or report["flying"]:
        problems.append(f"{report['waiting']} messages wait and {report['flying']} are in flight after the end")
    if problems:
        raise Wrong(f"{len(problems)} problems: " + "; ".join(problems[:_SHOWN]))


def _problem(command_id: str, found: Json, expected: str, upload: Callable[[str], bytes], keyring: Keyring | None) -> str | None:
    if len(found["handed"]) != 1:
        return f"handed out {len(found['handed'])} times"
    updates = [json.loads(text) for _, text in found["updates"]]
    finals = [update for update in updates if update["status"] != "PROCESSING"]
    if len(finals) != 1:
        return f"{len(finals)} final answers"
    final = finals[0]
    if final["status"] != "SUCCESS":
        return f"{final['status']} {str(final['body'])[:200]}"
    body = final["body"]
    if final["responseBodyDelivery"] == "referenced":
        body = json.loads(gzip.decompress(upload(command_id)))
    if keyring is not None:
        body = json.loads(open_answer(body["jwe"], keyring, cid=command_id, jti=command_id))
    if body["statusCode"] != 200:
        return f"statusCode {body['statusCode']}"
    if body["body"] != expected:
        return f"the body is {body['body'][:80]!r} ({len(body['body']):,} characters), not {expected[:80]!r} ({len(expected):,})"
    return None
