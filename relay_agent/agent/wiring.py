"""Functions that build the agent's parts and connect them, and the frozen dataclasses that hold them.

The threads around them are declared in `thread_wiring`. This module starts no thread and sends nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TextIO, cast

from relay_agent import __version__
from relay_agent.agent.current_policy import CurrentPolicy
from relay_agent.agent.log_shipper import LogShipper, LogStream, stream_name
from relay_agent.agent.secret_rotation import CurrentKeys, CurrentToken
from relay_agent.agent.syslog_shipper import SyslogShipper
from relay_agent.agent.threads import Stops
from relay_agent.config.network import load_rules, proxy_router, read_roots, syslog_tls, tls_contexts
from relay_agent.config.secrets import token_expiry
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Clock
from relay_agent.core.models import ACTION_SECURE, ACTIONS_PLAIN, CertificateRole
from relay_agent.diagnostics.loop_context import LoopContext
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.peer_certificates import PeerCertificates
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.target_failures import TargetFailures
from relay_agent.diagnostics.transfer_failures import DownloadFailures, UploadFailures
from relay_agent.relay.admission_gate import AdmissionGate
from relay_agent.relay.downloader import Downloader
from relay_agent.relay.fair_queue import FairQueue
from relay_agent.relay.intake import Intake
from relay_agent.relay.outbox import Outbox
from relay_agent.relay.outcomes import Outcomes
from relay_agent.relay.ownership import Ownership, Work
from relay_agent.relay.payload_reader import PayloadReader
from relay_agent.relay.poller import Inbound
from relay_agent.relay.processing import Processor
from relay_agent.relay.target.concurrency import ConcurrencyLimit
from relay_agent.relay.task import Refusal, Task
from relay_agent.relay.updates import UpdateBuilder
from relay_agent.storage.boot_clock import settled
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.earlier_lease import earlier_lease
from relay_agent.storage.journal import Journal
from relay_agent.storage.journal_reader import Reader
from relay_agent.storage.spool import Spool
from relay_agent.storage.state_directory import StateDirectory
from relay_agent.tdp.client import Listeners, PlatformClient
from relay_agent.tdp.platform_http import PlatformHttp
from relay_agent.tdp.rest import AgentIdentity
from relay_agent.tdp.sqs import Lease
from relay_agent.telemetry.command_report import report_command
from relay_agent.telemetry.hourly_summary import Summary, Tally
from relay_agent.telemetry.log_buffer import LogBuffer
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.malformed_messages import MalformedMessages
from relay_agent.telemetry.metrics import Metrics
from relay_agent.telemetry.recent_lines import RecentLines
from relay_agent.telemetry.redaction import Redactor, proxy_secrets
from relay_agent.telemetry.repeated_failure import RepeatedFailure
from relay_agent.telemetry.syslog_lines import SyslogLines
from relay_agent.transport.connection_pool import ConnectionPool
from relay_agent.transport.dialer import Dialer, PeerObserver
from relay_agent.transport.policy import Policy
from relay_agent.transport.proxy_routing import ProxyRouter
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.session import Transport
from relay_agent.transport.syslog_connection import SyslogConnection


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Log, metrics and clock."""

    clock: Clock
    redactor: Redactor
    buffer: LogBuffer
    """Log lines waiting for CloudWatch."""
    recent_lines: RecentLines
    malformed: MalformedMessages
    """The last malformed messages, for the support bundle."""
    logs: Logs
    metrics: Metrics
    tally: Tally
    syslog: SyslogLines | None = None
    """Log lines waiting for the syslog receiver, None if there is none."""

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
    for proxy in settings.proxy_urls:
        redactor.add(*proxy_secrets(proxy))
    recent_lines = RecentLines(buffer)
    syslog = build_syslog_lines(settings)
    return Telemetry(
        clock=clock,
        redactor=redactor,
        buffer=buffer,
        recent_lines=recent_lines,
        malformed=MalformedMessages(redactor.text, clock.now),
        logs=Logs(settings.log_level, redactor, recent_lines, stream, clock, receiver=syslog),
        metrics=Metrics(__version__, [*ACTIONS_PLAIN, ACTION_SECURE], clock.monotonic),
        tally=Tally(),
        syslog=syslog,
    )


