"""Checks as data: their order, what waits for what, bounds, exit codes, and what is looked at on this machine (OPERATIONS §2)."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import ssl
import string
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from relay_agent.cli.checks import preflight
from relay_agent.cli.checks.local_checks import configuration, secure_key, state_dir, token
from relay_agent.cli.checks.preflight import CHECK_IDS, Bounds
from relay_agent.cli.checks.result import Check, Status, error, exit_code, ok, report, warning
from relay_agent.cli.checks.route_trace import STAGES
from relay_agent.cli.checks.scheduler import Step, run_steps
from relay_agent.config.inspection import unknown_variables
from relay_agent.config.loading import load_way_settings
from relay_agent.config.secrets import check_token
from relay_agent.config.settings import Settings, variables
from relay_agent.core.clock import Clock
from relay_agent.core.errors import ConfigurationError, JournalDamaged, JournalError, TokenExpired
from relay_agent.core.failures import Cause, Code, FaultFacts, Phase, RefusedCertificate
from relay_agent.diagnostics import causes, local_causes, network_causes, platform_causes
from relay_agent.diagnostics.causes import days_left
from relay_agent.diagnostics.network_causes import TO_LOGS, TO_PLATFORM, TO_SQS, TO_TARGET, on_the_way
from relay_agent.storage.journal import Journal
from relay_agent.storage.journal_inspection import look
from relay_agent.storage.state_directory import StateDirectory, held
from relay_agent.telemetry import redaction
from relay_agent.transport.x509 import read_certificate
from tests.bench.foreign import certificate
from tests.pages import ROOT, names, rows, section
from tests.target_certificates import ca_pem

NOW = datetime(2026, 11, 23, 3, 13, tzinfo=UTC)
GOOD = ok("platform", "answers")
BAD = error(platform_causes.REFUSED, "the platform answered 401")
REQUIRED = {"API_TARGET": "https://api.lab.example", "ORG_SLUG": "lab", "AGENT_ID": "9b9f275c-a60d-454f-8c6c-1ea094e3fd38"}


def jwt_until(moment: datetime | None) -> str:
    claims = {} if moment is None else {"exp": int(moment.timestamp())}
    return jwt.encode(claims, "a key of thirty-two bytes or more", algorithm="HS256")


def settings(**more: str) -> Settings:
    return Settings(**{**REQUIRED, "JWT": jwt_until(None), **more})  # type: ignore[arg-type]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which nothing of ours is set, in a directory without `.env`."""
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
        monkeypatch.delenv(variable.name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


# --- the form ---


def test_the_report_has_the_fields_of_the_contract() -> None:
    assert report([warning(local_causes.NO_KEY, "none")]) == {
        "checks": [
            {
                "id": "secure-key",
                "status": "warning",
                "summary": "none",
                "cause": local_causes.NO_KEY.cause,
                "cure": local_causes.NO_KEY.cure,
                "seconds": 0.0,
            }
        ]
    }
    json.dumps(report([GOOD]))


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ([GOOD, warning(local_causes.NO_KEY, "")], 0),
        ([GOOD, BAD], 1),
        ([error(local_causes.CONFIGURATION, ""), BAD], 2),
        ([warning(local_causes.UNKNOWN_VARIABLES, ""), GOOD], 0),
    ],
)
def test_the_exit_code_is_0_with_warnings_1_with_an_error_and_2_for_the_configuration(checks: list[Check], code: int) -> None:
    assert exit_code(checks) == code


def test_the_documented_checks_are_those_of_the_code_in_their_order() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert tuple(names(row[0])[0] for row in rows(section(text, "Checks"), "check")) == CHECK_IDS


def test_the_documented_waits_are_those_of_the_plan() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    told = {names(row[0])[0]: set(names(row[1])) for row in rows(section(text, "Checks"), "check")}
    steps = preflight._steps(settings(), frozenset(), ["http://h/"], Bounds(), Clock(), redaction.Redactor())
    assert {step.id: set(step.waits_for) for step in steps if step.waits_for} == {name: waits for name, waits in told.items() if waits}


