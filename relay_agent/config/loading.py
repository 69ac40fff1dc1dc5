"""Reading settings from the environment and a `.env` file."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import SecretStr, ValidationError

from relay_agent.config.error_messages import one_each, secret_problems, unfinished_values, value_problem
from relay_agent.config.policy_file import PolicyMistakes
from relay_agent.config.secrets import SecretSource
from relay_agent.config.settings import Settings, aliases, descriptions
from relay_agent.core.errors import ConfigurationError, Mistake

FAULT_POINT = "RELAY_FAULT_POINT"
_NAME = re.compile(r"\s*(?:export\s+)?(\w+)\s*=")


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read the environment, and `.env` if it exists; the environment takes precedence.

    The state directory defaults to `.relay` beside the `.env`.

    Raises:
        ConfigurationError: with one line for each mistake, never a secret's value.
    """
    if env_file is not None and not env_file.is_file():
        env_file = None
    given, problems = given_variables(env_file)
    right = descriptions()
    settings, faults = _settings(env_file, given, right, {})
    problems += unfinished_values(given, right) + faults + secret_problems(given, right)
    if problems or settings is None:
        raise ConfigurationError(*one_each(problems, right))
    return settings


def _settings(
    env_file: Path | None, given: Mapping[str, str], right: Mapping[str, str], stand_ins: Mapping[str, Any]
) -> tuple[Settings | None, list[Mistake]]:
    """Make the settings, or return the mistakes in single values. `stand_ins`, by variable, replace what is given."""
    try:
        settings = Settings(_env_file=env_file, _env_file_encoding="utf-8-sig", **stand_ins)
    except ValidationError as error:
        # Without the input; of the context only our own exception is used.
        faults = error.errors(include_input=False, include_url=False)
        mistakes: list[Mistake] = []
        for fault in faults:
            raised = fault.get("ctx", {}).get("error")
            if isinstance(raised, PolicyMistakes):
                mistakes += raised.mistakes
            else:
                mistakes.append(value_problem(str(fault["loc"][0]), fault["type"], fault["msg"], given, right))
        return None, mistakes
    if env_file is not None and "RELAY_STATE_DIR" not in given:
        settings = settings.model_copy(update={"state_dir": env_file.resolve().parent / ".relay"})
    return settings, []


_REQUIRED = {"API_TARGET": "https://unset.invalid", "ORG_SLUG": "unset", "AGENT_ID": "00000000-0000-0000-0000-000000000000"}
"""Replaces a required setting that is missing or invalid."""
_EITHER = (frozenset({"jwt", "jwt_file"}), frozenset({"secure_command_key", "secure_command_key_file"}))
"""Two forms of one secret: if one is invalid, both are ignored."""


def load_usable_settings(env_file: Path | None = Path(".env")) -> tuple[Settings, frozenset[str]]:
    """Read the valid settings, so that `check` can still use them if others are invalid; return them and the invalid fields.

    An invalid field gets its default, or a value that no platform knows.

    Raises:
        ConfigurationError: `.env` cannot be read.
    """
    env_file = env_file if env_file is not None and env_file.is_file() else None
    given, problems = given_variables(env_file)
    right = descriptions()
    problems += unfinished_values(given, right) + _settings(env_file, given, right, {})[1] + secret_problems(given, right)
    bad = {mistake.variable for mistake in problems} | (_broken(env_file) if env_file else set())
    wrong = {name for name, info in Settings.model_fields.items() if not bad.isdisjoint(aliases(info))}
    wrong |= {name for forms in _EITHER if not wrong.isdisjoint(forms) for name in forms}
    settings, left = _settings(env_file, given, right, _stand_ins(wrong))
    if settings is None:
        raise ConfigurationError(*one_each(left, right))
    return settings, frozenset(wrong)


def _stand_ins(fields: Collection[str]) -> dict[str, Any]:
    chosen = [info for name, info in Settings.model_fields.items() if name in fields]
    return {alias: _REQUIRED.get(alias, None if info.is_required() else info.default) for info in chosen for alias in aliases(info)}


BOTH_LEGS_SETTINGS = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "ssl_cert_file", "ca_file"})
"""The settings that decide how both the platform and a target are reached."""
ROUTE_SETTINGS = BOTH_LEGS_SETTINGS | frozenset(
    {
        "target_proxy",
        "policy_file",
        "admin_addr",
        "connect_timeout_seconds",
        "request_timeout_seconds",
        "max_response_bytes",
    }
)
"""The settings that decide how a target is called."""


