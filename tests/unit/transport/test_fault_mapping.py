"""How errors of the system and of libraries are mapped to codes (PROTOCOL §4). TLS faults are in tests/contract/test_tls_catalogue.py."""

from __future__ import annotations

import errno
import http.client
import os
import ssl

import pytest

from relay_agent.core.failures import Code, Phase
from relay_agent.transport.errors import TransportFault
from relay_agent.transport.fault_mapping import explain, os_fault
from relay_agent.transport.response_parser import BadHead
from tests.unit.transport.fake_socket import exchange


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ECONNREFUSED, Code.ECONNREFUSED),
        (errno.ECONNABORTED, Code.ECONNRESET),
        (errno.EPIPE, Code.EPIPE),
        (errno.EPERM, Code.EHOSTUNREACH),
        (errno.EADDRNOTAVAIL, Code.ENETUNREACH),
        (errno.ETIMEDOUT, Code.ETIMEDOUT),
    ],
)
def test_a_system_error_has_the_code_of_its_number(number: int, code: Code) -> None:
    fault = os_fault(OSError(number, os.strerror(number)), "connect 10.1.2.3:443")
    assert (fault.code, str(fault), fault.facts.errno) == (code, f"connect {code} 10.1.2.3:443", number)


def test_a_number_without_a_code_of_its_own_is_named_in_the_text() -> None:
    fault = os_fault(OSError(errno.ENOBUFS, "text"), "connect 10.1.2.3:443")
    assert (fault.code, str(fault)) == (Code.ENETUNREACH, "connect 10.1.2.3:443: ENOBUFS")


@pytest.mark.parametrize(
    ("error", "phase", "code"),
    [
        (TimeoutError(), Phase.FIRST_BYTE, Code.ETIMEDOUT),
        (BadHead("too long"), Phase.HEAD, Code.EBADRESPONSE),
        (http.client.IncompleteRead(b""), Phase.BODY, Code.EBADRESPONSE),
        (ssl.SSLEOFError(8, "EOF"), Phase.BODY, Code.EBADRESPONSE),
        (http.client.RemoteDisconnected("closed"), Phase.FIRST_BYTE, Code.ECONNRESET),
        (BrokenPipeError(), Phase.SENDING, Code.EPIPE),
        (http.client.HTTPException("framing"), Phase.BODY, Code.EBADRESPONSE),
    ],
)
def test_an_error_of_an_exchange_has_a_code_and_the_phase_in_which_it_came(error: Exception, phase: Phase, code: Code) -> None:
    fault = explain(error, exchange(), phase)
    assert (fault.code, fault.facts.phase) == (code, phase)


def test_a_fault_stays_what_it_is() -> None:
    fault = TransportFault(Code.EPOLICY, "refused by the agent's policy")
    assert explain(fault, exchange(), Phase.BODY).code is Code.EPOLICY
