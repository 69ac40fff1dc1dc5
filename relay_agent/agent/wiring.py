"""Functions that build the agent's parts and connect them, and the frozen dataclasses that hold them.

Each thread has a function here that declares it (`AgentThread`): its name, its step, when a stop ends it, how it is watched and what the
status page says of it. This module starts no thread and sends nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

import psutil

from relay_agent import __version__
from relay_agent.agent.heartbeat import Heartbeat
from relay_agent.agent.log_shipper import LogShipper, stream_name
from relay_agent.agent.maintenance import Maintenance
from relay_agent.agent.registration import Registration
from relay_agent.agent.secret_rotation import CurrentKeys, CurrentToken
from relay_agent.agent.threads import AgentThread, Ending, Phase, Stops, Threads
from relay_agent.config.network import proxy_router, tls_contexts
from relay_agent.config.secrets import token_expiry
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Clock
from relay_agent.core.loop import Loop, once
from relay_agent.core.models import ACTION_SECURE, ACTIONS_PLAIN
from relay_agent.diagnostics.environment_monitor import EnvironmentMonitor
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.target_failures import TargetFailures
from relay_agent.diagnostics.transfer_failures import DownloadFailures, UploadFailures
from relay_agent.diagnostics.watchdog import Watchdog
from relay_agent.relay.admission_gate import AdmissionGate
from relay_agent.relay.downloader import Downloader
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.intake import Intake
from relay_agent.relay.outbox import Outbox
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.poller import Poller
from relay_agent.relay.processing import Processor
from relay_agent.relay.sender import Sender
from relay_agent.relay.target.executor import Executor, Limits
from relay_agent.relay.task import Task
from relay_agent.relay.updates import UpdateBuilder
from relay_agent.relay.uploader import Uploader
from relay_agent.relay.worker import Worker
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.journal import Journal
from relay_agent.storage.journal_reader import Reader
from relay_agent.storage.spool import Spool
from relay_agent.storage.state_directory import StateDirectory
from relay_agent.tdp.client import PlatformClient
from relay_agent.tdp.platform_http import PlatformHttp
from relay_agent.telemetry.command_report import report_command
from relay_agent.telemetry.hourly_summary import Summary, Tally
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.metrics import Metrics, system_metrics
from relay_agent.telemetry.recent_lines import RecentLines
from relay_agent.telemetry.redaction import Redactor, proxy_secrets
from relay_agent.telemetry.repeated_failure import RepeatedFailure
from relay_agent.transport.connection_pool import ConnectionPool
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport

DOWNLOADERS = 2
UPLOADERS = 2


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Log, metrics and clock."""

    clock: Clock
    redactor: Redactor
    buffer: LogBuffer
    """Log lines waiting for CloudWatch."""
    recent_lines: RecentLines
    logs: Logs
    metrics: Metrics
    tally: Tally

    @property
    def log(self) -> Logger:
        """Return the agent's logger."""
        return self.logs.logger

    def loop_context(self) -> LoopContext:
        """Return a context with a new status, for one loop."""
        return LoopContext(LoopStatus(self.clock), self.tally, self.log, self.clock)


def build_telemetry(settings: Settings, clock: Clock, stream: TextIO) -> Telemetry:
    """Build log and metrics. From here on the redactor knows the secrets of the proxies in the settings."""
    redactor, buffer = Redactor(), LogBuffer()
    for proxy in (settings.http_proxy, settings.https_proxy, settings.all_proxy, settings.platform_proxy, settings.target_proxy):
        redactor.add(*proxy_secrets(proxy))
    recent_lines = RecentLines(buffer)
    return Telemetry(
        clock=clock,
        redactor=redactor,
        buffer=buffer,
        recent_lines=recent_lines,
        logs=Logs(settings.log_level, redactor, recent_lines, stream, clock),
        metrics=Metrics(__version__, [*ACTIONS_PLAIN, ACTION_SECURE], clock.monotonic),
        tally=Tally(),
    )


