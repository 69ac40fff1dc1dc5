"""Status updates in the form in which they are sent, byte for byte.

This module owns how an outcome is encoded: embedded, spooled, encrypted, or cut to what fits. It neither records nor sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from relay_agent.core.clock import Clock, Deadline
from relay_agent.core.failpoints import Point, reach
from relay_agent.core.failures import Code
from relay_agent.core.models import Command, Failure, HttpRequest, HttpResponse, Status, Update
from relay_agent.protocol import messages, responses
from relay_agent.protocol.jwe import seal_answer
from relay_agent.protocol.keyring import Keyring
from relay_agent.storage.spool import Spool, file_name

_NOT_UPLOADED = (
    "the response is too large for a queue message, and its upload failed: the upload URL had expired, or S3 refused it;"
    " the request was sent, and this is the target's status"
)


class EncodingTimeout(Exception):
    """Raised if an answer could not be encoded before its deadline."""


_Seal = Callable[[Iterable[bytes]], Iterator[str]]


class UpdateBuilder:
    """Builds updates. Shared by all threads; immutable."""

    def __init__(self, spool: Spool, keyring: Callable[[], Keyring], clock: Clock) -> None:
        self._spool = spool
        self._keyring = keyring
        self._clock = clock

    def response(
        self, command: Command, status: Status, response: HttpResponse, request: HttpRequest | None, deadline: Deadline | None = None
    ) -> Update:
        """Return the update for a response: embedded in the message if it fits, otherwise in a spool file to upload.

        A spooled body is complete on the disk when this returns. Without disk space or upload URL the update has everything but the body.

        Raises:
            EncodingTimeout: the deadline passed first.
        """
        pieces = _in_time(responses.response_body(response), deadline)
        if request is not None and request.encrypt_response:
            pieces = self._sealed(pieces, response.status_code, self._seal(command, request.jti))
        now = self._clock.now()
        most = messages.MESSAGE_LIMIT - len(messages.update_message(command.id, command.target_id, status, now, "").encode("utf-8"))
        try:
            stored = self._spool.store(pieces, most, file_name(self._clock.new_id(), ".json.gz"))
        except OSError as error:
            text = f"the agent's disk cannot store the response ({error.strerror}); the request was sent, and this is the target's status"
            return self._without_body(command, self._too_large(command, response, request, now, text))
        reach(Point.SPOOLED)
        if isinstance(stored, str):
            return Update(command.id, status, messages.update_message(command.id, command.target_id, status, now, stored))
        fallback = self._too_large(command, response, request, now, _NOT_UPLOADED)
        if command.upload_url is None:
            self._spool.remove(stored.name)
            return self._without_body(command, fallback)
        message = messages.update_message(command.id, command.target_id, status, now, None, "referenced")
        return Update(command.id, status, message, stored.name, command.upload_url, fallback, command.expires_at)

    @staticmethod
    def _without_body(command: Command, message: str) -> Update:
        return Update(command.id, Status.FAILURE, message, code=Code.ERESPONSETOOLARGE)

    def _sealed(self, pieces: Iterator[str], status_code: int, seal: _Seal) -> Iterator[str]:
        before, after = responses.sealed_body(status_code)
        yield before
        yield from seal(piece.encode("utf-8") for piece in pieces)
        yield after

    def _seal(self, command: Command, jti: str | None) -> _Seal:
        """Return a function that encrypts an answer to this command, and to no other."""
        return lambda pieces: seal_answer(pieces, self._keyring(), cid=command.id, jti=jti)

    def _too_large(self, command: Command, response: HttpResponse, request: HttpRequest | None, now: datetime, text: str) -> str:
        """Return the message for a response too large for the queue that cannot be uploaded: everything but its body."""
        for form in (
            response,
            replace(response, headers=()),
            replace(response, headers=(), url=response.url.partition("?")[0][:2000]),
        ):
            body = responses.undeliverable_body(form, Code.ERESPONSETOOLARGE, text)
            if request is not None and request.encrypt_response:
                jwe = "".join(self._seal(command, request.jti)([body.encode("utf-8")]))
                body = responses.sealed_failure(Code.ERESPONSETOOLARGE, jwe, response.status_code)
            message = messages.update_message(command.id, command.target_id, Status.FAILURE, now, body)
            if len(message.encode("utf-8")) <= messages.MESSAGE_LIMIT:
                break
        return message

    def discard(self, update: Update) -> None:
        """Remove what an update that is not sent has in the spool."""
        if update.spool is not None:
            self._spool.remove(update.spool)

    def sealable(self, request: HttpRequest | None) -> HttpRequest | None:
        """Return a request whose failure can be encrypted as it asks; None without a key, or if it does not ask."""
        return request if request is not None and request.encrypt_response and self._keyring() else None

    def failure(self, command: Command, status: Status, failure: Failure, request: HttpRequest | None = None) -> Update:
        """Return the update for a command without a response, in a brief form if a long URL would not fit.

        It names the URL, so both forms are encrypted if the sender asked for that (PROTOCOL §5); the code is not secret.
        """
        jti = request.jti if request is not None else failure.jti
        seal = self._seal(command, jti) if failure.sealed or (request is not None and request.encrypt_response) else None
        for body in (responses.failure_body(failure), responses.brief_failure_body(failure)):
            content = body if seal is None else responses.sealed_failure(failure.code, "".join(seal([body.encode("utf-8")])))
            message = messages.update_message(command.id, command.target_id, status, self._clock.now(), content)
            if len(message.encode("utf-8")) <= messages.MESSAGE_LIMIT:
                break
        return Update(command.id, status, message, code=failure.code)


def _in_time(pieces: Iterator[str], deadline: Deadline | None) -> Iterator[str]:
    for piece in pieces:
        if deadline is not None and deadline.passed:
            raise EncodingTimeout
        yield piece
