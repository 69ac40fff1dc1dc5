"""Functions that declare the agent's threads (`AgentThread`), each around parts that `wiring` has built.

A declaration says a thread's name, its step, when a stop ends it, how it is watched and what the status page says of it. This module starts
no thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil

from relay_agent.agent.heartbeat import Heartbeat
from relay_agent.agent.maintenance import Maintenance
from relay_agent.agent.monitors import Monitors
from relay_agent.agent.registration import Registration
from relay_agent.agent.syslog_shipper import SyslogShipper
from relay_agent.agent.threads import AgentThread, Ending, ShutdownPhase, Stops, Threads
from relay_agent.agent.wiring import Flow, Network, Platform, Telemetry, host_name
from relay_agent.config.settings import Settings
from relay_agent.core.loop import Loop, one_shot
from relay_agent.core.memory import release_free_memory
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.watchdog import Watchdog
from relay_agent.relay.poller import Poller
from relay_agent.relay.sender import Sender
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.relay.uploader import Uploader
from relay_agent.relay.worker import Worker
from relay_agent.telemetry.metrics import system_metrics
from relay_agent.transport.session import Transport

DOWNLOADERS = 8
UPLOADERS = 2
LAST_LINES_SECONDS = 1.0
"""How long the end of the agent may be delayed to deliver the last log lines by syslog."""


def build_threads(
    settings: Settings,
    stops: Stops,
    ending: Ending,
    telemetry: Telemetry,
    network: Network,
    platform: Platform,
    flow: Flow,
    monitors: Monitors,
    started: Sequence[AgentThread] = (),
) -> Threads:
    """Declare all threads. A new thread needs a function below and an entry in this list, nothing else. `started` already run."""
    workers = [worker(f"worker-{place}", settings, telemetry, network, flow) for place in range(settings.workers)]
    statuses: dict[str, LoopStatus] = {}
    watchdog = Watchdog(
        loops=statuses,
        workers=workers,
        journal=flow.journal,
        disk=flow.storage.disk,
        platform_status=platform.status,
        draining=lambda: stops.intake.is_set() and ending.code == 0,
    )
    poller = poller_loop(stops, telemetry, platform, flow)
    threads = (
        poller,
        sender_loop(stops, telemetry, platform, flow),
        config_refresh_loop(settings, stops, ending, telemetry, platform, flow.storage.directory.path),
        heartbeat_loop(settings, stops, telemetry, platform, watchdog),
        maintenance_loop(stops, telemetry, flow, poller),
        environment_loop(stops, telemetry, monitors),
        *downloader_threads(flow),
        *worker_threads(flow, workers),
        *uploader_threads(stops, telemetry, platform, flow),
        log_shipper_loop(stops, platform),
        *started,
    )
    # Filled last: the heartbeat needs the watchdog, and the watchdog watches the heartbeat.
    statuses.update({thread.name: thread.status for thread in threads if thread.status is not None})
    return Threads(all=threads, statuses=statuses, watchdog=watchdog, stops=stops)


def poller_loop(stops: Stops, telemetry: Telemetry, platform: Platform, flow: Flow) -> AgentThread:
    """Declare the thread that receives commands."""
    loop = flow.polling
    poller = Poller(
        platform=platform.client,
        platform_status=platform.status,
        inbound=flow.inbound,
        journal=flow.journal,
        keep_malformed=telemetry.malformed.keep,
        disk_full=flow.storage.disk_full,
        stopping=stops.intake.is_set,
        loop=loop,
    )

    def abort_receive() -> None:
        """Abort an open receive only: what is being admitted is still admitted and acknowledged."""
        if poller.receiving and not poller.busy:
            platform.client.abort_call("poller")

    return AgentThread.looping("poller", poller.step, ShutdownPhase.INTAKE, stops, loop.status, abort_receive, poller.give_back)


def sender_loop(stops: Stops, telemetry: Telemetry, platform: Platform, flow: Flow) -> AgentThread:
    """Declare the thread that sends answers."""
    loop = telemetry.loop_context()
    sender = Sender(
        platform=platform.client,
        journal=flow.journal,
        outbox=flow.outbox,
        platform_status=platform.status,
        metrics=telemetry.metrics,
        loop=loop,
    )
    return AgentThread.looping("sender", sender.step, ShutdownPhase.ANSWERS, stops, loop.status)


def config_refresh_loop(
    settings: Settings, stops: Stops, ending: Ending, telemetry: Telemetry, platform: Platform, state_directory: Path
) -> AgentThread:
    """Declare the thread that registers the agent and refreshes configuration and credentials."""
    loop = telemetry.loop_context()
    registration = Registration(
        platform=platform.client,
        platform_status=platform.status,
        refresh_seconds=settings.config_refresh_seconds,
        look_seconds=settings.heartbeat_seconds,
        metrics_seconds=settings.metrics_seconds,
        metrics=partial(system_metrics, telemetry.clock, psutil.Process(), state_directory, host_name(settings)),
        give_up=ending.give,
        loop=loop,
    )
    return AgentThread.looping("config-refresh", registration.step, ShutdownPhase.HOUSEKEEPING, stops, loop.status)


def heartbeat_loop(settings: Settings, stops: Stops, telemetry: Telemetry, platform: Platform, watchdog: Watchdog) -> AgentThread:
    """Declare the thread that sends heartbeats."""
    loop = telemetry.loop_context()
    heartbeat = Heartbeat(
        platform=platform.client,
        platform_status=platform.status,
        watchdog=watchdog,
        interval_seconds=settings.heartbeat_seconds,
        loop=loop,
    )
    return AgentThread.looping("heartbeat", heartbeat.step, ShutdownPhase.HOUSEKEEPING, stops, loop.status)


def maintenance_loop(stops: Stops, telemetry: Telemetry, flow: Flow, poller: AgentThread) -> AgentThread:
    """Declare the thread that maintains the journal and watches the disk."""
    loop = telemetry.loop_context()

    maintenance = Maintenance(
        journal=flow.journal,
        retention=flow.journal.retention,
        disk=flow.storage.disk,
        interrupt=poller.interrupt,
        summarise=flow.summary.log_if_due,
        release_memory=release_free_memory,
        loop=loop,
    )
    return AgentThread.looping("upkeep", maintenance.step, ShutdownPhase.HOUSEKEEPING, stops, loop.status)


def environment_loop(stops: Stops, telemetry: Telemetry, monitors: Monitors) -> AgentThread:
    """Declare the thread that reads the settings' files again and watches clock and certificates."""
    status = telemetry.loop_context().status
    return AgentThread.looping("environment", partial(monitors.step, status), ShutdownPhase.HOUSEKEEPING, stops, status)


