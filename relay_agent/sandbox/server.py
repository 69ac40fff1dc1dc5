"""The sandbox: a whole platform in one process.

This module owns how the parts are put together, and the calls for tests and people. It must not hold rules of the platform.
Threads: one thread calls `start` and `stop`; any thread but `sandbox-loop` may call the rest.
"""

from __future__ import annotations

import secrets
import socket
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay_agent.core.clock import DAY_SECONDS
from relay_agent.core.models import ACTION_HTTP
from relay_agent.sandbox.agents import Agent, Agents
from relay_agent.sandbox.aws.credentials import Credentials, Keys
from relay_agent.sandbox.aws.emulator import Backend, BackendError, load_ministack
from relay_agent.sandbox.aws.guard import AwsCall, Guard
from relay_agent.sandbox.aws.long_poll import LongPoll
from relay_agent.sandbox.aws.receipts import Receipts
from relay_agent.sandbox.changes import Changes
from relay_agent.sandbox.commands import Command, Commands
from relay_agent.sandbox.delivery import Delivery
from relay_agent.sandbox.faults import Fault, FaultHandle, Faults
from relay_agent.sandbox.forms import ApiError, Json
from relay_agent.sandbox.hosting import HOST, Hosting, listen
from relay_agent.sandbox.rest.agent_routes import AgentRoutes, Place, Tokens, log_group
from relay_agent.sandbox.rest.app import build_app
from relay_agent.sandbox.rest.command_routes import CommandRoutes
from relay_agent.sandbox.rest.fault_routes import ControlRoutes
from relay_agent.sandbox.rest.front import RestCall, RestFront
from relay_agent.sandbox.rest.page_routes import Pages

_REGION = "us-east-2"
_TOKEN_SECONDS = 365 * DAY_SECONDS


