"""The policy in force, while its file and the files that it names change.

This module decides when they are read again, and logs what comes of it. What a policy file says is read in `config.policy_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relay_agent.config.policy_file import LoadedPolicy, stamp_of
from relay_agent.core.errors import ConfigurationError
from relay_agent.core.files import Stamp, file_size
from relay_agent.diagnostics.local_causes import POLICY
from relay_agent.telemetry.logger import WITHHELD, Logger
from relay_agent.transport.target_settings import CallRules

RETRY_SECONDS = 5.0
"""Time between the reads of a file with mistakes: a file that it names may be put right without a change of its own."""
EMPTY_SECONDS = 5.0
"""How long an emptied policy file is not taken over: `policy learn > FILE` empties it some time before it writes. An empty file is valid,
and refuses every call."""
MOST_LOGGED = 10
"""Mistakes of a file that one line of the log lists."""
MAX_REMEMBERED = 1000
"""Lanes whose limit is remembered; senders choose the hosts."""


class CurrentPolicy:
    """The policy in force. A changed file replaces it if it has no mistakes; else the old one stays, and `problem` says why."""

    def __init__(
        self, load: Callable[[], LoadedPolicy], register: Callable[..., None], log: Logger, monotonic: Callable[[], float]
    ) -> None:
        """Read the policy for the first time; `register` makes its secrets known to the redactor.

        Raises:
            ConfigurationError: the file has mistakes.
        """
        self._load = load
        self._register = register
        self._log = log
        self._monotonic = monotonic
        self._loaded = load()
        self._stamps = dict(self._loaded.files)
        self._retry_at = 0.0
        self._emptied_at: float | None = None
        self.problem: str | None = None
        """Why the file as it is now is not in force, by its first mistake; None if it is."""
        self._mistakes: list[str] = []
        register(*self._loaded.secrets)
        self._lane_limits: dict[str, tuple[str, int] | None] = {}

    # --- any thread ---

    def rules(self) -> CallRules:
        """Return the rules in force."""
        return self._loaded.rules

    @property
    def loaded(self) -> LoadedPolicy:
        """The policy in force, with the files that it names."""
        return self._loaded

    def summary(self) -> dict[str, Any] | None:
        """Return which policy is in force, in the form of `status.json`; returns None without a policy file."""
        loaded = self._loaded
        if loaded.file is None:
            return None
        policy = loaded.rules.policy
        counts = {"rules": len(policy.rules), "targets": len(loaded.rules.targets)}
        return {"file": str(loaded.file), "mode": policy.mode, "default": "allow" if policy.default.allowed else "deny", **counts}

    def lane_limit(self, lane: str) -> tuple[str, int] | None:
        """Return the group of the table that limits a lane (`host:port`, see `lane_of`), and its limit; None if none does."""
        limits, rules = self._lane_limits, self._loaded.rules
        if not rules.targets:
            return None
        try:
            return limits[lane]
        except KeyError:
            if len(limits) >= MAX_REMEMBERED:
                limits.clear()
            target = rules.target(lane.rpartition(":")[0])
            limits[lane] = found = None if target.max_concurrency is None else (target.group, target.max_concurrency)
            return found

    # --- the thread `environment` ---

    def refresh(self) -> None:
        """Read the policy again if one of its files has changed."""
        stamps = {path: stamp_of(path) for path in self._loaded.files}
        retry = self.problem is not None and self._monotonic() >= self._retry_at
        if (stamps == self._stamps and not retry) or self._is_being_written(stamps):
            return
        self._stamps = stamps
        try:
            loaded = self._load()
        except ConfigurationError as error:
            self._reject(error.problems)
            self._retry_at = self._monotonic() + RETRY_SECONDS  # After the load, which may take longer than that.
            return
        self._register(*loaded.secrets)
        self._loaded, self._lane_limits, self._stamps = loaded, {}, dict(loaded.files)
        self.problem, self._mistakes = None, []
        policy = loaded.rules.policy
        self._log.info("policy-loaded", mode=policy.mode, rules=len(policy.rules), targets=len(loaded.rules.targets))

    def _is_being_written(self, stamps: Mapping[Path, Stamp | None]) -> bool:
        """Return whether the policy file has been emptied, and not long ago."""
        file = self._loaded.file
        found = None if file is None else stamps[file]
        if found is None or file_size(found):
            self._emptied_at = None
            return False
        now = self._monotonic()
        self._emptied_at = now if self._emptied_at is None else self._emptied_at
        return now - self._emptied_at < EMPTY_SECONDS

    def _reject(self, mistakes: list[str]) -> None:
        more = len(mistakes) - 1
        self.problem = mistakes[0] + (f" (and {more} more mistake{'' if more == 1 else 's'})" if more else "")
        if mistakes != self._mistakes:
            cause = POLICY.about(problem=self.problem)
            # A list, so that what the redactor masks in one mistake hides no other. The platform must not learn which targets and files
            # the site has.
            withheld = {WITHHELD: "cause.mistakes"}
            self._log.warning("policy-unusable", cause=cause.cause, cure=cause.cure, mistakes=mistakes[:MOST_LOGGED], **withheld)
        self._mistakes = mistakes
