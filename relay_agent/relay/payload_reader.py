"""The payload of a command: downloaded if referenced, decrypted if secure, decoded into a request.

A bad payload is returned as a `Failure`, never raised. This module runs and answers no command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime

from relay_agent.core.clock import Clock, from_timestamp
from relay_agent.core.errors import (
    BadRequest,
    JournalError,
    PayloadFault,
    PayloadRefused,
    PlatformError,
    PlatformUnreachable,
    SecureCommandError,
)
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code
from relay_agent.core.loop import Backoff
from relay_agent.core.models import ACTION_SECURE, ACTIONS_PLAIN, Command, Failure, HttpRequest
from relay_agent.protocol import messages, requests
from relay_agent.protocol.jwe import open_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.task import KEPT_IN_MEMORY, Task, lane_of
from relay_agent.storage.journal import Journal
from relay_agent.storage.spool import Spool, file_name
from relay_agent.tdp.s3_payloads import Payloads

DOWNLOAD_TRY_SECONDS = 30.0
DOWNLOAD_SECONDS = 120.0
"""How long a download is attempted while S3 is unreachable (less if the command expires earlier)."""
MISSING_TRIES = 2
"""How many tries a host gets whose name does not exist: a name server may be wrong for a moment."""
MISSING_SECONDS = 5.0
"""The least time between these tries."""
BAD_PAYLOAD = (BadRequest, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""Errors that libraries raise on a sender's malformed message; they must not end the agent."""


@dataclass(eq=False)
class Download:
    """A task whose body is to be downloaded. `began` and `due`, the next try, are on the monotonic clock."""

    task: Task
    host: Hashable = ""
    """What downloads from one host have in common."""
    seconds: float = DOWNLOAD_TRY_SECONDS
    """How long the next try may take."""
    answered: bool | None = None
    """Whether the host answered the last try; None if it was not asked."""
    due: float = 0.0
    began: float | None = None
    missing: int = 0
    """How many tries found no host of that name."""
    waits: Backoff = field(default_factory=Backoff)


