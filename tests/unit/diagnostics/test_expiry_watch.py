"""What will end is logged at the start, once a day from 30 days before, and does not tell the platform of targets."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay_agent.config.certificate_files import FileCertificate
from relay_agent.core.models import CertificateRole
from relay_agent.diagnostics.certificates import MOST_SHOWN, CertificateInUse, of_file, of_peer
from relay_agent.diagnostics.expiry_watch import LINES_A_DAY, MOST_SERIES, ExpiryWatch
from relay_agent.telemetry.logs import Logs
from relay_agent.telemetry.redaction import Redactor
from relay_agent.transport.x509 import Certificate
from tests.simulated_agent import START, Counting, SimulatedAgent

DAY = 24 * 3600


class Sink:
    """What is sent to the platform."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def accept(self, timestamp_ms: int, line: str) -> None:
        self.lines.append(json.loads(line))


class World:
    """An ExpiryWatch with the agent's own log, and a time that the test advances."""

    def __init__(self) -> None:
        self.agent = SimulatedAgent()
        self.token: datetime | None = None
        self.certificates: list[CertificateInUse] = []
        self.shipped = Sink()
        self.stdout = Counting()
        logs = Logs("info", Redactor(), self.shipped, self.stdout, self.agent.clock)  # type: ignore[arg-type]
        self.watch = ExpiryWatch(
            certificates=lambda: self.certificates, token_ends=lambda: self.token, log=logs.logger, clock=self.agent.clock
        )

    def pass_days(self, days: float, step_seconds: float = 1800.0) -> None:
        for _ in range(int(days * DAY / step_seconds)):
            self.watch.look()
            self.agent.time += step_seconds
        self.watch.look()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.lines]


def certificate(days: float, subject: str = "CN=a device") -> Certificate:
    return Certificate(subject, "CN=Lab CA", START - timedelta(days=400), START + timedelta(days=days), ())


def target(days: float, host: str = "lims.lab.example") -> CertificateInUse:
    return of_peer(CertificateRole.TARGET, host, 443, certificate(days), CertificateRole.TARGET)


def ca(days: float, subject: str = "CN=Lab CA", *, of_policy: bool = False) -> CertificateInUse:
    setting = "RELAY_POLICY_FILE: [[target]] 1 (lims.lab.example): ca_file" if of_policy else "RELAY_CA_FILE"
    return of_file(FileCertificate(CertificateRole.CA, setting, Path("/etc/lab.pem"), certificate(days, subject), of_policy))


@pytest.fixture
def world() -> World:
    return World()


# --- when ---


def test_what_ends_later_than_in_30_days_is_not_logged(world: World) -> None:
    world.token = START + timedelta(days=31)
    world.certificates = [target(31), ca(400)]
    world.pass_days(0.9)
    assert (world.lines, world.watch.problems(), world.watch.ending()) == ([], [], [])


def test_each_is_logged_once_a_day_until_its_end_and_afterwards(world: World) -> None:
    world.token = START + timedelta(days=40)
    world.certificates = [ca(40)]
    world.pass_days(50)
    token = [line["days"] for line in world.lines if line["event"] == "token-ends-soon"]
    found = [line["days"] for line in world.lines if line["event"] == "certificate-ends-soon"]
    assert token == found == list(range(29, -11, -1))
    days = [line["timestamp"][:10] for line in world.lines if line["event"] == "token-ends-soon"]
    assert len(set(days)) == len(days)


def test_what_ends_within_30_days_is_logged_once_at_the_start(world: World) -> None:
    world.token = START + timedelta(days=20)
    world.certificates = [target(5), ca(-1), ca(29, "CN=Next CA")]
    world.watch.look()
    assert [(line["event"], line["days"]) for line in world.lines] == [
        ("token-ends-soon", 20),
        ("certificate-ends-soon", -1),
        ("certificate-ends-soon", 5),
        ("certificate-ends-soon", 29),
    ]
    world.pass_days(0.9)
    assert len(world.lines) == 4


def test_a_renewed_certificate_is_not_logged_and_one_that_was_renewed_for_days_is(world: World) -> None:
    world.certificates = [target(3)]
    world.watch.look()
    world.certificates = [target(4)]
    world.watch.look()
    assert [line["days"] for line in world.lines] == [3, 4]
    world.certificates = [target(400)]
    world.pass_days(3)
    assert len(world.lines) == 2
    assert world.watch.problems() == []


def test_a_day_s_lines_are_bounded_and_those_that_end_first_come_first(world: World) -> None:
    world.certificates = [target(6 - number / 1000, f"h{number}.lab.example") for number in range(300)]
    world.pass_days(0.9)
    assert [line["name"] for line in world.lines] == [f"h{number}.lab.example:443" for number in range(299, 299 - LINES_A_DAY, -1)]
    assert world.stdout.bytes < 40_000


def test_a_sender_that_calls_ever_new_hosts_does_not_raise_that_bound(world: World) -> None:
    for number in range(500):
        world.certificates = [target(3, f"h{number}.lab.example")]
        world.watch.look()
        world.agent.time += 60
    assert len(world.lines) == LINES_A_DAY


# --- what ---


