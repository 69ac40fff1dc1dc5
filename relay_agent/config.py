"""Settings: each environment variable, its type, its bounds and what right looks like.

This room is the only reader of `os.environ` and `.env`. It must not send anything: a token is looked
at, never checked with the platform.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from relay_agent.config_problems import left_standing, one_each, secret_problems, value_problem
from relay_agent.config_values import (
    check_certificates,
    check_identifier,
    check_number,
    check_plain_url,
    check_proxy,
    listen_address,
)
from relay_agent.errors import ConfigurationError, Mistake
from relay_agent.proxy_url import parse_proxy
from relay_agent.secrets_source import SecretSource, check_token, parse_key, parse_keys, shown_path, token_expiry

__all__ = [
    "WAY_SETTINGS",
    "SecretSource",
    "Settings",
    "Variable",
    "check_token",
    "debugging",
    "fault_point",
    "load_keyring_text",
    "load_settings",
    "load_usable_settings",
    "load_way_settings",
    "masked",
    "parse_key",
    "parse_keys",
    "secret_values",
    "state_directory",
    "token_expiry",
    "unknown_variables",
    "variables",
]

_PROXY = "e.g. http://proxy.lab.example:3128; user and password in it percent-encoded"
_PREFIX = "RELAY_"
_FAULT_POINT = "RELAY_FAULT_POINT"
_NAME = re.compile(r"\s*(?:export\s+)?(\w+)\s*=")
_SPAN = "a number of seconds from {} to {}: "


Whole = Annotated[int, BeforeValidator(check_number)]
Seconds = Annotated[float, BeforeValidator(check_number)]
Bytes = Annotated[Whole, Field(ge=1024)]


class Settings(BaseSettings):
    """Everything the agent can be told. An empty value is an unset one."""

    model_config = SettingsConfigDict(
        env_file=None, case_sensitive=True, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True, frozen=True
    )

    api_target: str = Field(validation_alias="API_TARGET", description="the platform's address, e.g. https://api.tetrascience.com")
    org_slug: str = Field(validation_alias="ORG_SLUG", description="the organisation's short name, e.g. acme-labs")
    agent_id: str = Field(
        validation_alias="AGENT_ID", description="the agent's id on the Agents page, e.g. 9b9f275c-a60d-454f-8c6c-1ea094e3fd38"
    )
    jwt: SecretStr | None = Field(None, validation_alias="JWT", description="the token of the platform's service user")
    jwt_file: Path | None = Field(
        None, validation_alias="JWT_FILE", description="a readable file that holds the token, in place of JWT; a changed one is read again"
    )
    secure_command_key: SecretStr | None = Field(
        None,
        validation_alias="SECURE_COMMAND_KEY",
        description="32 bytes as base64, base64url or 64 hex digits; several with commas between them, the first for new messages",
    )
    secure_command_key_file: Path | None = Field(
        None,
        validation_alias="SECURE_COMMAND_KEY_FILE",
        description="a readable file that holds the key, in place of SECURE_COMMAND_KEY; a changed one is read again",
    )

    http_proxy: str | None = Field(
        None,
        repr=False,
        validation_alias=AliasChoices("http_proxy", "HTTP_PROXY"),
        description=f"the proxy for http URLs, {_PROXY}",
    )
    https_proxy: str | None = Field(
        None,
        repr=False,
        validation_alias=AliasChoices("https_proxy", "HTTPS_PROXY"),
        description=f"the proxy for https URLs, {_PROXY}",
    )
    all_proxy: str | None = Field(
        None,
        repr=False,
        validation_alias=AliasChoices("all_proxy", "ALL_PROXY"),
        description="the proxy where neither of the two is set, e.g. socks5h://proxy.lab.example:1080",
    )
    no_proxy: str | None = Field(
        None,
        validation_alias=AliasChoices("no_proxy", "NO_PROXY"),
        description="what is reached without a proxy: names, host:port, addresses, subnets, *; e.g. localhost,.lab.example,10.0.0.0/8",
    )
    platform_proxy: str | None = Field(
        None,
        repr=False,
        validation_alias="RELAY_PLATFORM_PROXY",
        description="a proxy URL, or none: for calls to the platform, in place of the shared ones",
    )
    target_proxy: str | None = Field(
        None,
        repr=False,
        validation_alias="RELAY_TARGET_PROXY",
        description="a proxy URL, or none: for calls to targets, in place of the shared ones",
    )
    requests_ca_bundle: Path | None = Field(
        None, validation_alias="REQUESTS_CA_BUNDLE", description="a PEM file of trusted roots, in place of certifi's"
    )
    ssl_cert_file: Path | None = Field(
        None, validation_alias="SSL_CERT_FILE", description="a PEM file of trusted roots, where REQUESTS_CA_BUNDLE is not set"
    )
    ca_file: Path | None = Field(
        None, validation_alias="RELAY_CA_FILE", description="a PEM file of roots trusted in addition, e.g. of a proxy that re-signs TLS"
    )
    aws_endpoint_url: str | None = Field(
        None, validation_alias="AWS_ENDPOINT_URL", description="an AWS emulator's address, e.g. http://127.0.0.1:4566"
    )

    workers: Whole = Field(
        16, ge=1, le=256, validation_alias="RELAY_WORKERS", description="a whole number from 1 to 256: requests under way at the same time"
    )
    queue_size: Whole = Field(
        1000,
        ge=10,
        le=100_000,
        validation_alias="RELAY_QUEUE_SIZE",
        description="a whole number from 10 to 100000: commands that may wait for a worker",
    )
    state_dir: Path = Field(
        Path(".relay"), validation_alias="RELAY_STATE_DIR", description="a directory that the agent may write, e.g. /var/lib/relay-agent"
    )
    admin_addr: str = Field(
        "127.0.0.1:8089", validation_alias="RELAY_ADMIN_ADDR", description="host:port, or off: where health, metrics and status are served"
    )
    drain_seconds: Seconds = Field(
        25, ge=0, le=3600, validation_alias="RELAY_DRAIN_SECONDS", description=_SPAN.format(0, 3600) + "how long a stop may take"
    )
    config_refresh_seconds: Seconds = Field(
        300,
        ge=1,
        le=3600,
        validation_alias="RELAY_CONFIG_REFRESH_SECONDS",
        description=_SPAN.format(1, 3600) + "the time between two readings of the agent's configuration",
    )
    heartbeat_seconds: Seconds = Field(
        30,
        ge=1,
        le=60,
        validation_alias="RELAY_HEARTBEAT_SECONDS",
        description=_SPAN.format(1, 60) + "the time between two heartbeats",
    )
    metrics_seconds: Seconds = Field(
        300,
        ge=1,
        le=3600,
        validation_alias="RELAY_METRICS_SECONDS",
        description=_SPAN.format(1, 3600) + "the time between two uploads of system metrics",
    )
    connect_timeout_seconds: Seconds = Field(
        30,
        ge=1,
        le=600,
        validation_alias="RELAY_CONNECT_TIMEOUT_SECONDS",
        description=_SPAN.format(1, 600) + "how long a connection to a target may take to open",
    )
    request_timeout_seconds: Seconds = Field(
        900,
        ge=1,
        le=86_400,
        validation_alias="RELAY_REQUEST_TIMEOUT_SECONDS",
        description=_SPAN.format(1, 86400) + "the limit for a command that gives neither timeout nor expiresAt",
    )
    max_response_bytes: Bytes = Field(
        100_000_000,
        validation_alias="RELAY_MAX_RESPONSE_BYTES",
        description="a whole number of bytes, at least 1024: the largest response that is relayed, after decoding",
    )
    max_request_bytes: Bytes = Field(
        16_000_000,
        validation_alias="RELAY_MAX_REQUEST_BYTES",
        description="a whole number of bytes, at least 1024: the largest command body that is taken",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias="RELAY_LOG_LEVEL", description="debug, info, warning or error"
    )

    _sources: tuple[SecretSource, SecretSource]

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, given: Any) -> Any:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
        return {name: value for name, value in stripped.items() if value not in ("", None)}

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("api_target")
    @classmethod
    def _base_url(cls, value: str) -> str:
        return check_plain_url(value).removesuffix("/v1").rstrip("/")

    @field_validator("aws_endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        return value and check_plain_url(value)

    @field_validator("org_slug", "agent_id")
    @classmethod
    def _identifier(cls, value: str) -> str:
        return check_identifier(value)

    @field_validator("admin_addr")
    @classmethod
    def _address(cls, value: str) -> str:
        if value.lower() == "off":
            return "off"
        listen_address(value)
        return value

    @field_validator("http_proxy", "https_proxy", "all_proxy", "platform_proxy", "target_proxy")
    @classmethod
    def _proxy(cls, value: str | None) -> str | None:
        return value and check_proxy(value)

    @field_validator("requests_ca_bundle", "ssl_cert_file", "ca_file")
    @classmethod
    def _pem(cls, value: Path | None) -> Path | None:
        return value and check_certificates(value)

    def model_post_init(self, context: Any, /) -> None:
        """Make the two secret sources, which remember what they last read."""
        self._sources = (
            SecretSource(self.jwt, self.jwt_file),
            SecretSource(self.secure_command_key, self.secure_command_key_file),
        )

    @property
    def token(self) -> SecretSource:
        """The JWT, from wherever it is given."""
        return self._sources[0]

    @property
    def secure_key(self) -> SecretSource:
        """The secure commands' keys, from wherever they are given."""
        return self._sources[1]

    @property
    def ca_bundle(self) -> Path | None:
        """The roots in place of certifi's, where given (SECURITY §1)."""
        return self.requests_ca_bundle or self.ssl_cert_file

    @property
    def admin_endpoint(self) -> tuple[str, int] | None:
        """Host (IPv6 without brackets) and port of the admin pages, None where TCP is off (OPERATIONS §3)."""
        return None if self.admin_addr == "off" else listen_address(self.admin_addr)