@dataclass(frozen=True, slots=True)
class Secrets:
    """The token and the keys in use."""

    token: CurrentToken
    keys: CurrentKeys

    def token_ends(self) -> datetime | None:
        """Return when the token expires; returns None if it does not say."""
        with contextlib.suppress(OSError, ValueError):
            return token_expiry(self.token.get())
        return None


def build_secrets(settings: Settings, telemetry: Telemetry) -> Secrets:
    """Read the token and the keys. From here on the redactor knows them."""
    rotate = telemetry.redactor.rotate
    secrets = Secrets(
        token=CurrentToken(settings.token, partial(rotate, "jwt"), telemetry.log),
        keys=CurrentKeys(settings.secure_key, partial(rotate, "keys"), telemetry.log),
    )
    # Read now, not at the first use: if a file is missing or half written by then, the values read here stay in use.
    secrets.token.get()
    secrets.keys.get()
    return secrets


@dataclass(frozen=True, slots=True)
class Network:
    """How connections are opened, to the platform and to targets."""

    proxies: ProxyRouter
    to_platform: Dialer
    to_targets: Dialer
    connection_pool: ConnectionPool
    """Connections to targets kept open for reuse."""
    target_failures: TargetFailures


def build_network(settings: Settings, telemetry: Telemetry) -> Network:
    """Build proxies, TLS contexts and dialers."""
    contexts = tls_contexts(settings)
    return Network(
        proxies=proxy_router(settings),
        to_platform=Dialer(contexts, Resolver()),
        # A resolver of its own: slow look-ups of targets must not use up the look-ups of the platform.
        to_targets=Dialer(contexts, Resolver()),
        connection_pool=ConnectionPool(),
        target_failures=TargetFailures(telemetry.log, telemetry.clock),
    )


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform's client, and the agent's status there."""

    client: PlatformClient
    status: PlatformStatus
    log_shipper: LogShipper
    download_failures: DownloadFailures


def build_platform(settings: Settings, telemetry: Telemetry, secrets: Secrets, network: Network) -> Platform:
    """Build the platform's client and the log shipper that uses it."""
    status = PlatformStatus()
    download_failures = DownloadFailures(telemetry.log, telemetry.clock.monotonic)

    def register_credentials(*secrets: str) -> None:
        """Count and redact a new set of AWS credentials, before it is used and whichever thread fetched it."""
        telemetry.tally.count("credential_refreshes")
        telemetry.redactor.rotate("aws", *secrets)

    client = PlatformClient(
        PlatformHttp(lambda: Transport(network.to_platform), network.proxies, Policy(admin=settings.admin_endpoint)),
        api_target=settings.api_target,
        org_slug=settings.org_slug,
        agent_id=settings.agent_id,
        token=secrets.token.get,
        endpoint_url=settings.aws_endpoint_url,
        max_body_bytes=settings.max_request_bytes,
        clock=telemetry.clock,
        seen_secrets=register_credentials,
        count=telemetry.metrics.platform_request,
        judged=status.judge,
        downloaded=download_failures.note,
    )
    log_shipper = LogShipper(
        telemetry.buffer,
        lambda: cast("Any", client.logs()),
        client.log_group,
        stream_name(settings.agent_id, telemetry.clock.now()),
        telemetry.log,
        telemetry.logs.local,
        telemetry.clock,
        upload=client.rest.log,
        why=client.why_not_logged,
    )
    return Platform(client, status, log_shipper, download_failures)


@dataclass(frozen=True, slots=True)
class Storage:
    """The state directory and its disk."""

    directory: StateDirectory
    disk: Disk
    disk_full: RepeatedFailure
    reader: Reader
    """Reads the journal while another connection writes it."""


def build_storage(directory: StateDirectory, telemetry: Telemetry) -> Storage:
    """Build what watches the state directory's disk and reads the journal for the pages."""
    log = telemetry.log.bind(directory=str(directory.path))
    return Storage(
        directory=directory,
        disk=Disk(directory.path),
        disk_full=RepeatedFailure(log, "disk-full", "disk-freed", telemetry.clock.monotonic, remind_seconds=300.0),
        reader=Reader(directory.journal, in_use=True),
    )