def load_route_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read only the settings that decide how a target is called; all others get stand-ins.

    Raises:
        ConfigurationError: with one line for each mistake in these, never a secret's value.
    """
    env_file = env_file if env_file is not None and env_file.is_file() else None
    given, problems = given_variables(env_file)
    ours = {alias for name, info in Settings.model_fields.items() if name in ROUTE_SETTINGS for alias in aliases(info)}
    right = {name: takes for name, takes in descriptions().items() if name in ours}
    others = Settings.model_fields.keys() - ROUTE_SETTINGS
    settings, faults = _settings(env_file, given, right, _stand_ins(others))
    problems += unfinished_values(given, right) + faults
    if problems or settings is None:
        raise ConfigurationError(*one_each(problems, right))
    return settings


def debugging() -> bool:
    """Whether RELAY_LOG_LEVEL asks for details of an unexpected error, even if other settings are invalid."""
    return os.environ.get("RELAY_LOG_LEVEL", "").strip().lower() == "debug"


def given_variables(env_file: Path | None) -> tuple[dict[str, str], list[Mistake]]:
    """Collect the variables that are set, unchecked, and a mistake for each malformed line of `.env`."""
    if env_file is None:
        return not_empty(os.environ), []
    try:
        text = env_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(Mistake(str(env_file), "is not UTF-8 text; save it as UTF-8")) from None
    except OSError as error:
        raise ConfigurationError(Mistake(str(env_file), f"cannot be read ({error.strerror}); make it readable for the agent")) from None
    # Its own warnings would repeat what is reported here, at every read.
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)
    values = not_empty(dotenv_values(stream=io.StringIO(text)))
    return values | not_empty(os.environ), [
        Mistake(str(env_file), f"line {line} is malformed; expected: NAME=value, with closed quotes, if any") for line in _bad_lines(text)
    ]


def not_empty(values: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables with a value, without white space around it."""
    return {name: value.strip() for name, value in values.items() if value and value.strip()}


def _bad_lines(text: str) -> list[int]:
    # A binding that could not be parsed includes the blank lines before it.
    bad = [binding.original for binding in parse_stream(io.StringIO(text)) if binding.error]
    return [part.line + part.string[: len(part.string) - len(part.string.lstrip())].count("\n") for part in bad]


def _broken(env_file: Path) -> set[str]:
    """Return the names in the malformed lines of `.env`."""
    lines = (binding.original.string for binding in parse_stream(io.StringIO(env_file.read_text(encoding="utf-8-sig"))) if binding.error)
    return {found.group(1) for line in lines if (found := _NAME.match(line))}


def fault_point() -> str | None:
    """Return the point at which a test of the agent wants the process to die (`failpoints`); not a setting, and never read from `.env`."""
    return os.environ.get(FAULT_POINT) or None


def as_far_as_possible(env_file: Path | None) -> tuple[dict[str, str], list[dict[str, str | None]]]:
    """Return the variables that can be read, and the reasons why others cannot; bytes that are not UTF-8 are replaced."""
    env_file = env_file if env_file is not None and env_file.is_file() else None
    try:
        return given_variables(env_file)[0], []
    except ConfigurationError as error:
        trouble: list[dict[str, str | None]] = [{"name": mistake.variable, "value": mistake.text} for mistake in error.mistakes]
    try:
        text = env_file.read_bytes().decode("utf-8-sig", "replace") if env_file else ""
    except OSError:
        text = ""
    return not_empty(dotenv_values(stream=io.StringIO(text))) | not_empty(os.environ), trouble


def state_directory(env_file: Path | None = Path(".env"), *, strict: bool = True) -> Path:
    """Return the state directory, even if other settings are invalid: all that `status` and `commands` need.

    If not `strict`, uses as much of a broken `.env` as can be read.

    Raises:
        ConfigurationError: `.env` cannot be read.
    """
    env_file = env_file if env_file is not None and env_file.is_file() else None
    given = given_variables(env_file)[0] if strict else as_far_as_possible(env_file)[0]
    beside = Path() if env_file is None else env_file.resolve().parent
    return Path(given["RELAY_STATE_DIR"]) if "RELAY_STATE_DIR" in given else beside / ".relay"


def load_keyring_text(env_file: Path | None = Path(".env")) -> tuple[str | None, str | None]:
    """Read only the secure commands' keys and AGENT_ID, each None if unset: all that `encrypt` and `decrypt` need.

    Raises:
        ConfigurationError: with one line for each mistake in these, never a secret's value.
    """
    given, problems = given_variables(env_file if env_file is not None and env_file.is_file() else None)
    right = {name: takes for name, takes in descriptions().items() if name == "AGENT_ID" or name.startswith("SECURE_COMMAND_KEY")}
    problems += unfinished_values(given, right)
    problems += [mistake for mistake in secret_problems(given, descriptions()) if mistake.variable.startswith("SECURE_COMMAND_KEY")]
    if problems:
        raise ConfigurationError(*one_each(problems, right))
    key, file = given.get("SECURE_COMMAND_KEY"), given.get("SECURE_COMMAND_KEY_FILE")
    source = SecretSource(SecretStr(key) if key else None, Path(file) if file else None)
    return source.get() or None, given.get("AGENT_ID")