class Variable(NamedTuple):
    """One row of the configuration table: `default` is "required", or empty where there is none."""

    name: str
    default: str
    description: str


def variables() -> list[Variable]:
    """List every variable with its default and what it takes, in the order in which they are documented."""
    return [Variable(_aliases(info)[0], _default(name, info), info.description or "") for name, info in Settings.model_fields.items()]


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read the environment, and `.env` where it exists; the environment wins.

    Without RELAY_STATE_DIR the state lies in `.relay` beside the `.env`.

    Raises:
        ConfigurationError: with one line for each mistake, never a secret's value.
    """
    if env_file is not None and not env_file.is_file():
        env_file = None
    given, problems = _given(env_file)
    right = _descriptions()
    settings, faults = _settings(env_file, given, right, {})
    problems += left_standing(given, right) + faults + secret_problems(given, right)
    if problems or settings is None:
        raise ConfigurationError(*one_each(problems, right))
    return settings


def _settings(
    env_file: Path | None, given: Mapping[str, str], right: Mapping[str, str], stand_ins: Mapping[str, Any]
) -> tuple[Settings | None, list[Mistake]]:
    """Make the settings, or say what is wrong with single values. `stand_ins`, by variable, win over what is given."""
    try:
        settings = Settings(_env_file=env_file, _env_file_encoding="utf-8-sig", **stand_ins)
    except ValidationError as error:
        # Locations and messages only: a pydantic error carries the input.
        faults = error.errors(include_input=False, include_context=False, include_url=False)
        return None, [value_problem(str(fault["loc"][0]), fault["type"], fault["msg"], given, right) for fault in faults]
    if env_file is not None and "RELAY_STATE_DIR" not in given:
        settings = settings.model_copy(update={"state_dir": env_file.resolve().parent / ".relay"})
    return settings, []


_REQUIRED = {"API_TARGET": "https://unset.invalid", "ORG_SLUG": "unset", "AGENT_ID": "00000000-0000-0000-0000-000000000000"}
"""What stands in for a setting that is missing or wrong and has no default."""
_EITHER = (frozenset({"jwt", "jwt_file"}), frozenset({"secure_command_key", "secure_command_key_file"}))
"""Two forms of one secret: where one is wrong, there is none."""


def load_usable_settings(env_file: Path | None = Path(".env")) -> tuple[Settings, frozenset[str]]:
    """Read what is right of the settings, whatever else is wrong: what `check` can still look at with them.

    Of what is wrong the fields are named, and stand-ins given: the default, or something that no platform knows.

    Raises:
        ConfigurationError: `.env` cannot be read, so that nothing is known.
    """
    env_file = env_file if env_file is not None and env_file.is_file() else None
    given, problems = _given(env_file)
    right = _descriptions()
    problems += left_standing(given, right) + _settings(env_file, given, right, {})[1] + secret_problems(given, right)
    bad = {mistake.variable for mistake in problems} | (_broken(env_file) if env_file else set())
    wrong = {name for name, info in Settings.model_fields.items() if not bad.isdisjoint(_aliases(info))}
    wrong |= {name for forms in _EITHER if not wrong.isdisjoint(forms) for name in forms}
    settings, left = _settings(env_file, given, right, _stand_ins(wrong))
    if settings is None:
        raise ConfigurationError(*one_each(left, right))
    return settings, frozenset(wrong)


def _stand_ins(fields: Collection[str]) -> dict[str, Any]:
    chosen = [info for name, info in Settings.model_fields.items() if name in fields]
    return {alias: _REQUIRED.get(alias, None if info.is_required() else info.default) for info in chosen for alias in _aliases(info)}


WAY_SETTINGS = frozenset(
    {
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "target_proxy",
        "requests_ca_bundle",
        "ssl_cert_file",
        "ca_file",
        "admin_addr",
        "connect_timeout_seconds",
        "request_timeout_seconds",
        "max_response_bytes",
    }
)
"""What decides how a target is called."""


def load_way_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read only the settings that decide how a target is called; of the others, the platform's too, stand-ins are given.

    Raises:
        ConfigurationError: with one line for each mistake in these, never a secret's value.
    """
    env_file = env_file if env_file is not None and env_file.is_file() else None
    given, problems = _given(env_file)
    ours = {alias for name, info in Settings.model_fields.items() if name in WAY_SETTINGS for alias in _aliases(info)}
    right = {name: takes for name, takes in _descriptions().items() if name in ours}
    others = Settings.model_fields.keys() - WAY_SETTINGS
    settings, faults = _settings(env_file, given, right, _stand_ins(others))
    problems += left_standing(given, right) + faults
    if problems or settings is None:
        raise ConfigurationError(*one_each(problems, right))
    return settings