@dataclass(frozen=True, slots=True)
class Flow:
    """What a command passes through: the rules, and the queues between threads."""

    storage: Storage
    journal: Journal
    spool: Spool
    tasks: FairQueue[Task]
    outbox: Outbox
    intake: Intake
    processor: Processor
    outcomes: Outcomes
    downloader: Downloader
    gate: AdmissionGate
    upload_failures: UploadFailures
    summary: Summary


def build_flow(
    settings: Settings,
    stops: Stops,
    telemetry: Telemetry,
    secrets: Secrets,
    platform: Platform,
    storage: Storage,
    tasks: FairQueue[Task],
    journal: Journal,
) -> Flow:
    """Build what a command passes through, around the queue and the open journal."""
    clock = telemetry.clock
    spool = Spool(storage.directory.spool)
    outbox = Outbox(clock, lambda: tasks.running() + tasks.waiting())
    outcomes = Outcomes(
        journal=journal,
        updates=UpdateBuilder(spool, secrets.keys.get, clock),
        monotonic=clock.monotonic,
        report=partial(report_command, telemetry.log, telemetry.metrics, telemetry.tally),
    )
    reader = PayloadReader(
        agent_id=settings.agent_id,
        journal=journal,
        spool=spool,
        payloads=platform.client.payloads,
        keyring=secrets.keys.get,
        clock=clock,
    )
    downloader = Downloader(reader=reader, enqueue=lambda task: tasks.put((task.lane, task)), stop=stops.intake, log=telemetry.log)
    return Flow(
        storage=storage,
        journal=journal,
        spool=spool,
        tasks=tasks,
        outbox=outbox,
        intake=Intake(agent_id=settings.agent_id, journal=journal, reader=reader, outcomes=outcomes, monotonic=clock.monotonic),
        processor=Processor(
            journal=journal,
            spool=spool,
            reader=reader,
            outcomes=outcomes,
            keyring=secrets.keys.get,
            clock=clock,
            default_seconds=settings.request_timeout_seconds,
        ),
        outcomes=outcomes,
        downloader=downloader,
        gate=AdmissionGate(tasks=tasks, downloader=downloader, outbox=outbox, journal=journal, disk=storage.disk),
        upload_failures=UploadFailures(telemetry.log, clock.monotonic),
        summary=Summary(
            telemetry.tally,
            telemetry.log,
            clock.monotonic,
            dropped=lambda: telemetry.buffer.dropped_total,
            queued=tasks.waiting,
            running=tasks.running,
            journal=journal.counts,
        ),
    )


def build_environment_monitor(settings: Settings, telemetry: Telemetry, secrets: Secrets, platform: Platform) -> EnvironmentMonitor:
    """Build the monitor of the secrets' files, this machine's clock and the reader of stdout."""
    return EnvironmentMonitor(
        secrets={"JWT_FILE": settings.token, "SECURE_COMMAND_KEY_FILE": settings.secure_key},
        read=lambda: (secrets.token.get(), secrets.keys.get()),
        clock_off=lambda: platform.client.rest.clock_off,
        stdout=telemetry.logs.output,
        log=telemetry.log,
        monotonic=telemetry.clock.monotonic,
    )


# --- threads ---


def build_threads(
    settings: Settings,
    stops: Stops,
    ending: Ending,
    telemetry: Telemetry,
    network: Network,
    platform: Platform,
    flow: Flow,
    environment: EnvironmentMonitor,
) -> Threads:
    """Declare all threads. A new thread needs a function below and an entry in this list, nothing else."""
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
        maintenance_loop(stops, telemetry, flow, environment, poller),
        *downloader_threads(flow),
        *worker_threads(flow, workers),
        *uploader_threads(stops, telemetry, platform, flow),
        log_shipper_loop(stops, platform),
    )
    # Filled last: the heartbeat needs the watchdog, and the watchdog watches the heartbeat.
    statuses.update({thread.name: thread.status for thread in threads if thread.status is not None})
    return Threads(all=threads, statuses=statuses, watchdog=watchdog, stops=stops)