class Sandbox:
    """A platform on this machine: `with Sandbox() as sandbox: ...`.

    Its state is in memory. `credentials_lifetime`, `min_ttl_seconds` (how far ahead a command's `expiresAt` must be) and
    `url_lifetime` (of presigned URLs) are in seconds; `ports` are those of REST and of AWS, 0 for any free one. `aws_calls` holds the last
    20,000 calls to AWS in the order of arrival, `under_way` how many of each operation are not answered yet.
    """

    def __init__(
        self,
        *,
        ports: tuple[int, int] = (0, 0),
        credentials_lifetime: float = 3600.0,
        visibility_timeout: int = 600,
        agent_ids: tuple[str, ...] = (),
        agent_name: str = "sandbox agent",
        min_ttl_seconds: float = 60.0,
        url_lifetime: int = 7 * DAY_SECONDS,
        org_slug: str = "sandbox",
    ) -> None:
        self.org_slug = org_slug
        self.region = _REGION
        self.clock_offset = timedelta()
        self.changes = Changes()
        self.keys = Keys(self.now)
        self.faults = Faults(self.changes.touch)
        self.agents = Agents(self.now, self.changes)
        self.commands = Commands(self.now, self.changes)
        self.tokens = Tokens(secrets.token_bytes(32), org_slug, self.now)
        self.credentials_lifetime = credentials_lifetime
        self._ports = ports
        self.visibility_timeout = visibility_timeout
        self._url_lifetime = url_lifetime
        self._hosting = Hosting(self.now)
        self._backend: Backend
        self._delivery: Delivery
        self._routes = AgentRoutes(self.agents, self.keys, self.tokens, self._place, self._lifetime)
        self.front = self._build_front(min_ttl_seconds)
        self.aws_calls: deque[AwsCall] = deque(maxlen=20_000)
        self.under_way: Counter[str] = Counter()
        for agent_id in agent_ids or (str(uuid.uuid4()),):
            self.agents.add(agent_name, agent_id)
        self.agent_id = self.agents.all()[0].id
        self.jwt = self.tokens.issue(_TOKEN_SECONDS)
        self.api_target = ""
        self.aws_endpoint = ""

    def _build_front(self, min_ttl_seconds: float) -> RestFront:
        commands = CommandRoutes(self.commands, self, self.tokens, min_ttl_seconds, self.now)
        pages = Pages(self.agents, self.commands, commands, self, self.now)
        control = ControlRoutes(self.faults, self.expire_credentials)
        flask = build_app([self._routes.blueprint, commands.public, *commands.internal, pages.blueprint, control.blueprint])
        return RestFront(flask, self.faults, self.now, self.changes.touch)

    def now(self) -> datetime:
        """Return the platform's time: this machine's plus `clock_offset`."""
        return datetime.now(UTC) + self.clock_offset

    # ---- start and stop

    def start(self) -> Sandbox:
        """Listen, and create queues, bucket and log groups.

        Raises:
            OSError: a port is taken; its `filename` is the port.
        """
        rest, aws = self._listen()
        self.api_target = f"http://{HOST}:{rest.getsockname()[1]}"
        self.aws_endpoint = f"http://{HOST}:{aws.getsockname()[1]}"
        ministack = LongPoll(load_ministack())
        self._backend = Backend(ministack, self.keys.root, self.region, self.aws_endpoint)
        self._delivery = Delivery(self._backend, self.commands, self.aws_endpoint, self.visibility_timeout, self._url_lifetime, self.now)
        guard = Guard(Receipts(ministack, self.visibility_timeout), self.keys, self.faults, self.now, self.on_aws_call)
        self._hosting.start([(self.front, rest), (guard, aws)], [self._delivery.consume, self._delivery.expire])
        self._hosting.call(self._delivery.open())
        for agent in self.agents.all():
            self._hosting.call(self._delivery.open_agent(agent, log_group(self.org_slug, agent.id)))
        return self

    def stop(self) -> None:
        """Close every connection and join every thread. May be called twice."""
        self.faults.release_all()
        self._hosting.stop()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listen(self) -> tuple[socket.socket, socket.socket]:
        listening: list[socket.socket] = []
        for port in self._ports:
            try:
                listening.append(listen(port))
            except OSError as error:
                for other in listening:
                    other.close()
                raise OSError(error.errno, error.strerror, str(port)) from None
        return listening[0], listening[1]

    # ---- what an agent needs

    def environment(self, agent_id: str | None = None) -> dict[str, str]:
        """Return the variables for an agent that uses this sandbox; without an id, for the first agent."""
        return {
            "API_TARGET": self.api_target,
            "ORG_SLUG": self.org_slug,
            "AGENT_ID": agent_id or self.agent_id,
            "JWT": self.jwt,
            "AWS_ENDPOINT_URL": self.aws_endpoint,
            "no_proxy": f"{HOST},localhost",
        }

    def issue_jwt(self, lifetime_seconds: float = 3600.0, org_slug: str | None = None) -> str:
        """Return another token: one that expires soon, has expired (a negative lifetime) or is another organisation's."""
        return self.tokens.issue(lifetime_seconds, org_slug)

    def add_agent(self, name: str = "another agent") -> str:
        """Create an agent with its queue and log group, and return its id."""
        agent = self.agents.add(name)
        self._hosting.call(self._delivery.open_agent(agent, log_group(self.org_slug, agent.id)))
        return agent.id

    # ---- what an administrator does

    def enable_agent(self, agent_id: str, enabled: bool) -> None:
        """Enable or disable an agent's connection."""
        self.agents.enable(self._agent(agent_id), enabled)

    def enable_queue(self, agent_id: str, enabled: bool) -> None:
        """Enable or disable an agent's queue."""
        self.agents.enable_queue(self._agent(agent_id), enabled)

    def move_queue(self, agent_id: str, *, delete: bool = False) -> str:
        """Give an agent a new, empty queue, named in its next configuration, and return its URL; `delete` removes the old one."""
        agent = self._agent(agent_id)
        old = self._hosting.call(self._delivery.move_queue(agent))
        if delete:
            self._hosting.call(self._delivery.delete_queue(old))
        return agent.queue_url

    def expire_credentials(self) -> None:
        """Let every AWS credential that was issued expire now."""
        self.keys.expire_all()

    def inject(self, fault: Fault) -> FaultHandle:
        """Inject a fault."""
        return self.faults.inject(fault)

    # ---- what a sender does

    def create_command(
        self,
        agent_id: str,
        payload: Json,
        action: str = ACTION_HTTP,
        expires_in: float = 600.0,
        *,
        delivery: str | None = None,
        metadata: Mapping[str, str] | None = None,
        group: str | None = None,
    ) -> str:
        """Create a command as `POST /v1/commands` does, but without its validation, and return its id.

        `expires_in` is in seconds; a command that expires at once is sent all the same, and then EXPIRED. `group` is the message group;
        without it all commands of an agent are in one.

        Raises:
            ApiError: 404, no such agent.
        """
        now = self.now()
        command = Command(
            id=str(uuid.uuid4()),
            org_slug=self.org_slug,
            target_id=agent_id,
            action=action,
            created_at=now,
            updated_at=now,
            expires_at=now + timedelta(seconds=expires_in),
            payload=payload,
            metadata=dict(metadata or {}),
            delivery=delivery,
            group=group,
        )
        self.dispatch(command)
        return command.id

    def dispatch(self, command: Command) -> None:
        """Add a command and put it on its agent's queue: PENDING, or UNSENT if the queue is disabled.

        Raises:
            ApiError: 404, no such agent.
        """
        agent = self._agent(command.target_id)
        self.commands.add(command)
        if agent.queue_enabled:
            self._hosting.call(self._delivery.send(command, agent))
        else:
            self.commands.move(command, "UNSENT", "The agent's queue is disabled")

    def purge(self, agent_id: str) -> list[str]:
        """Empty an agent's queue, and return the ids of the commands that are PURGED by it.

        Raises:
            ApiError: 404, no such agent; 400, the queue is being purged already.
        """
        agent = self._agent(agent_id)
        try:
            self._hosting.call(self._delivery.purge(agent))
        except BackendError:
            raise ApiError(400, "Queue is already purging. Please try later.") from None
        return [command.id for command in self.commands.purge(agent_id)]

    def send_raw(self, agent_id: str, text: str, group: str | None = None) -> None:
        """Put any text on an agent's queue."""
        self._hosting.call(self._delivery.send_text(self._agent(agent_id), text, group or agent_id))

    # ---- what a test looks at

    def command(self, command_id: str) -> Command:
        """Return a command, which changes as the platform changes it.

        Raises:
            KeyError: no such command.
        """
        command = self.commands.get(command_id)
        if command is None:
            raise KeyError(command_id)
        return command

    def wait_final(self, command_id: str, timeout: float = 30.0) -> Command:
        """Wait until a command's status is final, and return the command.

        Raises:
            TimeoutError: it is not final after `timeout` seconds.
        """
        command = self.command(command_id)
        if not self.changes.wait(lambda: command.final, timeout):
            raise TimeoutError(f"command {command_id} is still {command.status} after {timeout:g} s")
        return command

    def wait(self, predicate: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until `predicate` holds; it is evaluated after every call, update and change.

        Raises:
            TimeoutError: it does not hold after `timeout` seconds.
        """
        if not self.changes.wait(predicate, timeout):
            raise TimeoutError(f"the condition did not hold within {timeout:g} s")

    @property
    def requests(self) -> list[RestCall]:
        """The last 5,000 REST calls, the oldest first, without their tokens."""
        return list(self.front.calls)

    @property
    def system_metrics(self) -> list[tuple[str, list[Any]]]:
        """The uploads to `agent/systemmetric`: (agent id, the lines as JSON)."""
        return list(self._routes.uploads.metrics)

    @property
    def uploaded_logs(self) -> list[tuple[str, str]]:
        """The uploads to `agent/log`: (agent id, text)."""
        return list(self._routes.uploads.logs)

    @property
    def unmatched_updates(self) -> list[str]:
        """Messages on the platform's queue that do not name a known command."""
        return list(self._delivery.unmatched_updates)

    def heartbeats(self, agent_id: str) -> list[datetime]:
        """Return the times of an agent's heartbeats."""
        return list(self._agent(agent_id).heartbeats)

    def settings(self, agent_id: str) -> list[str]:
        """Return STARTED and STOPPED in the order in which an agent reported them."""
        return [setting for _, setting in list(self._agent(agent_id).settings)]

    def log_events(self, agent_id: str) -> list[Json]:
        """Return the events in an agent's log group, in order: `logStreamName`, `timestamp` (ms), `message`."""
        return self._hosting.call(self._backend.log_events(log_group(self.org_slug, agent_id)))

    def queue_depth(self, agent_id: str) -> tuple[int, int]:
        """Return how many messages wait on an agent's queue, and how many are in flight."""
        return self._hosting.call(self._backend.queue_depth(self._agent(agent_id).queue_url))

    def credentials(self, lifetime_seconds: float | None = None) -> Credentials:
        """Issue AWS credentials as `agent/credentials` does."""
        return self.keys.issue(self.credentials_lifetime if lifetime_seconds is None else lifetime_seconds)

    def presign(self, method: str, key: str, seconds: int) -> str:
        """Return a presigned URL for an object of the platform's bucket; a negative `seconds` makes one that has expired."""
        return self._backend.presign(method, self._delivery.bucket, key, seconds)

    # ---- inside

    def _agent(self, agent_id: str) -> Agent:
        agent = self.agents.get(agent_id)
        if agent is None:
            raise ApiError(404, f"Agent with id {agent_id} not found")
        return agent

    def _lifetime(self) -> float:
        return self.credentials_lifetime

    def _place(self) -> Place:
        return Place(self.org_slug, self.region, self._delivery.bucket, self._delivery.queue_url, self.visibility_timeout)

    def on_aws_call(self, call: AwsCall, done: bool) -> None:
        """Note a call to AWS, as it begins and, `done`, as it ends; a subclass may look at it too."""
        if done:
            self.under_way[call.operation] -= 1
        else:
            self.under_way[call.operation] += 1
            self.aws_calls.append(call)
        if done and call.operation in ("SendMessage", "SendMessageBatch"):
            self._delivery.arrived()
        self.changes.touch()