def debugging() -> bool:
    """Whether RELAY_LOG_LEVEL asks for details of an error that nobody foresaw, whatever else is wrong with the settings."""
    return os.environ.get("RELAY_LOG_LEVEL", "").strip().lower() == "debug"


def _given(env_file: Path | None) -> tuple[dict[str, str], list[Mistake]]:
    """Collect what is set, before any judgement, and name the lines of `.env` that set nothing."""
    if env_file is None:
        return _set(os.environ), []
    try:
        text = env_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(Mistake(str(env_file), "is not UTF-8 text; save it as UTF-8")) from None
    except OSError as error:
        raise ConfigurationError(Mistake(str(env_file), f"cannot be read ({error.strerror}); make it readable for the agent")) from None
    # It would warn of the lines that are told here, on its own and each time it reads.
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)
    values = _set(dotenv_values(stream=io.StringIO(text)))
    return values | _set(os.environ), [
        Mistake(str(env_file), f"line {line} is not NAME=value with closed quotes") for line in _bad_lines(text)
    ]


def _set(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value.strip() for name, value in values.items() if value and value.strip()}


def _bad_lines(text: str) -> list[int]:
    # What could not be parsed begins with the blank lines before it.
    bad = [binding.original for binding in parse_stream(io.StringIO(text)) if binding.error]
    return [part.line + part.string[: len(part.string) - len(part.string.lstrip())].count("\n") for part in bad]