def test_the_documented_stages_are_those_of_the_walk() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    told = {name for row in rows(section(text, "Explain"), "stage") for name in names(row[0])}
    assert told == {*STAGES.values(), "policy", "proxy", "http", "request", "configuration"}
    assert set(STAGES) == {phase for phase in Phase if not phase.sent}  # A walk sends nothing.


def test_what_follows_each_other_on_a_network_that_hangs_fits_into_30_s() -> None:
    bounds = Bounds()
    longest = 3 * (bounds.call + bounds.margin)  # platform, credentials, sqs
    assert max(longest, bounds.target + bounds.margin, bounds.local) <= bounds.whole < 29.5


# --- the plan ---


def test_checks_come_in_the_order_of_the_plan_whatever_ends_first() -> None:
    later = threading.Event()

    def first() -> Check:
        assert later.wait(5)
        return ok("first", "")

    def second() -> Check:
        later.set()
        return ok("second", "")

    assert [check.id for check in run_steps([Step("first", first), Step("second", second)], 10)] == ["first", "second"]


def test_a_step_runs_after_what_it_waits_for_even_when_that_stands_behind_it() -> None:
    seen: list[str] = []

    def note(name: str) -> Check:
        seen.append(name)
        return ok(name, "")

    run_steps([Step("clock", lambda: note("clock"), ("platform",)), Step("platform", lambda: note("platform"))], 10)
    assert seen == ["platform", "clock"]


def test_what_waits_for_a_failure_is_skipped_and_names_it_and_the_root() -> None:
    steps = [
        Step("platform", lambda: GOOD),
        Step("access", lambda: BAD, ("platform",)),
        Step("agent", lambda: pytest.fail("ran"), ("access",)),
        Step("queue", lambda: pytest.fail("ran"), ("agent",)),
        Step("target", lambda: ok("target", "reached")),
    ]
    found = run_steps(steps, 10)
    assert [check.status for check in found] == [Status.OK, Status.ERROR, Status.SKIPPED, Status.SKIPPED, Status.OK]
    assert [check.summary for check in found[2:4]] == ["waits for access", "waits for agent, and that for access"]


def test_a_warning_keeps_nobody_waiting() -> None:
    steps = [Step("platform", lambda: warning(platform_causes.SLOW, "slow")), Step("access", lambda: ok("access", ""), ("platform",))]
    assert [check.status for check in run_steps(steps, 10)] == [Status.WARNING, Status.OK]


@pytest.mark.parametrize(("bound", "whole"), [(0.05, 10.0), (10.0, 0.05)])
def test_a_check_that_hangs_is_an_error_when_its_bound_or_the_whole_s_ends_and_hides_no_other(bound: float, whole: float) -> None:
    release = threading.Event()

    def hang() -> Check:
        release.wait(10)
        return GOOD

    steps = [
        Step("state-dir", hang, bound_seconds=bound),
        Step("token", lambda: ok("token", "good")),
        Step("queue", lambda: GOOD, ("state-dir",)),
    ]
    try:
        hung, good, skipped = run_steps(steps, whole)
    finally:
        release.set()
    assert (hung.id, hung.status, good.status, skipped.status) == ("state-dir", Status.ERROR, Status.OK, Status.SKIPPED)
    assert hung.cause == "the check got no answer within 0.05 s"
    assert 0.05 <= hung.seconds < 5


def test_an_error_that_nobody_foresaw_is_told_by_its_kind_alone_and_hides_no_other() -> None:
    def broken() -> Check:
        raise RuntimeError("with a secret in it")

    found, other = run_steps([Step("clock", broken), Step("token", lambda: ok("token", "good"))], 10)
    assert (found.id, found.status, other.status) == ("clock", Status.ERROR, Status.OK)
    assert "RuntimeError" in (found.cause or "")
    assert "secret" not in str(found)


def test_several_targets_are_told_apart_when_skipped() -> None:
    steps = [
        Step("configuration", lambda: error(local_causes.CONFIGURATION, "")),
        Step("target", lambda: GOOD, ("configuration",), about="http://a/"),
    ]
    assert run_steps(steps, 10)[1].summary == "http://a/: waits for configuration"


# --- the table ---