def poller_loop(stops: Stops, telemetry: Telemetry, platform: Platform, flow: Flow) -> AgentThread:
    """Declare the thread that receives commands."""
    loop = telemetry.loop_context()
    poller = Poller(
        platform=platform.client,
        platform_status=platform.status,
        intake=flow.intake,
        gate=flow.gate,
        journal=flow.journal,
        outbox=flow.outbox,
        disk_full=flow.storage.disk_full,
        stopping=stops.intake.is_set,
        loop=loop,
    )

    def break_off() -> None:
        """Abort an open receive only: commands that were received are still admitted and acknowledged."""
        if poller.receiving:
            platform.client.break_off("poller")

    return AgentThread.looping("poller", poller.step, Phase.INTAKE, stops, loop.status, break_off)


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
    return AgentThread.looping("sender", sender.step, Phase.ANSWERS, stops, loop.status)


def config_refresh_loop(
    settings: Settings, stops: Stops, ending: Ending, telemetry: Telemetry, platform: Platform, state_directory: Path
) -> AgentThread:
    """Declare the thread that registers the agent and refreshes configuration and credentials."""
    loop = telemetry.loop_context()
    registration = Registration(
        platform=platform.client,
        platform_status=platform.status,
        refresh_seconds=settings.config_refresh_seconds,
        metrics_seconds=settings.metrics_seconds,
        metrics=partial(system_metrics, telemetry.clock, psutil.Process(), state_directory),
        give_up=ending.give,
        loop=loop,
    )
    return AgentThread.looping("config-refresh", registration.step, Phase.HOUSEKEEPING, stops, loop.status)


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
    return AgentThread.looping("heartbeat", heartbeat.step, Phase.HOUSEKEEPING, stops, loop.status)


def maintenance_loop(stops: Stops, telemetry: Telemetry, flow: Flow, environment: EnvironmentMonitor, poller: AgentThread) -> AgentThread:
    """Declare the thread that maintains the journal and watches the disk."""
    loop = telemetry.loop_context()
    maintenance = Maintenance(
        journal=flow.journal,
        retention=flow.journal.retention,
        disk=flow.storage.disk,
        interrupt=poller.break_off,
        summarise=flow.summary.log_if_due,
        check_environment=environment.look,
        loop=loop,
    )
    return AgentThread.looping("upkeep", maintenance.step, Phase.HOUSEKEEPING, stops, loop.status)


def downloader_threads(flow: Flow) -> list[AgentThread]:
    """Declare the threads that download commands' bodies."""
    downloader = flow.downloader
    return [
        AgentThread(
            once(f"fetcher-{place}", downloader.run), Phase.FETCH, lambda: "downloading commands' bodies from S3", end=downloader.close
        )
        for place in range(DOWNLOADERS)
    ]


def worker_threads(flow: Flow, workers: Sequence[Worker]) -> list[AgentThread]:
    """Declare the threads that run commands. The watchdog checks them by their requests' time limits."""

    def activity(worker: Worker) -> str:
        return "running a command" if worker.busy else "waiting for a command"

    return [
        AgentThread(once(worker.name, worker.run), Phase.WORK, partial(activity, worker), end=flow.tasks.close, break_off=worker.interrupt)
        for worker in workers
    ]


def worker(name: str, settings: Settings, telemetry: Telemetry, network: Network, flow: Flow) -> Worker:
    """Build a worker with a transport of its own, so that no two threads use one connection."""
    executor = Executor(
        Transport(network.to_targets, network.connection_pool),
        Policy(admin=settings.admin_endpoint),
        network.proxies,
        Limits(settings.max_response_bytes, settings.connect_timeout_seconds),
        flow.spool.directory,
        network.target_failures,
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
            once(f"uploader-{place}", uploader().run),
            Phase.ANSWERS,
            lambda: "uploading large answers to S3",
            end=lambda: flow.outbox.uploads.put(None),
        )
        for place in range(UPLOADERS)
    ]


def log_shipper_loop(stops: Stops, platform: Platform) -> AgentThread:
    """Declare the thread that ships log lines; the agent goes on without it."""
    loop = Loop("log-shipper", platform.log_shipper.step, stops.of(Phase.LOGS))
    return AgentThread(loop, Phase.LOGS, lambda: "delivering log lines to CloudWatch", core=False)
