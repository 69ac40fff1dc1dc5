"""AWS clients that sign with the platform's credentials and send through the agent's own transport.

This module owns what botocore is used for, and the translation of its errors. It must not know what a queue or a log group is.

botocore builds and signs requests and parses answers. The agent's transport sends them, so that proxies, trusted roots and deadlines
are the same as for every other call to the platform.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse, HeadersDict
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader

from relay_agent.core.clock import clock_offset
from relay_agent.core.errors import Call, CredentialsExpired, NotThePlatform, PlatformError, PlatformRefused, QueueUnavailable, RateLimited
from relay_agent.protocol.json_bounds import check_text
from relay_agent.tdp.aws_data import AwsDataFiles
from relay_agent.tdp.credentials import PlatformCredentials
from relay_agent.tdp.platform_http import CALL_SECONDS, Answer, PlatformHttp, unreachable
from relay_agent.tdp.prepared_calls import PreparedCalls
from relay_agent.transport.errors import TransportFault

T = TypeVar("T")

RECEIVE_SECONDS = 30.0
"""Deadline of a receive: a long poll of 20 s, and time for the connection."""

_LONGEST_CODE = 100
"""Characters of an AWS error code that messages repeat: a proxy in AWS's place may send any number."""

_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "RequestExpired"}
)
_NO_QUEUE = frozenset(
    {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NonExistentQueue", "AccessDenied", "AccessDeniedException"}
)
_CALLS = {
    "ReceiveMessage": Call.SQS_RECEIVE,
    "DeleteMessageBatch": Call.SQS_DELETE,
    "ChangeMessageVisibilityBatch": Call.SQS_RETURN,
    "SendMessageBatch": Call.SQS_SEND,
    "GetQueueAttributes": Call.SQS_LOOK,
    "CreateLogStream": Call.LOGS_CREATE,
    "PutLogEvents": Call.LOGS_PUT,
    "DescribeLogStreams": Call.LOGS_LOOK,
}
"""The agent's name for each operation of botocore."""
_SERVICES = frozenset({"sqs", "logs"})
_BAD_SIGNATURE = frozenset({"RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException"})


class _Provider(CredentialProvider):
    METHOD = "tdp-agent-credentials"
    CANONICAL_NAME = "tdp-agent-credentials"

    def __init__(self, credentials: PlatformCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> PlatformCredentials:
        return self._credentials


class _Raw:
    """The body of an answer, with the one method by which botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_args: Any, **_kwargs: Any) -> Iterator[bytes]:
        yield self._body


@functools.cache
def data_loader() -> Loader:
    """Return the loader of all sessions. It reads each data file once, and only botocore's own: no AWS_DATA_PATH, no ~/.aws/models."""
    return Loader([Loader.BUILTIN_DATA_PATH], AwsDataFiles(_SERVICES, _CALLS), include_default_search_paths=False)


class Aws:
    """Makes clients, all from one botocore session."""

    def __init__(self, http: PlatformHttp, credentials: PlatformCredentials, endpoint_url: str | None) -> None:
        self._http = http
        self._credentials = credentials
        self._endpoint_url = endpoint_url
        self._session = botocore.session.Session()
        self._session.register_component("data_loader", data_loader())
        self._session.register_component("credential_provider", CredentialResolver([_Provider(credentials)]))

    def client(self, service: str, region: str) -> Any:
        """Return a client for `sqs` or `logs` in the region; it raises botocore's errors, which `call_aws` translates.

        Its methods are botocore's; SQS's frequent ones are prepared (`prepared_calls`).
        """
        config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, user_agent_extra="relay-agent", parameter_validation=False)
        client = self._session.create_client(service, region_name=region, endpoint_url=self._endpoint_url, config=config)
        client.meta.events.register(f"before-send.{service}", cast("Any", self._send))
        return PreparedCalls(client, self._credentials, self._exchange) if service == "sqs" else client

    def _send(self, request: AWSPreparedRequest, event_name: str = "", **_context: Any) -> Any:
        """Send the request that botocore signed, and return its answer (botocore's `before-send` event)."""
        answer = self._exchange(event_name.rpartition(".")[2], request)
        return AWSResponse(request.url, answer.status, cast("Any", HeadersDict(answer.headers)), _Raw(answer.body))

    def _exchange(self, operation: str, request: AWSRequest | AWSPreparedRequest) -> Answer:
        """Send a signed request of an operation, named as AWS does, and return the answer."""
        headers = tuple(
            (str(name), value.decode("latin-1") if isinstance(value, bytes) else str(value)) for name, value in request.headers.items()
        )
        body: Any = request.body
        limit = RECEIVE_SECONDS if operation == "ReceiveMessage" else CALL_SECONDS
        try:
            answer = self._http.send(
                str(request.method), str(request.url), headers, body.encode("utf-8") if isinstance(body, str) else body, limit
            )
        except TransportFault as fault:
            fault.called = str(request.url)  # The region's endpoint, which may differ from the host in a queue's URL.
            raise
        if answer.status < 300 and answer.body.strip() and not answer.body.lstrip().startswith(b"{"):
            # botocore would read a web page as an empty answer: no messages, no errors.
            raise NotThePlatform(_CALLS[operation], f"the answer ({answer.status}) is not a JSON object")
        problem = check_text(answer.body)
        if problem is not None:
            raise NotThePlatform(_CALLS[operation], f"the answer ({answer.status}) {problem}")
        return answer


def call_aws(call: Call, url: str, action: Callable[[], T], endpoint: str | None = None) -> T:
    """Return what `action`, one call of a client, returns, and translate its errors.

    `url` is the URL that is called; `endpoint` is AWS_ENDPOINT_URL if it is set.

    Raises:
        PlatformError: one of its kinds, see errors.
    """
    try:
        return action()
    except Exception as error:
        ours = as_platform_error(call, url, error, endpoint)
        if ours is None:
            raise
        raise ours from None


def as_platform_error(call: Call, url: str, error: Exception, endpoint: str | None = None) -> PlatformError | None:
    """Return the PlatformError for what a call of a client raised; None for an error that is not the call's."""
    ours = _translated(call, url, error)
    return None if ours is None else ours.at(endpoint)


def _translated(call: Call, url: str, error: Exception) -> PlatformError | None:
    if isinstance(error, ClientError):
        return platform_error(call, error)
    if isinstance(error, NotThePlatform):
        return error
    if isinstance(error, TransportFault):
        return unreachable(call, error, error.called or url)
    if isinstance(error, BotoCoreError | AttributeError | TypeError | ValueError | LookupError | ArithmeticError | RecursionError):
        # botocore, or the code that reads its result, met an answer not of AWS's form. That must not end a thread.
        return PlatformError(call, f"the answer cannot be read ({type(error).__name__})")
    return None


def shown_code(code: object) -> str:
    """Return an AWS error code for display, without the namespace that some services put before it."""
    return str(code).rpartition("#")[2][:_LONGEST_CODE].encode("utf-8", "replace").decode("utf-8")


def code_of(error: ClientError) -> str:
    """Return the error code of AWS, or of what answered in its place; no other code reads it from botocore's error."""
    return shown_code(error.response.get("Error", {}).get("Code", "unknown"))


def platform_error(call: Call, error: ClientError) -> PlatformError:
    """Return the PlatformError for an AWS error, without AWS's text, which may repeat what was sent."""
    code = code_of(error)
    reason = f"AWS says {code}"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _EXPIRED:
        return CredentialsExpired(call, reason, status, aws_code=code)
    if code in _NO_QUEUE:
        return QueueUnavailable(call, reason, status, aws_code=code)
    if code in _BAD_SIGNATURE:
        now = datetime.now(UTC)  # The machine's clock, by which botocore signed.
        date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return PlatformRefused(call, reason, status, aws_code=code, clock_off=clock_offset(date, now, now))
    if "Throttl" in code or code in ("SlowDown", "TooManyRequestsException", "RequestThrottled"):
        return RateLimited(call, 0.0)
    return PlatformError(call, reason, status, aws_code=code)
