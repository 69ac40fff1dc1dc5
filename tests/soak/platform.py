"""The platform of a soak: the sandbox behind two ports that can fail, and the outages of the plan.

How an outage of the platform begins and ends, and when polling had resumed after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from time import monotonic
from urllib.parse import urlsplit

from relay_agent.sandbox.aws.credentials import Verdict
from relay_agent.sandbox.aws.guard import AwsCall
from relay_agent.sandbox.faults import Fault
from relay_agent.sandbox.rest import same_origin
from relay_agent.sandbox.server import Sandbox
from tests.soak.front import Front, FrontLoop
from tests.soak.ground import Ground
from tests.soak.plan import Episode

_HTML = "<!DOCTYPE html><html><body><h1>Please log in</h1></body></html>"
_SIGNED = timedelta(minutes=5)
_LOST = {"send's answer lost": b"AmazonSQS.SendMessageBatch", "delete's answer lost": b"AmazonSQS.DeleteMessageBatch"}
_LOST_AT_ONCE = 2


class Recovery:
    """How long after the end of all outages polling was back. Called by the conductor and by the sandbox's thread."""

    def __init__(self) -> None:
        self.longest_seconds = 0.0
        self.measured = 0
        self.cut_short = 0
        self._outages = 0
        self._well_since: float | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """An outage begins."""
        with self._lock:
            self._outages += 1
            self.cut_short += self._well_since is not None
            self._well_since = None

    def end(self) -> None:
        """An outage ends; with the last one the time runs."""
        with self._lock:
            self._outages -= 1
            self._well_since = monotonic() if self._outages == 0 else None

    def polled(self) -> None:
        """The queue was read."""
        with self._lock:
            if self._well_since is not None:
                self.longest_seconds = max(self.longest_seconds, monotonic() - self._well_since)
                self.measured += 1
                self._well_since = None

    @property
    def waiting_seconds(self) -> float:
        """How long polling has not come back, 0 where it has."""
        with self._lock:
            return 0.0 if self._well_since is None else monotonic() - self._well_since


class SoakSandbox(Sandbox):
    """A sandbox whose addresses, in queue URLs and presigned URLs too, are those of the fronts before it."""

    def __init__(self, fronts: FrontLoop, ground: Ground) -> None:
        self.rest, self.aws = Front(fronts), Front(fronts)
        self.recovery = Recovery()
        self._host = ground.host
        same_origin.OWN_NAMES.add(ground.host)
        # Messages that a killed agent had received return soon.
        super().__init__(visibility_timeout=2)

    @property
    def api_target(self) -> str:
        """Where the agent finds REST."""
        return f"http://{self._host}:{self.rest.port}"

    @api_target.setter
    def api_target(self, address: str) -> None:
        self.rest.upstream = urlsplit(address).port or 0

    @property
    def aws_endpoint(self) -> str:
        """Where the agent finds SQS, S3 and CloudWatch Logs."""
        return f"http://{self._host}:{self.aws.port}"

    @aws_endpoint.setter
    def aws_endpoint(self, address: str) -> None:
        self.aws.upstream = urlsplit(address).port or 0

    def on_aws_call(self, call: AwsCall, done: bool) -> None:
        if call.operation == "ReceiveMessage" and self._good(call):
            self.recovery.polled()
        super().on_aws_call(call, done)

    def _good(self, call: AwsCall) -> bool:
        if call.signed_at is None:
            return False
        signed = datetime.strptime(call.signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return abs(self.now() - signed) <= _SIGNED and self.keys.verdict(call.access_key_id or "", call.session_token) is Verdict.GOOD


class Outages:
    """Does the platform's outages, any number at a time. Called by the conductor alone."""

    def __init__(self, sandbox: SoakSandbox, ground: Ground) -> None:
        self._sandbox = sandbox
        self._ground = ground
        self._running: dict[Episode, ExitStack] = {}
        self._begin: dict[str, Callable[[Episode, ExitStack], None]] = {
            "refused": lambda episode, ends: self._fronts(episode, ends, Front.refuse),
            "hanging": lambda episode, ends: self._fronts(episode, ends, Front.hang),
            "dns gone": self._dns,
            "credentials expired": lambda _, __: sandbox.expire_credentials(),
            "credentials refused": lambda _, ends: self._fault(ends, Fault("sqs", status=403, code="InvalidClientTokenId", count=None)),
            "token refused": lambda _, ends: self._fault(ends, Fault("rest", status=401, body='{"message":"no"}', count=None)),
            "clock skewed": self._skew,
        }

    def begin(self, episode: Episode) -> None:
        """Begin an outage."""
        ends = self._running[episode] = ExitStack()
        self._sandbox.recovery.begin()
        begin = self._begin.get(episode.kind)
        if begin is not None:
            begin(episode, ends)
        elif episode.kind in _LOST:
            self._sandbox.aws.lose(_LOST[episode.kind], _LOST_AT_ONCE)
            ends.callback(self._sandbox.aws.lose, _LOST[episode.kind], 0)
        else:
            self._fault(ends, _FAULTS[episode.kind](episode.where))

    def end(self, episode: Episode) -> None:
        """End an outage; a front that it held is a wire again, whatever else was to be wrong with it."""
        self._running.pop(episode).close()
        self._sandbox.recovery.end()

    def _fault(self, ends: ExitStack, fault: Fault) -> None:
        ends.enter_context(self._sandbox.inject(fault))

    def _fronts(self, episode: Episode, ends: ExitStack, act: Callable[[Front], None]) -> None:
        fronts = {"rest": (self._sandbox.rest,), "": (self._sandbox.rest, self._sandbox.aws)}.get(episode.where, (self._sandbox.aws,))
        for front in fronts:
            act(front)
            ends.callback(front.restore)

    def _dns(self, _: Episode, ends: ExitStack) -> None:
        self._ground.forget_name()
        ends.callback(self._ground.recall_name)
        # A kept connection needs no name: make the agent look it up now.
        for front in (self._sandbox.rest, self._sandbox.aws):
            front.cut()

    def _skew(self, episode: Episode, ends: ExitStack) -> None:
        self._sandbox.clock_offset = timedelta(minutes=episode.amount)
        ends.callback(setattr, self._sandbox, "clock_offset", timedelta())


_FAULTS: dict[str, Callable[[str], Fault]] = {
    "status 503": lambda where: Fault(where, status=503, body="Service Unavailable", count=None),
    "status 429": lambda where: Fault(where, status=429, headers={"Retry-After": "2"}, body='{"message":"slow down"}', count=None),
    "html with 200": lambda where: Fault(where, status=200, headers={"content-type": "text/html"}, body=_HTML, count=None),
    "html with 500": lambda where: Fault(where, status=500, headers={"content-type": "text/html"}, body=_HTML, count=None),
    "closed without an answer": lambda where: Fault(where, close=True, count=None),
}