class PayloadReader:
    """Reads payloads. Shared by all threads; decodes one large payload at a time."""

    def __init__(
        self,
        *,
        agent_id: str,
        journal: Journal,
        spool: Spool,
        payloads: Payloads,
        keyring: Callable[[], Keyring],
        clock: Clock,
    ) -> None:
        self._agent_id = agent_id
        self._journal = journal
        self._spool = spool
        self._payloads = payloads
        self._keyring = keyring
        self._clock = clock
        self._large_payload = threading.Lock()
        self._without_disk = threading.Lock()

    # --- any thread ---

    def decode(self, command: Command, keep: requests.Keep) -> HttpRequest | Failure:
        """Decode the request in a command's payload; `keep` receives the request's body."""
        try:
            if command.action in ACTIONS_PLAIN:
                return requests.decode_request(command.payload, keep=keep)
            if command.secure:
                return self._open(command, keep)
        except SecureCommandError as error:
            return Failure(Code(error.code), str(error))
        except BAD_PAYLOAD as error:
            return _bad_payload(error)
        return Failure(
            Code.UNKNOWN_COMMAND,
            f"this agent does not know the action; it answers {', '.join(sorted(ACTIONS_PLAIN))} and {ACTION_SECURE}",
        )

    def read(self, task: Task, keep: requests.Keep) -> HttpRequest | Failure:
        """Decode a payload that was not kept in memory, from the journal or the spool; `keep` receives the request's body.

        Raises:
            JournalError: the payload cannot be read.
        """
        with self._large_payload:  # Bounds memory: text, decoded values and request exist at the same time.
            if task.body is None:
                return self.decode(messages.decode_message(self._journal.raw(task.command.id)), keep)
            return self._spooled(task.command, task.body, keep)

    # --- a downloader's thread ---

    def download(self, job: Download) -> Task | None:
        """Try once to download and decode a referenced body, and return the task with its lane; None to try again when `job` is due."""
        task, now = job.task, self._clock.monotonic()
        if task.expired(self._clock.now()):
            return task
        job.began = now if job.began is None else job.began
        try:
            downloaded = self._download_once(task, task.command.body_url or "", job.seconds)
        except PlatformError as error:
            job.answered = error.status is not None
            return self._failed(job, error)
        job.answered = True
        reach(Point.FETCHED)
        return downloaded

    @staticmethod
    def crashed(task: Task) -> Task:
        """Return the task as failed, because an error inside the agent prevented its body from being read."""
        text = "an error inside the agent prevented it from reading the body (see the agent's log)"
        return replace(task, request=Failure(Code.EBADCOMMAND, text))

    # --- details ---

    def _failed(self, job: Download, error: PlatformError) -> Task | None:
        """Return the task as failed if no further try can help; else None, and `job` says when that is due."""
        if isinstance(error, PayloadRefused) and error.why is PayloadFault.FORBIDDEN:
            return replace(job.task, request=Failure(Code.EPOLICY, f"bodyUrl: {error.reason}"))
        now, missing = self._clock.monotonic(), _is_missing(error)
        job.missing += missing
        left = DOWNLOAD_SECONDS - (now - (job.began or now))
        if left <= 0 or isinstance(error, PayloadRefused) or _is_redirect(error) or job.missing >= MISSING_TRIES:
            return replace(job.task, request=Failure(Code.EBADCOMMAND, f"the command's body could not be downloaded: {error.reason}"))
        if job.task.command.expires_at is not None:
            left = min(left, max(0.0, (job.task.command.expires_at - self._clock.now()).total_seconds()))
        job.due = now + min(job.waits.next_seconds(MISSING_SECONDS if missing else 0.0), left)
        return None

    def _download_once(self, task: Task, url: str, seconds: float) -> Task:
        name = file_name(self._clock.new_id(), ".body")
        try:
            data = self._payloads.download(url, seconds, lambda pieces: self._spool.keep(pieces, KEPT_IN_MEMORY, name))
        except OSError:  # The disk is full: keep it in memory after all, one at a time, because it may have 16 MB.
            with self._without_disk:
                data = self._payloads.download(url, seconds, b"".join)
                with self._large_payload:
                    return self._decoded(task, data)
        if data is not None:
            return self._decoded(task, data)
        try:
            request = self.read(replace(task, body=name), requests.forget)
        except BaseException:
            self._spool.remove(name)
            raise
        if isinstance(request, Failure):
            self._spool.remove(name)
            return replace(task, request=request)
        return replace(task, body=name, lane=lane_of(request))

    def _decoded(self, task: Task, data: bytes) -> Task:
        request = self._decode_text(task.command, data.decode, b"".join)
        return replace(task, request=request, lane=lane_of(request))

    def _spooled(self, command: Command, name: str, keep: requests.Keep) -> HttpRequest | Failure:
        try:
            return self._decode_text(command, lambda: self._spool.text(name), keep)
        except OSError as error:
            raise JournalError(f"the spool cannot be read: {error.strerror}") from None

    def _decode_text(self, command: Command, read: Callable[[], str], keep: requests.Keep) -> HttpRequest | Failure:
        try:
            payload = requests.load_payload(read)
        except BadRequest as error:
            return Failure(Code.EBADCOMMAND, str(error))
        return self.decode(replace(command, payload=payload), keep)

    def _open(self, command: Command, keep: requests.Keep) -> HttpRequest | Failure:
        keyring = self._keyring()
        if not keyring:
            raise SecureCommandError(Code.ENOKEY, "this agent has no SECURE_COMMAND_KEY; set the one that the sender uses")
        opened = open_command(requests.take_envelope(command.payload), keyring, agent_id=self._agent_id, now=self._clock.now())
        text = [opened.plaintext]  # In a list, so that `pop` frees the plaintext before the request is decoded.
        opened = replace(opened, plaintext=b"")
        if not self._journal.remember_token(opened.jti, command.id, opened.exp):
            raise SecureCommandError(Code.EREPLAY, "the jti of this secure command was used before")
        sealed = True  # What cannot be read may have asked for it.
        try:
            payload = requests.load_payload(lambda: text.pop().decode("utf-8"))
            sealed = requests.wants_sealed_answer(payload)
            request = requests.decode_request(payload, secure=True, keep=keep)
            return replace(request, jti=opened.jti, not_after=_earlier(request.not_after, from_timestamp(opened.exp)))
        except BAD_PAYLOAD as error:
            return replace(_bad_payload(error), sealed=sealed, jti=opened.jti)


def _is_redirect(error: PlatformError) -> bool:
    """Return whether the answer was a redirect: S3's are not followed, so that each further try would get the same."""
    return error.status is not None and 300 <= error.status < 400


def _is_missing(error: PlatformError) -> bool:
    """Return whether the URL's host has no address; a proxy's says nothing about the URL."""
    return isinstance(error, PlatformUnreachable) and error.facts.code is Code.ENOTFOUND and error.facts.proxy is None


def _earlier(first: datetime | None, second: datetime) -> datetime:
    return second if first is None else min(first, second)


def _bad_payload(error: Exception) -> Failure:
    return Failure(Code.EBADCOMMAND, str(error) if isinstance(error, BadRequest) else "the payload cannot be read")
