"""The check of the syslog receiver. It connects and sends nothing, so that no line appears there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime

from relay_agent.cli.checks.result import Check, ok, warning, warnings
from relay_agent.config.network import syslog_tls
from relay_agent.config.settings import Settings
from relay_agent.core.models import CertificateRole
from relay_agent.diagnostics.certificates import ending
from relay_agent.diagnostics.network_causes import syslog_cause
from relay_agent.diagnostics.peer_certificates import PeerCertificates
from relay_agent.transport.dialer import Dialer
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.resolver import Resolver
from relay_agent.transport.syslog_connection import SyslogConnection

SETTLE_SECONDS = 0.3
"""How long a new connection is watched: a receiver that wants a client certificate ends it only after the handshake (TLS 1.3)."""


def syslog(settings: Settings, now: Callable[[], datetime], seconds: float) -> Check:
    """Check that the receiver can be reached; a failure is a warning, since the agent works without it."""
    receiver = settings.syslog_receiver
    assert receiver is not None, "this step exists only if it is set"
    resolver, peers = Resolver(), PeerCertificates(time.monotonic)
    connection = SyslogConnection(receiver, Dialer(syslog_tls(settings), resolver, peers.leg(CertificateRole.SYSLOG)), resolver)
    with closing(connection):
        try:
            connection.open(seconds)
            connection.look(SETTLE_SECONDS)
        except TransportFault as fault:
            return warning(syslog_cause(fault.facts), f"{receiver}: {fault}", "syslog")
    found = [(problem.cause, problem.reason) for problem in ending(peers.in_use(), now())]
    if found:
        return warnings("syslog", found, f"{receiver} accepts connections; ")
    if receiver.transport == "udp":
        return ok("syslog", f"{receiver} has an address; with UDP nothing confirms that log lines arrive")
    return ok("syslog", f"{receiver} accepts connections")
