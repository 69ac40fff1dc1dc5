"""The platform's forms on the wire: times, errors, what a request's fields must be (PROTOCOL §1).

This room owns the shapes that every call shares. It must not keep state.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """An answer other than 200: `{statusCode, error, message}`, with one line for each invalid field where there are any."""

    def __init__(self, status: int, message: str, validation: list[str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.validation = validation or []

    def to_json(self) -> Json:
        """The body of the answer."""
        body: Json = {"statusCode": self.status, "error": HTTPStatus(self.status).phrase, "message": self.message}
        if self.validation:
            body["validation"] = [{"message": line} for line in self.validation]
        return body


def parse_time(text: object) -> datetime | None:
    """Read any ISO time with an offset; one without is UTC. None where it is no time."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_uuid(text: object) -> bool:
    """Whether it is an id as the platform gives them."""
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
