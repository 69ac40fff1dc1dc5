"""The payload of a command: downloaded if referenced, decrypted if secure, decoded into a request.

A bad payload is returned as a `Failure`, never raised. This module runs and answers no command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from relay_agent.core.clock import Clock, from_timestamp
from relay_agent.core.errors import BadRequest, JournalError, PayloadFault, PayloadRefused, PlatformError, SecureCommandError
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code
from relay_agent.core.loop import Backoff
from relay_agent.core.models import ACTION_SECURE, ACTIONS_PLAIN, Command, Failure, HttpRequest
from relay_agent.protocol import messages, requests
from relay_agent.protocol.jwe import open_command
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay.task import Task, lane_of
from relay_agent.storage.journal import Journal
from relay_agent.storage.spool import Spool, file_name
from relay_agent.tdp.s3_payloads import Payloads

KEPT_IN_MEMORY = 16 * 1024
"""Largest message, in bytes, whose decoded request waits in memory; a larger one is read from the journal again."""
DOWNLOAD_TRY_SECONDS = 30.0
DOWNLOAD_SECONDS = 120.0
"""How long a download is attempted while S3 is unreachable (less if the command expires earlier): other commands wait behind it."""
BAD_PAYLOAD = (BadRequest, ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""Errors that libraries raise on a sender's malformed message; they must not end the agent."""


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

    def download(self, task: Task, stop: threading.Event) -> Task | None:
        """Download and decode a referenced body, and return the task with its lane; returns None if `stop` is set first."""
        waits = Backoff()
        give_up = self._clock.monotonic() + DOWNLOAD_SECONDS
        while not task.expired(self._clock.now()):
            try:
                downloaded = self._download_once(task, task.command.body_url or "")
                reach(Point.FETCHED)
                return downloaded
            except PlatformError as error:
                if isinstance(error, PayloadRefused) and error.why is PayloadFault.FORBIDDEN:
                    return replace(task, request=Failure(Code.EPOLICY, f"bodyUrl: {error.reason}"))
                if isinstance(error, PayloadRefused) or self._clock.monotonic() >= give_up:
                    return replace(task, request=Failure(Code.EBADCOMMAND, f"the command's body could not be downloaded: {error.reason}"))
            if stop.wait(waits.next_seconds()):
                return None
        return task

    @staticmethod
    def crashed(task: Task) -> Task:
        """Return the task with the failure that an error inside the agent prevented its body from being read."""
        return replace(task, request=Failure(Code.EBADCOMMAND, "an error inside the agent kept it from reading the body (see its log)"))

    # --- details ---

    def _download_once(self, task: Task, url: str) -> Task:
        name = file_name(self._clock.new_id(), ".body")
        try:
            data = self._payloads.download(url, DOWNLOAD_TRY_SECONDS, lambda pieces: self._spool.keep(pieces, KEPT_IN_MEMORY, name))
        except OSError:  # The disk is full: keep it in memory after all.
            data = self._payloads.download(url, DOWNLOAD_TRY_SECONDS, b"".join)
        if data is not None:
            request = self._decode_text(task.command, data.decode, b"".join)
            return replace(task, request=request, lane=lane_of(request))
        try:
            request = self.read(replace(task, body=name), requests.forget)
        except BaseException:
            self._spool.remove(name)
            raise
        if isinstance(request, Failure):
            self._spool.remove(name)
            return replace(task, request=request)
        return replace(task, body=name, lane=lane_of(request))

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
        payload = requests.load_payload(lambda: text.pop().decode("utf-8"))
        try:
            request = requests.decode_request(payload, secure=True, keep=keep)
            return replace(request, jti=opened.jti, not_after=_earlier(request.not_after, from_timestamp(opened.exp)))
        except BAD_PAYLOAD as error:
            return replace(_bad_payload(error), sealed=requests.wants_sealed_answer(payload), jti=opened.jti)


def _earlier(first: datetime | None, second: datetime) -> datetime:
    return second if first is None else min(first, second)


def _bad_payload(error: Exception) -> Failure:
    return Failure(Code.EBADCOMMAND, str(error) if isinstance(error, BadRequest) else "the payload cannot be read")
