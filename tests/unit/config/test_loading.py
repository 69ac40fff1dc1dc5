"""Where settings are read from: the environment and a `.env` file."""

from __future__ import annotations

import logging
from logging.handlers import BufferingHandler
from pathlib import Path

import pytest

from relay_agent.config.loading import load_route_settings
from relay_agent.core.errors import ConfigurationError
from tests.unit.config.scenes import REQUIRED, Load, Problems

# --- What is read ---


def test_the_env_file_is_read_and_the_environment_wins(load: Load, env_file: Path) -> None:
    env_file.write_text("# a comment\nexport ORG_SLUG='from-file'\nRELAY_WORKERS=3\nHTTPS_PROXY=file:1\nOTHER=x\n")
    settings = load(RELAY_WORKERS="5", ORG_SLUG=None)
    assert (settings.org_slug, settings.workers, settings.https_proxy) == ("from-file", 5, "file:1")


def test_an_empty_variable_of_the_environment_leaves_that_of_the_file(load: Load, env_file: Path) -> None:
    env_file.write_text("RELAY_WORKERS=3\n")
    assert load(RELAY_WORKERS="").workers == 3


@pytest.mark.parametrize("text", ["\ufeffORG_SLUG=windows\r\nRELAY_WORKERS=3\r\n", "ORG_SLUG=windows\nRELAY_WORKERS=3"])
def test_an_env_file_of_any_editor_is_read(load: Load, env_file: Path, text: str) -> None:
    env_file.write_bytes(text.encode())
    settings = load(ORG_SLUG=None)
    assert (settings.org_slug, settings.workers) == ("windows", 3)


def test_the_state_directory_is_beside_the_env_file_by_default(load: Load, env_file: Path) -> None:
    assert load().state_dir == Path(".relay")
    env_file.write_text("ORG_SLUG=acme\n")
    assert load().state_dir == env_file.resolve().parent / ".relay"
    assert load().token.get() == REQUIRED["JWT"]
    assert load(RELAY_STATE_DIR="/var/lib/relay-agent").state_dir == Path("/var/lib/relay-agent")


# --- Mistakes ---


def test_malformed_lines_of_the_env_file_are_named(problems: Problems, env_file: Path) -> None:
    env_file.write_text("ORG_SLUG=acme\n\nthis is canary\nRELAY_WORKERS='1\n")
    logged = BufferingHandler(1000)
    logging.getLogger().addHandler(logged)
    try:
        found = problems()
    finally:
        logging.getLogger().removeHandler(logged)
    assert [line.partition(": ")[2] for line in found] == [
        f"line {number} is malformed; expected: NAME=value, with closed quotes, if any" for number in (3, 4)
    ]
    assert "canary" not in "".join(found)
    assert not logged.buffer


def test_an_env_file_that_is_not_text_is_named(problems: Problems, env_file: Path) -> None:
    env_file.write_bytes(b"ORG_SLUG=\xff\xfe\n")
    assert problems() == [f"{env_file}: is not UTF-8 text; save it as UTF-8"]


def test_explain_needs_no_platform_settings_and_ignores_invalid_ones(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("https_proxy", "http://proxy.lab.example:3128")
    environment.setenv("RELAY_WORKERS", "many")
    environment.setenv("API_TARGET", "<placeholder>")
    environment.setenv("JWT", "no token")
    found = load_route_settings()
    assert (found.https_proxy, found.connect_timeout_seconds) == ("http://proxy.lab.example:3128", 30)


def test_explain_names_the_invalid_settings_that_it_needs(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("RELAY_CA_FILE", "/nowhere/ca.pem")
    environment.setenv("RELAY_TARGET_PROXY", "ftp://x")
    with pytest.raises(ConfigurationError) as caught:
        load_route_settings()
    assert [mistake.variable for mistake in caught.value.mistakes] == ["RELAY_TARGET_PROXY", "RELAY_CA_FILE"]
