"""The calls to SQS that every command needs, without the steps of botocore that are the same each time.

botocore serializes by walking the service's model, emits twelve events for each call, and walks the model again for the answer: two
thirds of what a call costs. Here a call is one JSON object, signed by botocore's signer, and an answer is the JSON object as it came
(AWS JSON protocol 1.0). Whatever else the client can do, and every error, is still botocore's.

This module owns the form of these calls. It must not know what a queue or a message is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, HeadersDict
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserFactory

from relay_agent.tdp.credentials import PlatformCredentials
from relay_agent.tdp.platform_http import Answer

Send = Callable[[str, AWSRequest], Answer]
"""Sends the signed request of an operation, named as AWS does, and returns the answer."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


class PreparedCalls:
    """A botocore client for SQS whose three frequent calls are prepared. Any thread may call."""

    def __init__(self, client: Any, credentials: PlatformCredentials, send: Send) -> None:
        self._client = client
        self._credentials = credentials
        self._send = send
        model = client.meta.service_model
        self._model = model
        self._signing = model.signing_name, client.meta.region_name
        self._url = client.meta.endpoint_url.rstrip("/") + "/"
        self._target = model.metadata["targetPrefix"]
        self._fields = {
            "Content-Type": f"application/x-amz-json-{model.metadata['jsonVersion']}",
            "x-amzn-query-mode": "true",  # Errors then have the codes that botocore knows.
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def receive_message(self, **parameters: Any) -> dict[str, Any]:
        """Call ReceiveMessage.

        Raises:
            ClientError: AWS refused it.
            ValueError: the answer is not JSON.
        """
        return self._call("ReceiveMessage", parameters)

    def delete_message_batch(self, **parameters: Any) -> dict[str, Any]:
        """Call DeleteMessageBatch; raises as `receive_message`."""
        return self._call("DeleteMessageBatch", parameters)

    def send_message_batch(self, **parameters: Any) -> dict[str, Any]:
        """Call SendMessageBatch; raises as `receive_message`."""
        return self._call("SendMessageBatch", parameters)

    def _call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        fields = {**self._fields, "X-Amz-Target": f"{self._target}.{operation}"}
        request = AWSRequest("POST", self._url, fields, _encode(parameters).encode("ascii"))
        SigV4Auth(self._credentials.get_frozen_credentials(), *self._signing).add_auth(request)
        answer = self._send(operation, request)
        if answer.status >= 300:
            raise ClientError(cast("Any", self._error(operation, answer)), operation)
        # `_send` has already rejected bodies that do not begin with a brace (`aws_clients`).
        found: dict[str, Any] = json.loads(answer.body) if answer.body.strip() else {}
        return {name: value for name, value in found.items() if value is not None}

    def _error(self, operation: str, answer: Answer) -> Any:
        parser = ResponseParserFactory().create_parser(self._model.resolved_protocol)
        received = {
            "status_code": answer.status,
            "headers": HeadersDict(answer.headers),
            "body": answer.body,
            "context": {"operation_name": operation},
        }
        return parser.parse(received, self._model.operation_model(operation).output_shape)
