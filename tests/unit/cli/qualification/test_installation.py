"""The lines of the installation: versions, settings, policy, state directory, journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.cli.qualification import installation
from relay_agent.cli.qualification.installation import (
    checksum_line,
    directory_line,
    journal_lines,
    library_lines,
    policy_line,
    program_lines,
    setting_lines,
    unknown_line,
)
from relay_agent.cli.qualification.lines import Line, Result
from relay_agent.config.settings import variables
from relay_agent.core.clock import Clock
from relay_agent.storage.journal import Journal
from relay_agent.storage.schema import SCHEMA_VERSION
from relay_agent.storage.state_directory import StateDirectory
from tests.unit.cli.checks.scenes import REQUIRED, jwt_until, settings
from tests.unit.cli.qualification.scenes import installed

SECRET = "canary-password"


def given(environment: pytest.MonkeyPatch, **more: str) -> None:
    for name, value in {**REQUIRED, "JWT": jwt_until(None), **more}.items():
        environment.setenv(name, value)


def test_this_installation_has_the_versions_that_it_requires() -> None:
    lines = program_lines()
    assert {line.number.partition(".")[0] for line in lines} == {"IQ-01", "IQ-02", "IQ-03", "IQ-04"}
    assert [line for line in lines if line.result is not Result.PASS] == []


def test_versions_that_are_not_known_are_not_said_to_be_right(tmp_path: Path) -> None:
    (line,) = library_lines(None, tmp_path / "no-bill")
    assert line.result is Result.NOT_RUN
    (tmp_path / "bill").write_text("{", encoding="utf-8")
    (line,) = library_lines(None, tmp_path / "bill")
    assert line.result is Result.NOT_RUN and "cannot be read" in line.remark


def test_files_are_compared_with_a_manifest_or_a_record_and_sources_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = tmp_path / "no-manifest"
    package, sources = installed(tmp_path / "a"), installed(tmp_path / "b", editable=True)
    monkeypatch.setattr(installation, "_distribution", lambda: package)
    assert checksum_line(nothing).result is Result.PASS
    (tmp_path / "a/package_a/module.py").write_bytes(b"changed")
    assert checksum_line(nothing).result is Result.FAIL
    monkeypatch.setattr(installation, "_distribution", lambda: sources)
    assert checksum_line(nothing).result is Result.NOT_RUN
    monkeypatch.setattr(installation, "_distribution", lambda: None)
    assert checksum_line(nothing).result is Result.NOT_RUN
    manifest = tmp_path / "manifest"
    manifest.write_text(f"{'0' * 64}  {str(tmp_path).lstrip('/')}/nothing\n", encoding="utf-8")
    line = checksum_line(manifest)
    assert line.result is Result.FAIL and "The manifest's own SHA-256 is " in line.remark


def named(lines: list[Line]) -> dict[str, Line]:
    return {line.expected.partition(":")[0]: line for line in lines}


def test_each_setting_has_a_line_with_what_is_valid_and_what_is_set_and_no_secret(environment: pytest.MonkeyPatch) -> None:
    given(environment, https_proxy=f"http://user:{SECRET}@proxy.lab.example:3128", RELAY_WORKERS="32")
    found = named(setting_lines(Path(".env")))
    assert list(found) == [variable.name for variable in variables()]
    assert {line.result for line in found.values()} == {Result.PASS}
    assert found["RELAY_WORKERS"].observed == "32"
    assert found["RELAY_LOG_LEVEL"].observed == "not set (default: info)"
    assert found["JWT"].observed == "set (not shown)"
    assert SECRET not in str(found) and "proxy.lab.example" in found["https_proxy"].observed


def test_an_invalid_setting_fails_and_says_why(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(environment, RELAY_WORKERS="many", JWT=SECRET)
    (tmp_path / ".env").write_text("this is no setting\n", encoding="utf-8")
    lines = setting_lines(Path(".env"))
    failed = {name for name, line in named(lines).items() if line.result is Result.FAIL}
    assert {"RELAY_WORKERS", "JWT"} <= failed
    assert len({line.number for line in lines}) == len(lines)
    assert SECRET not in str(lines)


def test_a_variable_that_is_no_setting_fails(environment: pytest.MonkeyPatch) -> None:
    given(environment)
    assert unknown_line(Path(".env")).result is Result.PASS
    environment.setenv("RELAY_WORKER", SECRET)
    line = unknown_line(Path(".env"))
    assert line.result is Result.FAIL
    assert line.observed == "RELAY_WORKER (is RELAY_WORKERS meant?)"


def test_the_policy_file_is_identified_by_its_sha256_unless_it_holds_a_secret(tmp_path: Path) -> None:
    assert policy_line(None).result is Result.NOT_RUN
    assert policy_line(settings()).result is Result.NOT_APPLICABLE
    policy = tmp_path / "policy.toml"
    policy.write_text('mode = "observe"\n[[rule]]\nname = "lims"\naction = "allow"\nhosts = ["lims.lab.example"]\n', encoding="utf-8")
    line = policy_line(settings(RELAY_POLICY_FILE=str(policy)))
    assert line.result is Result.PASS
    assert "mode observe, default: deny, 1 rules, 0 targets; SHA-256 " in line.observed and len(line.observed.rpartition(" ")[2]) == 64
    assert "refuse nothing" in line.remark
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    policy.write_text('[[target]]\nhosts = ["*"]\nheaders = { X-Key = { file = "secret" } }\n', encoding="utf-8")
    valid = settings(RELAY_POLICY_FILE=str(policy))
    assert "not shown" in policy_line(valid).observed and SECRET not in str(policy_line(valid))
    policy.write_text("nonsense", encoding="utf-8")
    assert policy_line(valid).result is Result.FAIL


def test_a_state_directory_that_others_can_enter_fails(tmp_path: Path) -> None:
    place = tmp_path / "state"
    assert directory_line(place).result is Result.FAIL
    StateDirectory(place).close()
    assert directory_line(place).result is Result.PASS
    place.chmod(0o750)
    line = directory_line(place)
    assert line.result is Result.FAIL and "mode 0750" in line.observed


def test_the_journal_s_form_and_content_are_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    assert [line.result for line in journal_lines(path, in_use=False)] == [Result.NOT_RUN, Result.NOT_RUN]
    journal = Journal(path, Clock())
    journal.admit([("id", "text", "receipt")])
    journal.close()
    form, content = journal_lines(path, in_use=False)
    assert (form.result, form.observed) == (Result.PASS, f"schema {SCHEMA_VERSION}")
    assert content.result is Result.PASS and "1 commands" in content.observed
    data = bytearray(path.read_bytes())
    data[4096:4196] = b"\x00" * 100
    path.write_bytes(data)
    assert [line.result for line in journal_lines(path, in_use=False)] == [Result.NOT_RUN, Result.FAIL]
