"""What of the settings may be shown to a person: masked values, unknown variables."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pydantic import SecretStr

from relay_agent.config.loading import FAULT_POINT, as_far_as_possible, given_variables, not_empty
from relay_agent.config.misspelling import nearest
from relay_agent.config.policy_file import load_policy
from relay_agent.config.secrets import SecretSource, looks_secret, shown_path
from relay_agent.config.settings import PREFIX, Settings, aliases, descriptions
from relay_agent.core.errors import ConfigurationError
from relay_agent.telemetry.redaction import Redactor, proxy_secrets
from relay_agent.transport.proxy import parse_proxy

_OF_THE_SCRIPTS = frozenset({"RELAY_CONTAINER_NAME", "RELAY_IMAGE_NAME", "RELAY_ENV_FILE"})
"""What only run.sh and verify.sh read. `docker run --env-file`, compose and systemd pass it to the agent if agent.env has it."""


def unknown_variables(env_file: Path | None = Path(".env")) -> list[tuple[str, str | None]]:
    """Find variables that look like settings but are not, each with the most similar known name (None if there is none).

    Looks at every name that begins with RELAY_, in upper or lower case, in the environment and in `.env`; an empty value counts as unset.
    Returns no values, since one may be a secret under a wrong name. Ignores a `.env` that cannot be read; loading the settings reports it.
    """
    try:
        given, _ = given_variables(env_file if env_file is not None and env_file.is_file() else None)
    except ConfigurationError:
        given = not_empty(os.environ)
    known = [*descriptions(), FAULT_POINT]
    ignored = {*known, *_OF_THE_SCRIPTS}
    return [(name, _nearest(name, known)) for name in sorted(given) if name.upper().startswith(PREFIX) and name not in ignored]


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the most similar known name; the common prefix does not count."""
    tails = {other.upper().removeprefix(PREFIX): other for other in known if other != FAULT_POINT}
    near = nearest(name.upper().removeprefix(PREFIX), tails)
    return None if near is None else tails[near]


def masked(env_file: Path | None = Path(".env")) -> list[dict[str, str | None]]:
    """List every variable with its value, None if unset: a secret's value is replaced, a proxy's password masked.

    If `.env` cannot be read, or only in part, the first entries say so.
    """
    given, found = as_far_as_possible(env_file)
    for info in Settings.model_fields.values():
        name = next((alias for alias in aliases(info) if alias in given), aliases(info)[0])
        value = given.get(name)
        if value is not None and info.annotation == SecretStr | None:
            value = "set (not shown)"
        elif value is not None and "proxy" in name.lower() and name.lower() != "no_proxy":
            value = _masked_proxy(value)
        elif value is not None and ("@" in value or "?" in value or looks_secret(value)):
            value = "set (not shown, since it may contain a secret)"
        found.append({"name": name, "value": value})
    return found


def secret_values(env_file: Path | None = Path(".env")) -> tuple[list[str], list[str]]:
    """Return what no text may show: the secrets that are set, valid or not, also from their files, and the proxies' URLs."""
    given, _ = as_far_as_possible(env_file)
    secrets = [given[name] for name in ("JWT", "SECURE_COMMAND_KEY") if name in given]
    for path in (given[name] for name in ("JWT_FILE", "SECURE_COMMAND_KEY_FILE") if name in given):
        secrets += [] if shown_path(path) == path else [path]
        with contextlib.suppress(OSError):
            secrets.append(SecretSource(path=Path(path)).get())
    if "RELAY_POLICY_FILE" in given:
        with contextlib.suppress(ConfigurationError):
            secrets += load_policy(Path(given["RELAY_POLICY_FILE"])).secrets
    return secrets, [value for name, value in given.items() if name.lower().endswith("_proxy") and name.lower() != "no_proxy"]


def redactor_of(env_file: Path | None = Path(".env")) -> Redactor:
    """Return a redactor for the settings' secrets, valid or not, as far as they can be read."""
    secrets, proxies = secret_values(env_file)
    redactor = Redactor(part for secret in secrets for part in (secret, *secret.split(",")))
    for proxy in proxies:
        redactor.add(*proxy_secrets(proxy))
    return redactor


def _masked_proxy(value: str) -> str:
    try:
        return parse_proxy(value).masked
    except ValueError:
        return value if value == "none" else "set (not shown, since it is not a valid proxy URL)"
