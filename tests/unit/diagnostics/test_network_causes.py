"""Each fault on each way has its cause and its cure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay_agent.core.failures import Code, FaultFacts, RefusedCertificate
from relay_agent.diagnostics import network_causes
from relay_agent.diagnostics.network_causes import TO_LOGS, TO_PLATFORM, TO_SQS, TO_TARGET, on_the_way

OF_ANOTHER = RefusedCertificate(issuer="CN=Corporate CA", names="other.example", begins="", ends="2026-01-02", roots="/ca.pem")


@pytest.mark.parametrize("leg", [TO_PLATFORM, TO_SQS, TO_LOGS, TO_TARGET], ids=lambda leg: leg.id)
@pytest.mark.parametrize("code", network_causes.ON_THE_WAY)
def test_each_network_fault_of_each_destination_has_a_cause_and_cure_that_name_it(code: Code, leg: network_causes.Destination) -> None:
    for way in (
        FaultFacts(code, "host.example", 443, certificate=OF_ANOTHER, rule="the rule"),
        FaultFacts(code, "host.example", 443, proxy="http://u:***@p:3128"),
        FaultFacts(code, "host.example", 443, proxy="http://u:***@p:3128", status=403),
        FaultFacts(code, "host.example", 443, behind=True, proxy="socks5h://p:1080"),
    ):
        row = on_the_way(way, leg)
        assert row.id == leg.id
        assert "{" not in row.cause + row.cure
        assert "None" not in row.cause + row.cure
        assert way.proxy is None or way.proxy in row.cause


def test_the_cause_of_a_bad_certificate_names_issuer_names_expiry_and_the_variables() -> None:
    way = FaultFacts(Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, "h", 443, certificate=OF_ANOTHER)
    unknown = on_the_way(way, TO_TARGET)
    assert "CN=Corporate CA" in unknown.cause
    assert "/ca.pem" in unknown.cause
    assert "RELAY_CA_FILE" in unknown.cure
    assert "REQUESTS_CA_BUNDLE" in unknown.cure
    wrong = on_the_way(replace(way, code=Code.ERR_TLS_CERT_ALTNAME_INVALID), TO_TARGET)
    assert "other.example" in wrong.cause
    assert "2026-01-02" in on_the_way(replace(way, code=Code.CERT_HAS_EXPIRED), TO_TARGET).cause
