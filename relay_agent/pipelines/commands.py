"""One exchange as a command: what is posted, how long it may take, and how its answer is read (PROTOCOL §1, §3, §5).

Owns what every client does alike. It must not post anything.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from relay_agent.core.clock import iso
from relay_agent.core.models import ACTION_HTTP, ACTION_SECURE
from relay_agent.pipelines.encoding import Answer, json_bytes, read_answer, read_sealed_answer, sealed_payload
from relay_agent.pipelines.failures import TooLarge
from relay_agent.protocol.keyring import Keyring

MINIMUM_TTL_SECONDS = 65.0
"""The platform wants 60, counted by its own clock from when it reads the request."""
DEFAULT_TIMEOUT_SECONDS = 60.0
"""A request's `timeout` where the sender gives none."""
ANSWER_GRACE_SECONDS = 10.0
"""How much longer than `timeout` a caller waits: for the way to the agent and back."""
MAX_COMMAND_BYTES = 10 * 1024 * 1024
"""The largest request that the platform accepts (PROTOCOL §1)."""
UNDER_WAY = frozenset({"CREATED", "PENDING", "PROCESSING"})
MAX_TIMEOUT_SECONDS = 1e9
"""An agent refuses a longer one (PROTOCOL §3)."""
MAX_SEALED_SECONDS = 7 * 86_400 - 60.0
"""How long a secure command can be valid: seven days by the agent's clock (PROTOCOL §5)."""
_FITS = "7.5 MB of anything fit (sealed 5.5 MB), up to 10 MB of text without quotation marks, backslashes and line breaks (sealed 7.5 MB)"


class Client(Protocol):
    """What the adapters need: one request through the agent."""

    def exchange(self, payload: Mapping[str, Any], *, timeout_seconds: float, keyring: Keyring | None = None) -> Answer:
        """Have the agent send one HTTP request (PROTOCOL §3), and return the answer; a `keyring` makes it a secure command.

        Raises:
            RelayError: there is no answer that can be read; `failures.trouble_of_error` says what each one means.
        """


@dataclass(frozen=True, slots=True)
class Command:
    """A request that is ready to be posted. `keyring` and `jti` are set if it is a secure command."""

    action: str
    payload: Mapping[str, Any] = field(repr=False)
    expires_at: datetime
    keyring: Keyring | None = None
    jti: str = ""

    def read(self, finished: Mapping[str, Any]) -> Answer:
        """Return the answer that the finished command holds.

        Raises:
            BadAnswer: the answer cannot be read, or the answer to a secure command is not encrypted.
            SecureCommandError: the answer cannot be decrypted, or is another command's.
        """
        if self.keyring is None:
            return read_answer(finished)
        return read_sealed_answer(finished, self.keyring, self.jti)


def command(payload: Mapping[str, Any], agent_id: str, timeout_seconds: float, keyring: Keyring | None) -> Command:
    """Return the command for a request; the agent does not start it after `timeout_seconds` from now.

    Raises:
        ValueError: the timeout is not a number of seconds that the agent takes.
        SecureCommandError: ENOKEY, the keyring is empty.
    """
    check_timeout(timeout_seconds)
    now = datetime.now(UTC)
    expires_at = now + timedelta(seconds=max(timeout_seconds, MINIMUM_TTL_SECONDS))
    asked = {"not_after": iso(now + timedelta(seconds=timeout_seconds)), **payload}
    if keyring is None:
        return Command(ACTION_HTTP, asked, expires_at)
    jti = str(uuid.uuid4())
    valid = min(expires_at, now + timedelta(seconds=MAX_SEALED_SECONDS))
    sealed = sealed_payload({**asked, "encrypt_response": True}, keyring, agent_id=agent_id, expires_at=valid, jti=jti)
    return Command(ACTION_SECURE, sealed, expires_at, keyring, jti)


def check_timeout(seconds: float) -> None:
    """Refuse a timeout that no agent takes.

    Raises:
        ValueError: it is none.
    """
    if not 0 < seconds < MAX_TIMEOUT_SECONDS:
        raise ValueError("timeout must be more than 0 and less than 1e9 seconds")


def posted(asked: Command, agent_id: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return what is posted for a command.

    Raises:
        TooLarge: the platform would not accept it.
    """
    body: dict[str, Any] = {"targetId": agent_id, "action": asked.action, "expiresAt": iso(asked.expires_at)}
    return encoded(body | ({"metadata": metadata} if metadata else {}) | {"payload": asked.payload})


def encoded(value: Mapping[str, Any]) -> bytes:
    """Return the JSON that is posted.

    Raises:
        TooLarge: the platform would not accept it.
    """
    data = json_bytes(value)
    check_size(len(data))
    return data


def check_size(size: int) -> None:
    """Refuse a request of `size` bytes that the platform would refuse.

    Raises:
        TooLarge: the text says what fits.
    """
    if size > MAX_COMMAND_BYTES:
        raise TooLarge(f"the command is {size:,} bytes, and the platform takes at most {MAX_COMMAND_BYTES:,}: {_FITS}")