def downloader_threads(flow: Flow) -> list[AgentThread]:
    """Declare the threads that download commands' bodies."""
    downloader = flow.downloader
    return [
        AgentThread(
            one_shot(f"fetcher-{place}", downloader.run),
            ShutdownPhase.FETCH,
            lambda: "waiting for bodies to download, or downloading them",
            end=downloader.close,
        )
        for place in range(DOWNLOADERS)
    ]


def worker_threads(flow: Flow, workers: Sequence[Worker]) -> list[AgentThread]:
    """Declare the threads that run commands. The watchdog checks them by their requests' time limits."""

    def activity(worker: Worker) -> str:
        return "running a command" if worker.busy else "waiting for a command"

    return [
        AgentThread(
            one_shot(worker.name, worker.run),
            ShutdownPhase.WORK,
            partial(activity, worker),
            end=flow.tasks.close,
            interrupt=worker.interrupt,
        )
        for worker in workers
    ]


def worker(name: str, settings: Settings, telemetry: Telemetry, network: Network, flow: Flow) -> Worker:
    """Build a worker with a transport of its own, so that no two threads use one connection."""
    executor = Executor(
        Transport(network.to_targets, network.connection_pool),
        network.policy.rules,
        network.proxies,
        Limits(settings.max_response_bytes, settings.connect_timeout_seconds),
        flow.spool.directory,
        network.target_failures,
        network.concurrency,
    )
    return Worker(
        name=name,
        tasks=flow.tasks,
        processor=flow.processor,
        outcomes=flow.outcomes,
        executor=executor,
        outbox=flow.outbox,
        log=telemetry.log,
        monotonic=telemetry.clock.monotonic,
    )


def uploader_threads(stops: Stops, telemetry: Telemetry, platform: Platform, flow: Flow) -> list[AgentThread]:
    """Declare the threads that upload large answers."""

    def uploader() -> Uploader:
        return Uploader(
            platform=platform.client,
            outcomes=flow.outcomes,
            spool=flow.spool,
            outbox=flow.outbox,
            failures=flow.upload_failures,
            clock=telemetry.clock,
            stop=stops.answers,
        )

    return [
        AgentThread(
            one_shot(f"uploader-{place}", uploader().run),
            ShutdownPhase.ANSWERS,
            lambda: "waiting for large answers, or uploading them",
            end=lambda: flow.outbox.uploads.put(None),
        )
        for place in range(UPLOADERS)
    ]


def log_shipper_loop(stops: Stops, platform: Platform) -> AgentThread:
    """Declare the thread that ships log lines; the agent continues if it ends."""
    loop = Loop("log-shipper", platform.log_shipper.step, stops.of(ShutdownPhase.LOGS))
    return AgentThread(loop, ShutdownPhase.LOGS, lambda: "delivering log lines to CloudWatch", core=False)


def syslog_threads(stops: Stops, shipper: SyslogShipper | None) -> list[AgentThread]:
    """Declare the thread that delivers log lines by syslog, if there is a receiver; the agent continues if it ends."""
    if shipper is None:
        return []
    loop = Loop("syslog-shipper", shipper.step, stops.of(ShutdownPhase.LOGS))
    return [
        AgentThread(
            loop,
            ShutdownPhase.LOGS,
            lambda: "delivering log lines by syslog",
            core=False,
            interrupt=shipper.abort,
            after=lambda: shipper.flush(LAST_LINES_SECONDS),
        )
    ]
