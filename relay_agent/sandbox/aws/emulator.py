"""The sandbox's own calls to the AWS emulator in this process: queues, objects and log groups.

This module owns the import of ministack and the platform's calls to it. It must not decide anything about commands.

ministack keeps its state in module globals, which all sandboxes of a process share. They do not collide, since every queue, bucket
and log group has a unique id in its name.
"""

from __future__ import annotations

import importlib
import json
import logging
from dataclasses import dataclass
from typing import Any

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SigningCredentials

from relay_agent.core.errors import RelayError
from relay_agent.sandbox.asgi import App, Message, replay
from relay_agent.sandbox.aws.credentials import Credentials

_TARGETS = {"sqs": "AmazonSQS", "logs": "Logs_20140328"}
_LOGGERS = ("ministack", "persistence", "sqs", "s3", "logs", "sts", "x509_utils", "lambda_runtime")


class BackendError(RelayError):
    """The emulator refused one of the platform's own calls. `code` is AWS's."""

    def __init__(self, operation: str, code: str, message: str) -> None:
        super().__init__(f"{operation}: {code}: {message}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the emulator; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def load_ministack() -> App:
    """Import the emulator, undo what it does to the root logger, and silence its own loggers."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    module = importlib.import_module("ministack.app")
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    app: App = module.app
    return app


class Backend:
    """The platform's calls. Its coroutines run in the sandbox's loop."""

    def __init__(self, app: App, root: Credentials, region: str, endpoint: str) -> None:
        self._app = app
        self._root = root
        self._region = region
        self._endpoint = endpoint
        # Here ministack looks up the secret to check a presigned URL with.
        importlib.import_module("ministack.services.sts")._sessions[root.access_key_id] = {
            "SecretAccessKey": root.secret_access_key,
            "Arn": "arn:aws:iam::000000000000:root",
            "UserId": "sandbox",
        }

    async def call(self, service: str, operation: str, **params: object) -> dict[str, Any]:
        """Call an operation of SQS or CloudWatch Logs.

        Raises:
            BackendError: the emulator refused it.
        """
        headers = {"x-amz-target": f"{_TARGETS[service]}.{operation}", "content-type": "application/x-amz-json-1.0"}
        answer = await self._request(service, "POST", "/", headers, json.dumps(params).encode())
        result: dict[str, Any] = json.loads(answer.body or b"{}")
        if answer.status != 200:
            raise BackendError(operation, str(result.get("__type", "")).rpartition("#")[2], str(result.get("message", "")))
        return result

    async def log_events(self, log_group: str) -> list[dict[str, Any]]:
        """Return every event of a log group, ordered by time."""
        events: list[dict[str, Any]] = []
        page: dict[str, object] = {}
        while True:
            answer = await self.call("logs", "FilterLogEvents", logGroupName=log_group, limit=10_000, **page)
            events += answer.get("events", [])
            if not answer.get("nextToken"):
                return events
            page = {"nextToken": answer["nextToken"]}

    async def queue_depth(self, queue_url: str) -> tuple[int, int]:
        """Return how many messages wait on a queue, and how many are in flight."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        answer = await self.call("sqs", "GetQueueAttributes", QueueUrl=queue_url, AttributeNames=list(names))
        return int(answer["Attributes"][names[0]]), int(answer["Attributes"][names[1]])

    async def create_bucket(self, bucket: str) -> None:
        """Create a bucket in the sandbox's region."""
        await self._object("PUT", f"/{bucket}", {}, b"")

    async def put_object(self, bucket: str, key: str, body: bytes, headers: dict[str, str]) -> None:
        """Store an object with its headers."""
        await self._object("PUT", f"/{bucket}/{key}", headers, body)

    async def get_object(self, bucket: str, key: str) -> Answer:
        """Read an object.

        Raises:
            BackendError: there is none.
        """
        return await self._object("GET", f"/{bucket}/{key}", {}, b"")

    def presign(self, method: str, bucket: str, key: str, seconds: int, headers: dict[str, str] | None = None) -> str:
        """Return a URL that allows one method on one object for `seconds`, with exactly these headers."""
        request = AWSRequest(method=method, url=f"{self._endpoint}/{bucket}/{key}", headers=headers or {})
        credentials = SigningCredentials(self._root.access_key_id, self._root.secret_access_key)
        S3SigV4QueryAuth(credentials, "s3", self._region, expires=seconds).add_auth(request)
        return str(request.url)

    async def _object(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = await self._request("s3", method, path, headers, body)
        if answer.status >= 300:
            raise BackendError(f"{method} {path}", str(answer.status), "")
        return answer

    async def _request(self, service: str, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        scope = self._scope(service, method, path, headers, len(body))
        started: dict[str, Any] = {}
        parts: list[bytes] = []

        async def send(message: Message) -> None:
            started.update(message if message["type"] == "http.response.start" else {})
            parts.append(message.get("body", b""))

        await self._app(scope, replay(body), send)
        answered = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in started["headers"]}
        return Answer(started["status"], answered, b"".join(parts))

    def _scope(self, service: str, method: str, path: str, headers: dict[str, str], length: int) -> dict[str, Any]:
        credential = f"{self._root.access_key_id}/20000101/{self._region}/{service}/aws4_request"
        everything = {
            **headers,
            "host": self._endpoint.partition("://")[2],
            "content-length": str(length),
            # The emulator reads the region from here, and does not check the signature.
            "authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=none",
        }
        return {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode("ascii"),
            "query_string": b"",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in everything.items()],
        }