def _broken(env_file: Path) -> set[str]:
    """The names of what stands in lines of `.env` that set nothing."""
    lines = (binding.original.string for binding in parse_stream(io.StringIO(env_file.read_text(encoding="utf-8-sig"))) if binding.error)
    return {found.group(1) for line in lines if (found := _NAME.match(line))}


def _aliases(info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


def _default(name: str, info: FieldInfo) -> str:
    if info.is_required() or name == "jwt":
        return "required"
    return "" if info.default is None else str(info.default)


def _descriptions() -> dict[str, str]:
    return {alias: info.description or "" for info in Settings.model_fields.values() for alias in _aliases(info)}


def unknown_variables(env_file: Path | None = Path(".env")) -> list[tuple[str, str | None]]:
    """Find the variables that look like settings and are none, each with the nearest known name, None where none is near.

    Whatever begins with RELAY_, in whichever case, is looked at, in the environment and in `.env`; an empty value is an
    unset one. No value is given: it may be a secret under a wrong name.

    Of a `.env` that cannot be read nothing is found: that is told where the settings are loaded.
    """
    try:
        given, _ = _given(env_file if env_file is not None and env_file.is_file() else None)
    except ConfigurationError:
        given = _set(os.environ)
    known = [*_descriptions(), _FAULT_POINT]
    return [(name, _nearest(name, known)) for name in sorted(given) if name.upper().startswith(_PREFIX) and name not in known]


def _nearest(name: str, known: list[str]) -> str | None:
    """The known name that is most like it; what all of ours begin with makes no likeness."""
    tails = {other.upper().removeprefix(_PREFIX): other for other in known if other != _FAULT_POINT}
    near = difflib.get_close_matches(name.upper().removeprefix(_PREFIX), list(tails), n=1, cutoff=0.5)
    return tails[near[0]] if near else None


def fault_point() -> str | None:
    """Read where the agent's own tests want the process to die (`faultpoints`); no setting, and never in `.env`."""
    return os.environ.get(_FAULT_POINT) or None


def masked(env_file: Path | None = Path(".env")) -> list[dict[str, str | None]]:
    """List every variable with what it is set to, None where it is not; of a secret only that it is, a proxy without its password.

    Of a `.env` that cannot be read, or only in part, that is said first.
    """
    given, found = _as_far_as_possible(env_file)
    for info in Settings.model_fields.values():
        name = next((alias for alias in _aliases(info) if alias in given), _aliases(info)[0])
        value = given.get(name)
        if value is not None and info.annotation == SecretStr | None:
            value = "set, and not shown"
        elif value is not None and "proxy" in name.lower() and name.lower() != "no_proxy":
            value = _masked_proxy(value)
        elif value is not None and ("@" in value or "?" in value or shown_path(value) != value):
            value = "set, and not shown: it holds more than it should"
        found.append({"name": name, "value": value})
    return found


def _as_far_as_possible(env_file: Path | None) -> tuple[dict[str, str], list[dict[str, str | None]]]:
    """What is set, and what kept some of it from being read; what is no UTF-8 is mostly a comment."""
    env_file = env_file if env_file is not None and env_file.is_file() else None
    try:
        return _given(env_file)[0], []
    except ConfigurationError as error:
        trouble: list[dict[str, str | None]] = [{"name": mistake.variable, "value": mistake.text} for mistake in error.mistakes]
    try:
        text = env_file.read_bytes().decode("utf-8-sig", "replace") if env_file else ""
    except OSError:
        text = ""
    return _set(dotenv_values(stream=io.StringIO(text))) | _set(os.environ), trouble


def secret_values(env_file: Path | None = Path(".env")) -> tuple[list[str], list[str]]:
    """Give the secrets that are set, right or wrong, from their files too, and the proxies' URLs: what no text may show."""
    given, _ = _as_far_as_possible(env_file)
    secrets = [given[name] for name in ("JWT", "SECURE_COMMAND_KEY") if name in given]
    for path in (given[name] for name in ("JWT_FILE", "SECURE_COMMAND_KEY_FILE") if name in given):
        secrets += [] if shown_path(path) == path else [path]
        with contextlib.suppress(OSError):
            secrets.append(SecretSource(path=Path(path)).get())
    return secrets, [value for name, value in given.items() if name.lower().endswith("_proxy") and name.lower() != "no_proxy"]


def _masked_proxy(value: str) -> str:
    try:
        return parse_proxy(value).masked
    except ValueError:
        return value if value == "none" else "set, and no proxy's URL"


def state_directory(env_file: Path | None = Path(".env"), *, strict: bool = True) -> Path:
    """Say which state directory the settings name, whatever else is wrong with them: what `status` and `commands` need.

    Not `strict`, a `.env` that cannot be read is taken for as much as can be.

    Raises:
        ConfigurationError: `.env` cannot be read.
    """
    env_file = env_file if env_file is not None and env_file.is_file() else None
    given = _given(env_file)[0] if strict else _as_far_as_possible(env_file)[0]
    beside = Path() if env_file is None else env_file.resolve().parent
    return Path(given["RELAY_STATE_DIR"]) if "RELAY_STATE_DIR" in given else beside / ".relay"


def load_keyring_text(env_file: Path | None = Path(".env")) -> tuple[str | None, str | None]:
    """Read only the secure commands' keys and AGENT_ID, each None where it is not set: what `encrypt` and `decrypt` need.

    Raises:
        ConfigurationError: with one line for each mistake in these, never a secret's value.
    """
    given, problems = _given(env_file if env_file is not None and env_file.is_file() else None)
    right = {name: takes for name, takes in _descriptions().items() if name == "AGENT_ID" or name.startswith("SECURE_COMMAND_KEY")}
    problems += left_standing(given, right)
    problems += [mistake for mistake in secret_problems(given, _descriptions()) if mistake.variable.startswith("SECURE_COMMAND_KEY")]
    if problems:
        raise ConfigurationError(*one_each(problems, right))
    key, file = given.get("SECURE_COMMAND_KEY"), given.get("SECURE_COMMAND_KEY_FILE")
    source = SecretSource(SecretStr(key) if key else None, Path(file) if file else None)
    return source.get() or None, given.get("AGENT_ID")