def test_a_line_says_what_ends_when_why_it_matters_and_what_to_do(world: World) -> None:
    world.certificates = [ca(5)]
    world.watch.look()
    (line,) = world.lines
    assert (line["level"], line["role"], line["name"], line["subject"]) == ("warning", "ca", "/etc/lab.pem", "CN=Lab CA")
    assert (line["ends"], line["days"]) == ("2026-03-06T00:00:00Z", 5)
    assert line["cause"] == (
        "the CA certificate CN=Lab CA in /etc/lab.pem (RELAY_CA_FILE) expires on 2026-03-06, in 5 days; after that the agent trusts no"
        " certificate that this CA issued"
    )
    assert "add the CA's new certificate to that file" in line["cure"] and "restart the agent" in line["cure"]


@pytest.mark.parametrize(
    ("certificate", "says", "cure"),
    [
        (target(-2), "the certificate of lims.lab.example expired on 2026-02-27; since then calls fail", "renewed"),
        (ca(2, of_policy=True), "expires on 2026-03-03, in 2 days; after that the agent trusts no", "uses the new file within 10 s"),
        (
            of_file(FileCertificate(CertificateRole.CLIENT, "RELAY_POLICY_FILE: x", Path("agent.pem"), certificate(2), True)),
            "after that targets that require it refuse the agent",
            "its key's file",
        ),
        (
            of_peer(CertificateRole.PROXY, "proxy.lab.example", 3129, certificate(0.5), CertificateRole.PLATFORM),
            "the certificate of the proxy proxy.lab.example expires on 2026-03-01, in less than a day",
            "the proxy's operator",
        ),
        (
            of_peer(CertificateRole.PLATFORM, "api.lab.example", 443, certificate(1), CertificateRole.PLATFORM),
            "the certificate that api.lab.example shows expires on 2026-03-02, in 1 day",
            "re-signs TLS",
        ),
    ],
)
def test_each_role_has_its_cause_and_cure(world: World, certificate: CertificateInUse, says: str, cure: str) -> None:
    world.certificates = [certificate]
    world.watch.look()
    assert says in world.lines[0]["cause"], world.lines
    assert cure in world.lines[0]["cure"], world.lines


def test_a_token_that_has_ended_is_logged_in_the_words_of_the_start(world: World) -> None:
    world.token = START - timedelta(days=1)
    world.watch.look()
    (line,) = world.lines
    assert (line["event"], line["days"]) == ("token-ends-soon", -1)
    assert line["cause"].startswith("the JWT expired on 2026-02-28 00:00 UTC")


def test_a_new_token_that_ends_soon_too_is_logged_at_once(world: World) -> None:
    for days in (2, 3, 3):
        world.token = START + timedelta(days=days)
        world.watch.look()
    assert [line["days"] for line in world.lines] == [2, 3]


@pytest.mark.parametrize("certificate", [target(5), ca(5, "CN=lims.lab.example", of_policy=True)])
def test_the_line_for_the_platform_does_not_name_the_target(world: World, certificate: CertificateInUse) -> None:
    """Secure commands choose targets, and the policy file names them."""
    world.certificates = [certificate]
    world.watch.look()
    (line,) = world.shipped.lines
    assert {name: value for name, value in line.items() if name != "timestamp"} == {
        "event": "certificate-ends-soon",
        "level": "warning",
        "role": certificate.role,
        "days": 5,
    }
    assert "lims.lab.example" in json.dumps(world.lines)


def test_the_line_for_the_platform_names_its_own_certificates_and_ca_file(world: World) -> None:
    world.certificates = [ca(5), of_peer(CertificateRole.PLATFORM, "api.lab.example", 443, certificate(5), CertificateRole.PLATFORM)]
    world.watch.look()
    assert world.shipped.lines == world.lines


# --- the page and the metrics ---


def test_the_page_shows_those_that_end_first_and_counts_the_others(world: World) -> None:
    world.certificates = [target(20 - number, f"h{number}.lab.example") for number in range(MOST_SHOWN + 3)]
    found = world.watch.problems()
    assert found[0].reason == "the certificate of h7.lab.example:443 expires on 2026-03-14"
    assert len(found) == MOST_SHOWN + 1
    assert found[-1].reason == "3 more certificates expire soon, or have expired"


def test_everything_that_ends_is_listed_in_words(world: World) -> None:
    world.token = START + timedelta(days=10)
    world.certificates = [target(20), ca(-3), target(200, "eln.lab.example")]
    assert [(one.role, one.name, (one.ends - START).days) for one in world.watch.ending()] == [
        ("token", "JWT", 10),
        ("ca", "/etc/lab.pem", -3),
        ("target", "lims.lab.example:443", 20),
    ]
    assert world.watch.ending()[0].remark.startswith("the JWT expires on 2026-03-11 00:00 UTC, in 10 days")


def test_the_metrics_have_every_certificate_and_the_earliest_of_several_by_one_name(world: World) -> None:
    world.certificates = [target(300), target(200), ca(20), ca(30), ca(40, "CN=Next CA")]
    assert world.watch.timestamps() == {
        ("ca", "/etc/lab.pem (CN=Lab CA)"): (START + timedelta(days=20)).timestamp(),
        ("ca", "/etc/lab.pem (CN=Next CA)"): (START + timedelta(days=40)).timestamp(),
        ("target", "lims.lab.example:443"): (START + timedelta(days=200)).timestamp(),
    }


def test_the_metrics_of_each_role_are_bounded_to_those_that_end_first(world: World) -> None:
    world.certificates = [target(500 - number, f"h{number}.lab.example") for number in range(300)] + [ca(1000)]
    found = world.watch.timestamps()
    assert len(found) == MOST_SERIES + 1
    assert ("target", "h299.lab.example:443") in found and ("target", "h0.lab.example:443") not in found
