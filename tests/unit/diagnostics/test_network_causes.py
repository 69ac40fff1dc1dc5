"""Each fault on each way has its cause and its cure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay_agent.core.failures import Code, FaultFacts, RefusedCertificate, TableKey
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


@pytest.mark.parametrize("key", TableKey)
def test_what_a_key_of_a_table_forbids_has_a_cure_of_its_own_since_no_rule_can_allow_it(key: TableKey) -> None:
    told = on_the_way(FaultFacts(Code.EPOLICY, "h", 443, rule=key, table_key=key), TO_TARGET)
    assert key in told.cause
    assert "rule" not in told.cause + told.cure
    assert "{" not in told.cause + told.cure


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


@pytest.mark.parametrize("code", [Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, Code.DEPTH_ZERO_SELF_SIGNED_CERT])
def test_the_cure_for_a_target_with_roots_of_its_own_begins_with_them(code: Code) -> None:
    way = FaultFacts(code, "h", 443, certificate=replace(OF_ANOTHER, of_table=True))
    assert on_the_way(way, TO_TARGET).cure.startswith(
        "put the certificate of that CA into the ca_file of this target's [[target]] table; or"
    )
    assert "ca_file" not in on_the_way(replace(way, certificate=OF_ANOTHER), TO_TARGET).cure


@pytest.mark.parametrize("status", [401, 407])
def test_a_proxy_that_requires_other_credentials_is_reported_as_such(status: int) -> None:
    """With 407, or with 401 as tinyproxy says of a wrong password."""
    told = on_the_way(FaultFacts(Code.EBADRESPONSE, "h", 443, proxy="http://u:***@p:3128", status=status), TO_TARGET)
    assert f"answered {status}: it requires a user and password, or does not accept those given" in told.cause
    assert "put user and password into the proxy's URL" in told.cure


def test_a_401_to_a_forwarded_request_may_be_the_target_s() -> None:
    told = on_the_way(FaultFacts(None, "h", 80, proxy="http://p:3128", status=401, forwarded=True), TO_TARGET)
    assert "or it passes on the answer of the target" in told.cause


@pytest.mark.parametrize(("status", "says"), [(403, "it refuses to connect"), (500, "it cannot reach"), (503, "it cannot reach")])
def test_a_proxy_that_forbids_and_one_that_cannot_are_distinguished(status: int, says: str) -> None:
    """Squid answers 503 if the target's port is closed, tinyproxy 500."""
    told = on_the_way(FaultFacts(Code.EBADRESPONSE, "h", 443, proxy="http://p:3128", status=status), TO_TARGET)
    assert f"answered {status}: {says}" in told.cause
    assert "no_proxy" in told.cure
