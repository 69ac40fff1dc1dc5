"""The calls to CloudWatch Logs, which renew the credentials if AWS says that they have expired.

This module owns the two calls that ship log lines, and the check of the log group. It must not know what the lines say.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from relay_agent.core.errors import Call, CredentialsExpired, NotThePlatform, QueueUnavailable
from relay_agent.tdp.aws_clients import call_aws, code_of, platform_error
from relay_agent.tdp.call_outcomes import Count, count_nothing, count_outcome
from relay_agent.tdp.credentials import PlatformCredentials

T = TypeVar("T")


class LogsClient:
    """The calls of botocore's client that the log shipper makes; they raise botocore's errors. Any thread may call."""

    def __init__(self, client: Any, credentials: PlatformCredentials, count: Count = count_nothing, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._client = client
        self._credentials = credentials
        self._count = count

    def create_log_stream(self, **request: Any) -> Any:
        """Create a log stream (CloudWatch Logs, CreateLogStream)."""
        return self._call(Call.LOGS_CREATE, lambda: self._client.create_log_stream(**request))

    def put_log_events(self, **request: Any) -> Any:
        """Put events into a stream (CloudWatch Logs, PutLogEvents)."""
        return self._call(Call.LOGS_PUT, lambda: self._client.put_log_events(**request))

    def look(self, log_group: str) -> None:
        """Check that the log group exists and may be used; nothing is written.

        Raises:
            PlatformError: one of its kinds, see errors.
        """
        call, request = Call.LOGS_LOOK, {"logGroupName": log_group, "limit": 1}
        try:
            answer = call_aws(call, self._client.meta.endpoint_url, lambda: self._client.describe_log_streams(**request), self._endpoint)
        except QueueUnavailable as error:
            if not error.denied:
                raise
            self._try_to_write(log_group)
            return
        if "logStreams" not in answer:
            raise NotThePlatform(call, "the answer does not describe a log group").at(self._endpoint)

    def _try_to_write(self, log_group: str) -> None:
        """Put a line into a stream that does not exist, which fails without a trace: a policy may allow only the agent's own calls."""
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
            with count_outcome(self._count, name):
                return call()
        except ClientError as error:
            if not isinstance(platform_error(name, error), CredentialsExpired):
                raise
            self._credentials.renew(used)
            with count_outcome(self._count, name):
                return call()