OF_ANOTHER = RefusedCertificate(issuer="CN=Corporate CA", names="other.example", begins="", ends="2026-01-02", roots="/ca.pem")


def every_row() -> list[Cause]:
    return [value for value in vars(causes).values() if isinstance(value, Cause)]


@pytest.mark.parametrize("leg", [TO_PLATFORM, TO_SQS, TO_LOGS, TO_TARGET], ids=lambda leg: leg.id)
@pytest.mark.parametrize("code", network_causes.ON_THE_WAY)
def test_each_fault_on_each_way_has_a_cause_and_a_cure_that_name_it(code: Code, leg: network_causes.Destination) -> None:
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


def test_a_certificate_s_fault_names_issuer_names_end_and_the_variables() -> None:
    way = FaultFacts(Code.UNABLE_TO_VERIFY_LEAF_SIGNATURE, "h", 443, certificate=OF_ANOTHER)
    unknown = on_the_way(way, TO_TARGET)
    assert "CN=Corporate CA" in unknown.cause
    assert "/ca.pem" in unknown.cause
    assert "RELAY_CA_FILE" in unknown.cure
    assert "REQUESTS_CA_BUNDLE" in unknown.cure
    wrong = on_the_way(replace(way, code=Code.ERR_TLS_CERT_ALTNAME_INVALID), TO_TARGET)
    assert "other.example" in wrong.cause
    assert "2026-01-02" in on_the_way(replace(way, code=Code.CERT_HAS_EXPIRED), TO_TARGET).cause


def test_every_variable_that_a_row_names_is_one() -> None:
    known = {variable.name for variable in variables()} | {"RELAY_FAULT_POINT"}
    text = " ".join(row.cause + row.cure for row in every_row()) + " ".join(a + b for a, b in network_causes.ON_THE_WAY.values())
    assert set(re.findall(r"\bRELAY_[A-Z_]+\b", text)) - known == set()


def test_a_row_with_braces_is_filled_by_whoever_tells_it() -> None:
    """A brace that nobody fills would reach an administrator."""
    filled = {row.id for row in every_row() if any(name for _, name, _, _ in string.Formatter().parse(row.cause + row.cure) if name)}
    assert filled <= {"configuration", "token", "clock", "state-dir", "agent", "platform", "sqs", "target", ""}


def test_an_expired_token_is_told_by_run_in_the_table_s_words() -> None:
    with pytest.raises(TokenExpired) as caught:
        check_token(jwt_until(NOW - timedelta(days=1)), lambda: NOW)
    row = local_causes.TOKEN_EXPIRED.about(date="2026-11-22 03:13 UTC")
    assert str(caught.value) == f"{row.cause}: {row.cure}"


# --- the settings ---