def build_syslog_lines(settings: Settings) -> SyslogLines | None:
    """Build the buffer of log lines for the syslog receiver; returns None if there is none."""
    return SyslogLines(settings.agent_id, socket.gethostname()) if settings.log_syslog else None


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
    policy: CurrentPolicy
    concurrency: ConcurrencyLimit
    peer_certificates: PeerCertificates


def build_network(settings: Settings, telemetry: Telemetry) -> Network:
    """Build proxies, TLS contexts, dialers and the policy.

    Raises:
        ConfigurationError: the policy file has mistakes, or a file of trusted roots cannot be read any more.
    """
    read_roots(settings)
    contexts, peers = tls_contexts(settings), PeerCertificates(telemetry.clock.monotonic)
    return Network(
        proxies=proxy_router(settings),
        to_platform=Dialer(contexts, Resolver(), peers.leg(CertificateRole.PLATFORM)),
        # A resolver of its own: slow look-ups of targets must not use up the look-ups of the platform.
        to_targets=Dialer(contexts, Resolver(), peers.leg(CertificateRole.TARGET)),
        connection_pool=ConnectionPool(),
        target_failures=TargetFailures(telemetry.log, telemetry.clock),
        policy=CurrentPolicy(
            partial(load_rules, settings), partial(telemetry.redactor.rotate, "policy"), telemetry.log, telemetry.clock.monotonic
        ),
        concurrency=ConcurrencyLimit(most_waiting=max(1, settings.workers // 4)),
        peer_certificates=peers,
    )


def build_syslog_shipper(
    settings: Settings, lines: SyslogLines | None, log: Logger, clock: Clock, peers: PeerObserver | None = None
) -> SyslogShipper | None:
    """Build what delivers log lines to the syslog receiver; returns None if there is none."""
    receiver = settings.syslog_receiver
    if receiver is None or lines is None:
        return None
    resolver = Resolver()
    return SyslogShipper(lines.buffer, SyslogConnection(receiver, Dialer(syslog_tls(settings), resolver, peers), resolver), log, clock)


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
        AgentIdentity(settings.api_target, settings.org_slug, settings.agent_id, secrets.token.get),
        Listeners(register_credentials, telemetry.metrics.platform_request, status.judge, download_failures.note),
        clock=telemetry.clock,
        endpoint_url=settings.aws_endpoint_url,
        max_body_bytes=settings.max_request_bytes,
    )
    stream = LogStream(
        lambda: cast("Any", client.logs()),
        client.log_group,
        stream_name(settings.agent_id, telemetry.clock.now(), host_name(settings)),
        client.why_not_logged,
    )
    log_shipper = LogShipper(telemetry.buffer, stream, telemetry.log, telemetry.logs.local, telemetry.clock, client.rest.log)
    return Platform(client, status, log_shipper, download_failures)


def host_name(settings: Settings) -> str | None:
    """Return this machine's name, which distinguishes several agents with one id; returns None for an agent that is alone."""
    return socket.gethostname() if settings.shared_queue else None


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
    inbound: Inbound
    polling: LoopContext
    """What the poller reports with; `inbound.ownership` does too."""
    downloader: Downloader
    tasks: FairQueue[Task]
    processor: Processor
    outcomes: Outcomes
    outbox: Outbox
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
    clock, polling = telemetry.clock, telemetry.loop_context()
    spool = Spool(storage.directory.spool)
    outbox = Outbox(clock, lambda: tasks.running() + tasks.waiting())
    outcomes = build_outcomes(telemetry, secrets, journal, spool)
    reader = build_payload_reader(settings, telemetry, secrets, platform, journal, spool)
    downloader = Downloader(
        reader=reader,
        enqueue=lambda task: tasks.put((task.lane, task)),
        stop=stops.intake,
        log=telemetry.log,
        monotonic=clock.monotonic,
    )
    gate = AdmissionGate(
        shared=settings.shared_queue, tasks=tasks, downloader=downloader, outbox=outbox, journal=journal, disk=storage.disk
    )
    intake = Intake(agent_id=settings.agent_id, journal=journal, reader=reader, outcomes=outcomes, monotonic=clock.monotonic)
    earlier = earlier_lease(storage.directory.path, settings.lease_seconds, unsettled=bool(journal.unacked()))
    lease = Lease(settings.lease_seconds, clock.boottime, earlier)
    release = releasing(gate, outcomes, outbox)
    return Flow(
        storage=storage,
        journal=journal,
        spool=spool,
        inbound=Inbound(intake, gate, lease, build_ownership(settings, telemetry, storage, journal, lease, release, polling)),
        polling=polling,
        downloader=downloader,
        tasks=tasks,
        processor=build_processor(settings, telemetry, secrets, journal, spool, reader, outcomes),
        outcomes=outcomes,
        outbox=outbox,
        upload_failures=UploadFailures(telemetry.log, clock.monotonic),
        summary=build_summary(telemetry, tasks, journal),
    )


def releasing(gate: AdmissionGate, outcomes: Outcomes, outbox: Outbox) -> Callable[[Work], None]:
    """Return what hands a command to the workers, or an answer to the sender; a refusal is recorded first."""

    def release(work: Work) -> None:
        if isinstance(work, Task):
            gate.enqueue(work)
        else:
            outbox.put(outcomes.refuse(work) if isinstance(work, Refusal) else work)

    return release


def build_ownership(
    settings: Settings,
    telemetry: Telemetry,
    storage: Storage,
    journal: Journal,
    lease: Lease,
    release: Callable[[Work], None],
    polling: LoopContext,
) -> Ownership:
    """Build what acknowledges commands, and decides which of several agents runs one; `release` takes what this agent owns."""

    def count_ceded(number: int) -> None:
        telemetry.tally.count("ceded", number)
        telemetry.metrics.commands_ceded(number)

    return Ownership(
        shared=settings.shared_queue,
        lease=lease,
        journal=journal,
        clock=settled(telemetry.clock, storage.directory.path) if settings.shared_queue else telemetry.clock,
        release=release,
        count_ceded=count_ceded,
        loop=polling,
    )


def build_processor(
    settings: Settings,
    telemetry: Telemetry,
    secrets: Secrets,
    journal: Journal,
    spool: Spool,
    reader: PayloadReader,
    outcomes: Outcomes,
) -> Processor:
    """Build what runs one command."""
    return Processor(
        journal=journal,
        spool=spool,
        reader=reader,
        outcomes=outcomes,
        keyring=secrets.keys.get,
        clock=telemetry.clock,
        default_seconds=settings.request_timeout_seconds,
    )


def build_outcomes(telemetry: Telemetry, secrets: Secrets, journal: Journal, spool: Spool) -> Outcomes:
    """Build what records the outcomes of commands and reports them to log and metrics."""
    return Outcomes(
        journal=journal,
        updates=UpdateBuilder(spool, secrets.keys.get, telemetry.clock),
        monotonic=telemetry.clock.monotonic,
        report=partial(report_command, telemetry.log, telemetry.metrics, telemetry.tally),
    )


def build_payload_reader(
    settings: Settings, telemetry: Telemetry, secrets: Secrets, platform: Platform, journal: Journal, spool: Spool
) -> PayloadReader:
    """Build what downloads, decrypts and decodes the payloads of commands."""
    return PayloadReader(
        agent_id=settings.agent_id,
        journal=journal,
        spool=spool,
        payloads=platform.client.payloads,
        keyring=secrets.keys.get,
        clock=telemetry.clock,
    )


def build_summary(telemetry: Telemetry, tasks: FairQueue[Task], journal: Journal) -> Summary:
    """Build the hourly summary."""
    return Summary(
        telemetry.tally,
        telemetry.log,
        telemetry.clock.monotonic,
        dropped=lambda: telemetry.buffer.dropped_total,
        queued=tasks.waiting,
        running=tasks.running,
        journal=journal.counts,
    )
