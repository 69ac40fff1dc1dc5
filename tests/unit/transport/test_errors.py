"""The faults of an exchange: how their messages are made of fields, and which of them a fault keeps."""

from __future__ import annotations

import pytest

from relay_agent.core.failures import CERTIFICATE_CODES, Code, Phase, RefusedCertificate, TlsTrouble
from relay_agent.transport.errors import DiskFault, ProxyFault, TransportFault

CERTIFICATE = RefusedCertificate("CN=lab CA", "a.example, b.example", "2026-01-01", "2026-02-01", "the system's")


def test_a_fault_s_message_is_its_text_and_the_proxy_at_fault_comes_first() -> None:
    fault = TransportFault(Code.ECONNREFUSED, "connect ECONNREFUSED")
    assert (fault.message, str(fault), fault.facts.proxy) == ("connect ECONNREFUSED", "connect ECONNREFUSED", None)
    assert fault.at("http://gate:1") is fault
    assert fault.message == "proxy http://gate:1: connect ECONNREFUSED"
    assert fault.at(None).message == "connect ECONNREFUSED"


def test_a_proxy_s_refusal_says_what_the_proxy_did() -> None:
    fault = ProxyFault(Code.EBADRESPONSE, "http://gate:1", "answered 403 to CONNECT", status=403, forwarded=True, behind=True)
    assert fault.message == "the proxy http://gate:1 answered 403 to CONNECT"
    facts = fault.facts
    assert (facts.code, facts.proxy, facts.status, facts.forwarded, facts.behind) == (Code.EBADRESPONSE, "http://gate:1", 403, True, True)


def test_the_first_phase_that_is_set_stays() -> None:
    fault = TransportFault(Code.ETIMEDOUT, "x").during(Phase.TLS)
    assert fault.during(Phase.BODY) is fault
    assert fault.facts.phase is Phase.TLS


def test_what_is_set_later_leaves_the_other_facts() -> None:
    fault = TransportFault(Code.EPROTO, "x", TlsTrouble.OLD_VERSION, rule="r", errno=5)
    fault.at("p").during(Phase.TLS).show(CERTIFICATE)
    facts = fault.facts
    assert (facts.code, facts.trouble, facts.rule, facts.errno) == (Code.EPROTO, TlsTrouble.OLD_VERSION, "r", 5)
    assert (facts.proxy, facts.phase, facts.certificate) == ("p", Phase.TLS, CERTIFICATE)


@pytest.mark.parametrize(
    ("code", "trouble", "detail"),
    [
        (Code.CERT_HAS_EXPIRED, None, " (on 2026-02-01)"),
        (Code.DEPTH_ZERO_SELF_SIGNED_CERT, None, " (CN=lab CA)"),
        (Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, None, " (CN=lab CA)"),
        (Code.ERR_TLS_CERT_ALTNAME_INVALID, None, ", which is for a.example, b.example"),
        (Code.EPROTO, TlsTrouble.NOT_YET_VALID, " (it begins on 2026-01-01)"),
        (Code.EPROTO, TlsTrouble.WEAK_CERTIFICATE, ""),
        (Code.ECONNRESET, None, ""),
    ],
)
def test_a_refused_certificate_s_relevant_detail_ends_the_message(code: Code, trouble: TlsTrouble | None, detail: str) -> None:
    fault = TransportFault(code, "refused", trouble)
    assert fault.message == "refused"
    fault.show(CERTIFICATE)
    assert fault.message == f"refused{detail}"


def test_a_certificate_s_detail_is_bounded() -> None:
    fault = TransportFault(Code.DEPTH_ZERO_SELF_SIGNED_CERT, "")
    fault.show(RefusedCertificate("x" * 1000, "", "", "", ""))
    assert len(fault.message) == 300


@pytest.mark.parametrize("trouble", TlsTrouble)
def test_these_troubles_are_the_certificate_s_and_the_others_are_not(trouble: TlsTrouble) -> None:
    certificate = {TlsTrouble.NOT_YET_VALID, TlsTrouble.WEAK_CERTIFICATE, TlsTrouble.BAD_CERTIFICATE}
    assert TransportFault(Code.EPROTO, "x", trouble).at_certificate == (trouble in certificate)


@pytest.mark.parametrize("code", Code)
def test_these_codes_are_the_certificate_s_and_the_others_are_not(code: Code) -> None:
    assert TransportFault(code, "x").at_certificate == (code in CERTIFICATE_CODES)


def test_only_a_fault_of_this_machine_s_disk_is_ours() -> None:
    assert (DiskFault(Code.EPROTO, "x").ours, TransportFault(Code.EPROTO, "x").ours) == (True, False)
