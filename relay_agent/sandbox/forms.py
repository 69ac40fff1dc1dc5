"""What every call of the platform's API shares: the form of errors, times and ids (PROTOCOL §1).

This module owns these forms. It must not keep state.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """An answer other than 200: `{statusCode, error, message}`, and `validation` with one line for each invalid field."""

    def __init__(self, status: int, message: str, validation: list[str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.validation = validation or []

    def to_json(self) -> Json:
        """Return the answer's body."""
        body: Json = {"statusCode": self.status, "error": HTTPStatus(self.status).phrase, "message": self.message}
        if self.validation:
            body["validation"] = [{"message": line} for line in self.validation]
        return body


def parse_time(text: object) -> datetime | None:
    """Return an ISO 8601 time, in UTC if it has no offset; None if it is not one."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_uuid(text: object) -> bool:
    """Return whether it is a UUID, the form of the platform's ids."""
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
