"""What is known of a failure: what each phase of an exchange means for the proxy, the host and the request."""

from __future__ import annotations

import pytest

from relay_agent.core.failures import CERTIFICATE_CODES, Cause, Code, FaultFacts, Phase

ORDER = [
    Phase.PROXY_NAME,
    Phase.PROXY_CONNECT,
    Phase.PROXY_TLS,
    Phase.TUNNEL,
    Phase.NAME,
    Phase.CONNECT,
    Phase.TLS,
    Phase.SENDING,
    Phase.FIRST_BYTE,
    Phase.HEAD,
    Phase.BODY,
]


def test_the_phases_of_the_proxy_are_those_before_the_host_is_reached() -> None:
    assert [phase for phase in ORDER if phase.of_proxy] == ORDER[:4]


def test_bytes_of_the_request_may_have_been_sent_from_sending_on() -> None:
    assert [phase for phase in ORDER if phase.sent] == ORDER[7:]


def test_the_host_has_accepted_the_connection_from_the_tls_handshake_on() -> None:
    assert [phase for phase in ORDER if phase.connected] == ORDER[6:]


def test_every_phase_is_judged() -> None:
    assert set(ORDER) == set(Phase)


@pytest.mark.parametrize(
    ("code", "phase", "late"),
    [
        (Code.ETIMEDOUT, Phase.TLS, True),
        (Code.ETIMEDOUT, Phase.BODY, True),
        (Code.ETIMEDOUT, Phase.CONNECT, False),
        (Code.ETIMEDOUT, Phase.TUNNEL, False),
        (Code.ETIMEDOUT, None, False),
        (Code.ECONNRESET, Phase.BODY, False),
    ],
)
def test_a_fault_is_late_if_its_time_passed_after_the_host_had_accepted(code: Code, phase: Phase | None, late: bool) -> None:
    assert FaultFacts(code, phase=phase).late == late


def test_the_names_in_braces_are_filled_in_cause_and_cure_and_the_id_stays() -> None:
    cause = Cause("a-{x}", "the {x} is {state}", "look at {x}")
    assert cause.about(x="disk", state="full") == Cause("a-{x}", "the disk is full", "look at disk")


def test_a_code_is_written_as_it_is_named() -> None:
    """Senders compare it as a text (PROTOCOL §4)."""
    assert [code for code in Code if code != code.name] == []
    assert set(CERTIFICATE_CODES) < set(Code)
