"""What is shown of the settings: variables that are none, with the nearest that is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_agent.config.inspection import unknown_variables
from relay_agent.config.settings import variables


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RELAY_WORKER", "RELAY_WORKERS"),
        ("RELAY_LOGLEVEL", "RELAY_LOG_LEVEL"),
        ("RELAY_HEARTBEAT", "RELAY_HEARTBEAT_SECONDS"),
        ("RELAY_DRAIN", "RELAY_DRAIN_SECONDS"),
        ("relay_workers", "RELAY_WORKERS"),
        ("RELAY_JWT_FILE", "JWT_FILE"),
        ("RELAY_AGENT_ID", "AGENT_ID"),
        ("RELAY_ZZZ", None),
        ("RELAY_", None),
    ],
)
def test_an_unknown_variable_is_found_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, nearest: str | None
) -> None:
    monkeypatch.setenv(name, "secret")
    assert unknown_variables(None) == [(name, nearest)]
    monkeypatch.delenv(name)
    file = tmp_path / ".env"
    file.write_text(f"{name}=secret\n")
    assert unknown_variables(file) == [(name, nearest)]


def test_settings_empty_variables_and_those_of_other_programs_are_not_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in variables():
        monkeypatch.setenv(variable.name, "1")
    of_scripts = dict.fromkeys(("RELAY_CONTAINER_NAME", "RELAY_IMAGE_NAME", "RELAY_ENV_FILE"), "x")  # `docker run --env-file` passes them.
    for name, value in {
        **of_scripts,
        "RELAY_FAULT_POINT": "x",
        "RELAY_EMPTY": "",
        "RELAYS": "1",
        "MY_RELAY_X": "1",
        "HTTP_PROXY": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert unknown_variables(tmp_path / "absent") == []


def test_an_unknown_variable_set_in_both_places_is_named_once(monkeypatch: pytest.MonkeyPatch, env_file: Path) -> None:
    env_file.write_text("RELAY_WORKER=1\nRELAY_B=1\nAGENT_ID=x\n")
    monkeypatch.setenv("RELAY_WORKER", "2")
    assert unknown_variables(env_file) == [("RELAY_B", None), ("RELAY_WORKER", "RELAY_WORKERS")]


def test_unknown_variables_of_the_file_are_found_too(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RELAY_STATEDIR=/x\nRELAY_ZZZZ=1\nrelay_workers=3\n")
    assert unknown_variables() == [("RELAY_STATEDIR", "RELAY_STATE_DIR"), ("RELAY_ZZZZ", None), ("relay_workers", "RELAY_WORKERS")]
