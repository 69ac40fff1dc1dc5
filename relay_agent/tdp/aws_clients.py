"""AWS clients that sign with the platform's credentials and send through our own transport.

botocore builds and signs requests and reads answers; sending is ours, so that proxies, trust and wall-clock
limits are the same as everywhere on the platform leg. This room must not know queues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver
from botocore.exceptions import BotoCoreError, ClientError

from relay_agent.core.clock import clock_offset
from relay_agent.core.errors import Call, CredentialsExpired, NotThePlatform, PlatformError, PlatformRefused, QueueUnavailable, RateLimited
from relay_agent.protocol.json_bounds import check_text
from relay_agent.tdp.credentials import PlatformCredentials
from relay_agent.tdp.platform_http import PlatformHttp, unreachable
from relay_agent.transport.errors import TransportFault

T = TypeVar("T")

RECEIVE_SECONDS = 30.0
"""Wall-clock limit of a receive: a long poll of 20 s, and time for the way."""
CALL_SECONDS = 15.0

_LONGEST_CODE = 100
"""Characters of an AWS error code that are repeated: a proxy in AWS's place may send any."""

_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "RequestExpired"}
)
_NO_QUEUE = frozenset(
    {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NonExistentQueue", "AccessDenied", "AccessDeniedException"}
)
_CALLS = {
    "ReceiveMessage": Call.SQS_RECEIVE,
    "DeleteMessageBatch": Call.SQS_DELETE,
    "SendMessageBatch": Call.SQS_SEND,
    "GetQueueAttributes": Call.SQS_LOOK,
    "CreateLogStream": Call.LOGS_CREATE,
    "PutLogEvents": Call.LOGS_PUT,
    "DescribeLogStreams": Call.LOGS_LOOK,
}
"""The operations that botocore is asked for."""
_CLOCK = frozenset({"RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException"})


class _Provider(CredentialProvider):
    METHOD = "tdp-agent-credentials"
    CANONICAL_NAME = "tdp-agent-credentials"

    def __init__(self, credentials: PlatformCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> PlatformCredentials:
        return self._credentials


class _Raw:
    """An answer's body, as botocore wants to read it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_args: Any, **_kwargs: Any) -> Iterator[bytes]:
        yield self._body


class Aws:
    """Makes clients. botocore's session reads its data files once."""

    def __init__(self, http: PlatformHttp, credentials: PlatformCredentials, endpoint_url: str | None) -> None:
        self._http = http
        self._endpoint_url = endpoint_url
        self._session = botocore.session.Session()
        self._session.register_component("credential_provider", CredentialResolver([_Provider(credentials)]))

    def client(self, service: str, region: str) -> Any:
        """A client for `sqs` or `logs` in the region."""
        # Its errors are botocore's own: `said` makes them ours.
        config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, user_agent_extra="relay-agent", parameter_validation=False)
        client = self._session.create_client(service, region_name=region, endpoint_url=self._endpoint_url, config=config)
        client.meta.events.register(f"before-send.{service}", cast("Any", self._send))
        return client

    def _send(self, request: AWSPreparedRequest, event_name: str = "", **_context: Any) -> Any:
        """Send what botocore prepared and signed (botocore's `before-send` event)."""
        headers = tuple(
            (str(name), value.decode("latin-1") if isinstance(value, bytes) else str(value)) for name, value in request.headers.items()
        )
        body: Any = request.body
        limit = RECEIVE_SECONDS if event_name.endswith("ReceiveMessage") else CALL_SECONDS
        try:
            answer = self._http.send(request.method, request.url, headers, body.encode("utf-8") if isinstance(body, str) else body, limit)
        except TransportFault as fault:
            fault.called = request.url  # botocore's choice: the region's endpoint, whatever host a queue's URL names.
            raise
        if answer.status < 300 and answer.body.strip() and not answer.body.lstrip().startswith(b"{"):
            # botocore takes a web page for an answer in which nothing stands: no messages, and nothing refused.
            raise NotThePlatform(_CALLS[event_name.rpartition(".")[2]], f"the answer ({answer.status}) is no JSON object")
        over = check_text(answer.body)
        if over is not None:
            raise NotThePlatform(_CALLS[event_name.rpartition(".")[2]], f"the answer ({answer.status}) {over}")
        return AWSResponse(request.url, answer.status, cast("Any", HeadersDict(answer.headers)), _Raw(answer.body))


def said(call: Call, url: str, action: Callable[[], T], endpoint: str | None = None) -> T:
    """Do one call of a client, and say what goes wrong with it in our own exceptions; `url` is what it is about.

    `endpoint` is AWS_ENDPOINT_URL where that stands in AWS's place.

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
    """Say what went wrong with a call of a client in our own exceptions; None for what is no fault of the call."""
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
        # An answer of another form than AWS's trips botocore, or whoever takes it apart: it must not end a thread of the agent.
        return PlatformError(call, f"the answer cannot be read ({type(error).__name__})")
    return None


def shown_code(code: object) -> str:
    """An AWS error code without the name space that some services put before it."""
    return str(code).rpartition("#")[2][:_LONGEST_CODE]


def code_of(error: ClientError) -> str:
    """The code by which AWS, or whoever answered in its place, names its error: the one place that reads botocore's."""
    return shown_code(error.response.get("Error", {}).get("Code", "unknown"))


def platform_error(call: Call, error: ClientError) -> PlatformError:
    """Say an AWS error in our own exceptions, without its text: AWS may repeat what was sent."""
    code = code_of(error)
    said = f"AWS says {code}"
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _EXPIRED:
        return CredentialsExpired(call, said, status, aws_code=code)
    if code in _NO_QUEUE:
        return QueueUnavailable(call, said, status, aws_code=code)
    if code in _CLOCK:
        now = datetime.now(UTC)  # The machine's clock, by which botocore signed.
        date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return PlatformRefused(call, said, status, aws_code=code, clock_off=clock_offset(date, now, now))
    if "Throttl" in code or code in ("SlowDown", "TooManyRequestsException", "RequestThrottled"):
        return RateLimited(call, 0.0)
    return PlatformError(call, said, status, aws_code=code)
