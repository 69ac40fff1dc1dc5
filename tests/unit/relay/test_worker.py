"""A worker's overdue time, which `watchdog` checks: the request has its own limit, the steps before and after it have none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from relay_agent.core.clock import Deadline
from relay_agent.core.failures import Code
from relay_agent.core.models import Command, HttpRequest, Status, Update
from relay_agent.core.urls import parse_url
from relay_agent.diagnostics.watchdog import STUCK_SECONDS
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.relay.task import Task
from relay_agent.relay.worker import Worker
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.target_settings import CallRules


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SlowTransport:
    """A stub transport: each exchange takes `seconds` and fails."""

    def __init__(self, time: Time, seconds: float) -> None:
        self.time, self.seconds = time, seconds

    @contextmanager
    def send(self, _exchange: Any, _observer: Any) -> Iterator[Any]:
        self.time.now += self.seconds
        raise TransportFault(Code.ECONNRESET, "gone")
        yield


class Processor:
    """A stub processor: executes the request, then takes 7 s to record its answer."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.overdue: list[float] = []
        self.worker: Worker

    def process(self, task: Task, executor: Executor) -> Update:
        self.look()
        executor.execute(HttpRequest(parse_url("http://h/")), Deadline(86_400.0, self.time))
        self.look()
        self.time.now += 7.0
        self.look()
        return Update(task.command.id, Status.FAILURE, "")

    def look(self) -> None:
        self.overdue.append(self.worker.overdue_seconds())


class Outbox:
    def command_started(self, _command: Command) -> None:
        pass

    def put(self, _update: Update) -> None:
        pass


def test_a_long_request_does_not_make_its_worker_overdue_while_it_records_the_answer() -> None:
    time = Time()
    processor, tasks = Processor(time), FairQueue[Task](10, 1)
    executor = Executor(cast("Any", SlowTransport(time, 10 * STUCK_SECONDS)), lambda: CallRules(Policy()), ProxyRouter({}), Limits())
    processor.worker = Worker(
        name="worker-0",
        tasks=tasks,
        processor=cast("Any", processor),
        outcomes=cast("Any", None),
        executor=executor,
        outbox=cast("Any", Outbox()),
        log=cast("Any", None),
        monotonic=time,
    )
    for command_id in ("first", "second"):
        task = Task(Command(command_id, "agent", "action"), time.now, "h:80")
        tasks.put((task.lane, task))
        processor.worker._run_one(*tasks.get())
        time.now += 3 * STUCK_SECONDS
        assert processor.worker.overdue_seconds() == 0.0
    assert processor.overdue == [0.0, 0.0, 7.0] * 2