def test_every_invalid_variable_is_named_at_once_and_no_secret_s_value(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("JWT", "canary-no-token")
    environment.setenv("RELAY_WORKERS", "many")
    environment.setenv("https_proxy", "ftp://user:canary-password@proxy")
    loaded, found = configuration(Path(".env"))
    assert loaded is None
    assert (found.id, found.status) == ("configuration", Status.ERROR)
    for name in ("API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT", "RELAY_WORKERS", "https_proxy"):
        assert name in found.summary
        assert f"{name}: " in (found.cause or "")
    assert "canary" not in str(found)


def test_an_unknown_variable_of_ours_is_a_warning_with_the_nearest_name(environment: pytest.MonkeyPatch) -> None:
    for name, value in {**REQUIRED, "JWT": jwt_until(None), "RELAY_WORKER": "3", "RELAY_FAULT_POINT": "started"}.items():
        environment.setenv(name, value)
    loaded, found = configuration(Path(".env"))
    assert loaded is not None
    assert found.status is Status.WARNING
    assert "RELAY_WORKER" in (found.cause or "")
    assert "RELAY_WORKERS" in (found.cure or "")
    assert "FAULT" not in str(found)


def test_unknown_variables_of_the_file_are_found_too(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RELAY_STATEDIR=/x\nRELAY_ZZZZ=1\nrelay_workers=3\n")
    assert unknown_variables() == [("RELAY_STATEDIR", "RELAY_STATE_DIR"), ("RELAY_ZZZZ", None), ("relay_workers", "RELAY_WORKERS")]


def test_a_file_that_was_asked_for_and_is_not_there_is_an_error(environment: pytest.MonkeyPatch) -> None:
    loaded, found = configuration(Path("missing.env"), named=True)
    assert loaded is None
    assert "missing.env" in (found.cause or "")


def test_explain_s_settings_need_no_platform_and_pass_over_what_does_not_matter(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("https_proxy", "http://proxy.lab.example:3128")
    environment.setenv("RELAY_WORKERS", "many")
    environment.setenv("API_TARGET", "<placeholder>")
    environment.setenv("JWT", "no token")
    found = load_way_settings()
    assert (found.https_proxy, found.connect_timeout_seconds) == ("http://proxy.lab.example:3128", 30)


def test_explain_s_settings_name_what_matters_and_is_wrong(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("RELAY_CA_FILE", "/nowhere/ca.pem")
    environment.setenv("RELAY_TARGET_PROXY", "ftp://x")
    with pytest.raises(ConfigurationError) as caught:
        load_way_settings()
    assert [mistake.variable for mistake in caught.value.mistakes] == ["RELAY_TARGET_PROXY", "RELAY_CA_FILE"]


# --- token and key ---


@pytest.mark.parametrize(
    ("expiry", "status", "told"),
    [
        (None, Status.OK, "no end"),
        (NOW + timedelta(days=31), Status.OK, "2026-12-24"),
        (NOW + timedelta(days=29), Status.WARNING, "2026-12-22"),
        (NOW - timedelta(seconds=1), Status.ERROR, "2026-11-23"),
    ],
)
def test_a_token_is_judged_by_its_end_and_the_day_is_named(expiry: datetime | None, status: Status, told: str) -> None:
    found = token(settings(JWT=jwt_until(expiry)), NOW)
    assert (found.id, found.status) == ("token", status)
    assert told in f"{found.summary} {found.cause}"
    assert found.status is Status.OK or "JWT_FILE" in (found.cure or "")


def test_no_key_is_a_warning_and_a_key_is_told_by_its_name() -> None:
    assert secure_key(settings()).status is Status.WARNING
    key = "00" * 32
    found = secure_key(settings(SECURE_COMMAND_KEY=key))
    assert found.status is Status.OK
    assert "kid 66687aad" in found.summary
    assert key not in str(found)


def test_days_are_told_in_words() -> None:
    assert [days_left(NOW + timedelta(days=n, hours=1), NOW) for n in (0, 1, 2)] == ["less than a day", "1 day", "2 days"]


# --- the state directory ---


def on_disk() -> list[tuple[str, str]]:
    return [("/", "ext4")]


def test_a_directory_that_is_not_there_yet_is_right_and_is_not_made(tmp_path: Path) -> None:
    found = state_dir(tmp_path / "a" / "state", on_disk)
    assert found.id == "state-dir"
    assert found.status in (Status.OK, Status.WARNING)  # The test's machine may have under 1 GB free.
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    found = state_dir(tmp_path / "state", on_disk)
    assert (found.status, str(tmp_path / "state") in (found.cause or "")) == (Status.ERROR, True)
    assert "RELAY_STATE_DIR" in (found.cure or "")


def test_a_container_s_own_layer_is_a_warning_and_a_volume_on_it_is_none(tmp_path: Path) -> None:
    layer = state_dir(tmp_path, lambda: [("/", "overlay"), ("/proc", "proc")])
    assert layer.status is Status.WARNING
    assert "container's own layer" in (layer.cause or "")
    assert "volume" in (layer.cure or "")
    volume = state_dir(tmp_path, lambda: [("/", "overlay"), (str(tmp_path), "ext4")])
    assert "layer" not in (volume.cause or "")


def test_looking_leaves_lock_journal_and_files_as_they_were(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    journal = Journal(state.journal, Clock())
    journal.close()
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    assert held(tmp_path)
    assert "an agent is at work" in state_dir(tmp_path, on_disk).summary or shutil_free(tmp_path)
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before
    state.close()
    assert not held(tmp_path)
    StateDirectory(tmp_path).close()


def shutil_free(path: Path) -> bool:
    """Whether this machine has so little room that the check says that instead."""
    return os.statvfs(path).f_bavail * os.statvfs(path).f_frsize < 1_000_000_000


# --- the journal, looked at ---


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with some commands in it, closed."""
    path = tmp_path / "journal.db"
    opened = Journal(path, Clock())
    opened.admit([(f"id-{number}", "text " * 200, "receipt") for number in range(50)])
    opened.close()
    return path


def crash_left(journal: Path, copy: Path) -> Path:
    """The journal as a crash leaves it: with what stands in its log only."""
    opened = Journal(journal, Clock())
    opened.admit([("in-the-log", "text", "receipt")])
    for ending in ("", "-wal"):
        (copy / f"journal.db{ending}").write_bytes(journal.with_name(f"journal.db{ending}").read_bytes())
    opened.close()
    return copy / "journal.db"


def test_no_journal_a_sound_one_and_one_in_use_are_right(tmp_path: Path, journal: Path) -> None:
    look(tmp_path / "nothing.db", in_use=False)
    look(journal, in_use=False)
    opened = Journal(journal, Clock())
    opened.admit([("one-more", "text", "receipt")])
    look(journal, in_use=True)
    opened.admit([("and-one-more", "text", "receipt")])
    opened.close()
    look(journal, in_use=False)


def test_a_journal_that_a_crash_left_is_looked_at_without_touching_it(tmp_path: Path, journal: Path) -> None:
    place = tmp_path / "crashed"
    place.mkdir()
    left = crash_left(journal, place)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    look(left, in_use=False)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize("in_use", [False, True])
def test_a_damaged_journal_is_found(journal: Path, in_use: bool) -> None:
    data = bytearray(journal.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    journal.write_bytes(data)
    if in_use:  # What an open journal has beside it.
        journal.with_name("journal.db-shm").touch()
    with pytest.raises(JournalDamaged):
        look(journal, in_use=in_use)


def test_damage_behind_a_log_is_found(tmp_path: Path, journal: Path) -> None:
    place = tmp_path / "crashed"
    place.mkdir()
    left = crash_left(journal, place)
    left.write_bytes(b"no database at all " * 1000)
    with pytest.raises(JournalDamaged):
        look(left, in_use=False)


def test_a_newer_agent_s_journal_is_not_damaged(journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        connection.executescript("PRAGMA journal_mode=DELETE; PRAGMA user_version=99;")
    with pytest.raises(JournalError, match="newer agent"):
        look(journal, in_use=False)


def test_a_damaged_journal_is_an_error_of_the_state_directory(tmp_path: Path, journal: Path) -> None:
    journal.write_bytes(b"nothing that SQLite wrote" * 500)
    found = state_dir(tmp_path, on_disk)
    assert (found.id, found.status) == ("state-dir", Status.ERROR)
    assert "journal" in (found.cause or "")
    assert "SMART" in (found.cure or "")


# --- certificates ---


def test_a_certificate_that_nobody_trusts_is_read() -> None:
    found = read_certificate(ssl.PEM_cert_to_DER_cert(ca_pem().decode()))
    assert found is not None
    assert "trustme" in found.issuer
    assert found.self_signed
    assert found.not_before < datetime.now(UTC) < found.not_after


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 200])
def test_what_is_no_certificate_is_none(cut: int) -> None:
    der = ssl.PEM_cert_to_DER_cert(ca_pem().decode())
    assert read_certificate(der[:cut]) is None
    assert read_certificate(b"\x30\x82\xff\xff" + der[:cut]) is None


def test_of_a_certificate_whoever_made_it_names_and_numbers_are_read_as_far_as_they_are_shown() -> None:
    """An object identifier's numbers have no bound, and to decode one takes time in the square of its length."""

    def cpu_seconds(identifier: bytes) -> float:
        started = time.thread_time()
        found = read_certificate(certificate(b"a" * 60_000, identifier))
        assert found is not None and len(found.subject) <= 103
        return time.thread_time() - started

    ours = min(cpu_seconds(b"\x55\x04\x03") for _ in range(3))
    assert min(cpu_seconds(b"\xff" * 60_000 + b"\x01") for _ in range(3)) < 10 * ours
