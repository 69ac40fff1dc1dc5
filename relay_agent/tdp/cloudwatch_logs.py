"""CloudWatch Logs, with credentials that are renewed when AWS says that they have ended.

This room owns the two calls that ship log lines, and a look at where they would go. It must not know what they say.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from relay_agent.core.errors import Call, CredentialsExpired, NotThePlatform, QueueUnavailable
from relay_agent.tdp.aws_clients import code_of, platform_error, said
from relay_agent.tdp.call_outcomes import Count, counted, nobody
from relay_agent.tdp.credentials import PlatformCredentials

T = TypeVar("T")


class LogsClient:
    """The part of botocore's client that the log shipper uses; errors are botocore's own."""

    def __init__(self, client: Any, credentials: PlatformCredentials, count: Count = nobody, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._client = client
        self._credentials = credentials
        self._count = count

    def create_log_stream(self, **request: Any) -> Any:
        """Make a stream (CloudWatch Logs, CreateLogStream)."""
        return self._call(Call.LOGS_CREATE, lambda: self._client.create_log_stream(**request))

    def put_log_events(self, **request: Any) -> Any:
        """Put events into a stream (CloudWatch Logs, PutLogEvents)."""
        return self._call(Call.LOGS_PUT, lambda: self._client.put_log_events(**request))

    def look(self, log_group: str) -> None:
        """See that the log group is there and lets us in; nothing is written.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        call, request = Call.LOGS_LOOK, {"logGroupName": log_group, "limit": 1}
        try:
            answer = said(call, self._client.meta.endpoint_url, lambda: self._client.describe_log_streams(**request), self._endpoint)
        except QueueUnavailable as error:
            if not error.denied:
                raise
            self._look_by_writing(log_group)
            return
        if "logStreams" not in answer:
            raise NotThePlatform(call, "the answer says nothing of a log group").at(self._endpoint)

    def _look_by_writing(self, log_group: str) -> None:
        """A policy may allow no more than the agent's own calls: put a line into a stream that is not there, which leaves none."""
        event = {"timestamp": 0, "message": "relay-agent check"}
        request = {"logGroupName": log_group, "logStreamName": f"none-{uuid.uuid4()}", "logEvents": [event]}
        try:
            self._client.put_log_events(**request)
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise platform_error(Call.LOGS_LOOK, error).at(self._endpoint) from None

    def _call(self, name: Call, call: Callable[[], T]) -> T:
        used = self._credentials.access_key_in_use
        try:
            with counted(self._count, name):
                return call()
        except ClientError as error:
            if not isinstance(platform_error(name, error), CredentialsExpired):
                raise
            self._credentials.renew(used)
            with counted(self._count, name):
                return call()
