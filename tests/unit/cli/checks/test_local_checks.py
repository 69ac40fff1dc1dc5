"""The checks of this machine: settings, token, key, state directory."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from relay_agent.cli.checks.local_checks import configuration, secure_key, state_dir, token
from relay_agent.cli.checks.result import Status
from relay_agent.core.clock import Clock
from relay_agent.storage.journal import Journal
from relay_agent.storage.state_directory import StateDirectory, held
from tests.target_certificates import ca_pem, ca_that_ends
from tests.unit.cli.checks.scenes import NOW, REQUIRED, jwt_until, settings

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


def test_a_missing_env_file_that_was_asked_for_is_an_error(environment: pytest.MonkeyPatch) -> None:
    loaded, found = configuration(Path("missing.env"), named=True)
    assert loaded is None
    assert "missing.env" in (found.cause or "")


@pytest.mark.parametrize(
    ("days", "status", "told"), [(31, Status.OK, None), (29, Status.WARNING, "in 28 days"), (-1, Status.WARNING, "expired on")]
)
def test_a_ca_that_ends_within_30_days_or_has_ended_is_a_warning(
    environment: pytest.MonkeyPatch, tmp_path: Path, days: int, status: Status, told: str | None
) -> None:
    file = tmp_path / "lab-ca.pem"
    file.write_bytes(ca_pem() + ca_that_ends(days, "Old Lab CA"))
    for name, value in {**REQUIRED, "JWT": jwt_until(None), "RELAY_CA_FILE": str(file)}.items():
        environment.setenv(name, value)
    loaded, found = configuration(Path(".env"))
    assert loaded is not None
    assert (found.id, found.status) == ("configuration", status), found
    if told is not None:
        assert f"CN=Old Lab CA in {file} (RELAY_CA_FILE)" in (found.cause or "")
        assert told in (found.cause or "") and "Testing CA" not in str(found)
        assert "restart the agent" in (found.cure or "")
        assert str(file) in found.summary


def test_an_unknown_variable_and_a_ca_that_ends_are_one_warning(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "lab-ca.pem"
    file.write_bytes(ca_that_ends(5))
    for name, value in {**REQUIRED, "JWT": jwt_until(None), "RELAY_CA_FILE": str(file), "RELAY_WORKER": "3"}.items():
        environment.setenv(name, value)
    _, found = configuration(Path(".env"))
    assert found.status is Status.WARNING
    for text in ("RELAY_WORKER", "CN=Lab CA"):
        assert text in (found.cause or "")


def test_what_warns_of_a_certificate_still_shows_the_policy_in_force(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ca_that_ends(5))
    policy = tmp_path / "policy.toml"
    policy.write_text('mode = "observe"\n[[target]]\nhosts = ["lims"]\nca_file = "ca.pem"\n')
    for name, value in {**REQUIRED, "JWT": jwt_until(None), "RELAY_POLICY_FILE": str(policy)}.items():
        environment.setenv(name, value)
    _, found = configuration(Path(".env"))
    assert found.status is Status.WARNING
    assert found.summary.startswith(f"policy {policy}: mode observe, default: deny, 0 rules, 1 targets; "), found.summary
    assert str(tmp_path / "ca.pem") in found.summary


# --- token and key ---


@pytest.mark.parametrize(
    ("expiry", "status", "reported"),
    [
        (None, Status.OK, "never expires"),
        (NOW + timedelta(days=31), Status.OK, "2026-12-24"),
        (NOW + timedelta(days=29), Status.WARNING, "2026-12-22"),
        (NOW - timedelta(seconds=1), Status.ERROR, "2026-11-23"),
    ],
)
def test_a_token_is_judged_by_its_expiry_and_the_date_is_named(expiry: datetime | None, status: Status, reported: str) -> None:
    found = token(settings(JWT=jwt_until(expiry)), NOW)
    assert (found.id, found.status) == ("token", status)
    assert reported in f"{found.summary} {found.cause}"
    assert found.status is Status.OK or "JWT_FILE" in (found.cure or "")


def test_a_missing_key_is_a_warning_and_a_key_is_named_by_its_kid(tmp_path: Path) -> None:
    missing = secure_key(settings())
    assert (missing.status, missing.optional) == (Status.WARNING, True)
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rule]]\naction = "allow"\nhosts = ["lims.lab.example"]\nsecure_only = true\n')
    needed = secure_key(settings(RELAY_POLICY_FILE=str(policy)))
    assert (needed.status, needed.optional) == (Status.WARNING, False)
    key = "00" * 32
    found = secure_key(settings(SECURE_COMMAND_KEY=key))
    assert found.status is Status.OK
    assert "kid 66687aad" in found.summary
    assert key not in str(found)


def on_disk() -> list[tuple[str, str]]:
    return [("/", "ext4")]


# --- the state directory ---


def test_a_missing_state_directory_is_ok_and_is_not_created(tmp_path: Path) -> None:
    found = state_dir(tmp_path / "a" / "state", on_disk)
    assert found.id == "state-dir"
    assert found.status in (Status.OK, Status.WARNING)  # The test's machine may have under 1 GB free.
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_state_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    found = state_dir(tmp_path / "state", on_disk)
    assert (found.status, str(tmp_path / "state") in (found.cause or "")) == (Status.ERROR, True)
    assert "RELAY_STATE_DIR" in (found.cure or "")


def test_a_containers_own_layer_is_a_warning_and_a_volume_is_not(tmp_path: Path) -> None:
    layer = state_dir(tmp_path, lambda: [("/", "overlay"), ("/proc", "proc")])
    assert layer.status is Status.WARNING
    assert "container's own layer" in (layer.cause or "")
    assert "volume" in (layer.cure or "")
    volume = state_dir(tmp_path, lambda: [("/", "overlay"), (str(tmp_path), "ext4")])
    assert "layer" not in (volume.cause or "")


def test_the_check_changes_neither_lock_nor_journal_nor_files(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    journal = Journal(state.journal, Clock())
    journal.close()
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    assert held(tmp_path)
    assert "in use by a running agent" in state_dir(tmp_path, on_disk).summary or shutil_free(tmp_path)
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before
    state.close()
    assert not held(tmp_path)
    StateDirectory(tmp_path).close()


def shutil_free(path: Path) -> bool:
    """Whether this machine has so little room that the check says that instead."""
    return os.statvfs(path).f_bavail * os.statvfs(path).f_frsize < 1_000_000_000


# --- the journal, looked at ---


def test_a_damaged_journal_is_an_error_of_the_state_directory(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"nothing that SQLite wrote" * 500)
    found = state_dir(tmp_path, on_disk)
    assert (found.id, found.status) == ("state-dir", Status.ERROR)
    assert "journal" in (found.cause or "")
    assert "SMART" in (found.cure or "")
