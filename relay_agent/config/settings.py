"""Settings: each environment variable, its type, its bounds and its description.

It must not send anything: the form of a token is checked here, whether the platform accepts it is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from relay_agent.config.policy_file import check_policy
from relay_agent.config.policy_tls import BaseTrust
from relay_agent.config.secrets import SecretSource
from relay_agent.config.validators import (
    LEAST_BYTES,
    MOST_BYTES,
    check_certificates,
    check_identifier,
    check_number,
    check_plain_url,
    check_proxy,
    check_truth,
    listen_address,
    syslog_receiver,
)
from relay_agent.core.models import SyslogReceiver

_PROXY = "e.g. http://proxy.lab.example:3128; user and password in it percent-encoded"
PREFIX = "RELAY_"
_SPAN = "a number of seconds from {} to {}: "
Whole = Annotated[int, BeforeValidator(check_number)]
Seconds = Annotated[float, BeforeValidator(check_number)]
Bytes = Annotated[Whole, Field(ge=LEAST_BYTES, le=MOST_BYTES)]


class Settings(BaseSettings):
    """Every setting of the agent. An empty value counts as unset."""

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
        None,
        validation_alias="JWT_FILE",
        description="a readable file that contains the token, instead of JWT; it is reread when it changes",
    )
    secure_command_key: SecretStr | None = Field(
        None,
        validation_alias="SECURE_COMMAND_KEY",
        description="32 bytes as base64, base64url or 64 hex digits; several keys separated by commas, the first encrypts new messages",
    )
    secure_command_key_file: Path | None = Field(
        None,
        validation_alias="SECURE_COMMAND_KEY_FILE",
        description="a readable file that contains the key, instead of SECURE_COMMAND_KEY; it is reread when it changes",
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
        description="the proxy if http_proxy or https_proxy is not set, e.g. socks5h://proxy.lab.example:1080",
    )
    no_proxy: str | None = Field(
        None,
        validation_alias=AliasChoices("no_proxy", "NO_PROXY"),
        description="hosts to reach without a proxy: names, host:port, addresses, subnets, *; e.g. localhost,.lab.example,10.0.0.0/8",
    )
    platform_proxy: str | None = Field(
        None,
        repr=False,
        validation_alias="RELAY_PLATFORM_PROXY",
        description="a proxy URL, or none: for calls to the platform, instead of the shared proxies",
    )
    target_proxy: str | None = Field(
        None,
        repr=False,
        validation_alias="RELAY_TARGET_PROXY",
        description="a proxy URL, or none: for calls to targets, instead of the shared proxies",
    )
    requests_ca_bundle: Path | None = Field(
        None, validation_alias="REQUESTS_CA_BUNDLE", description="a PEM file of trusted roots, instead of certifi's"
    )
    ssl_cert_file: Path | None = Field(
        None, validation_alias="SSL_CERT_FILE", description="a PEM file of trusted roots, if REQUESTS_CA_BUNDLE is not set"
    )
    ca_file: Path | None = Field(
        None, validation_alias="RELAY_CA_FILE", description="a PEM file of roots trusted in addition, e.g. of a proxy that re-signs TLS"
    )
    policy_file: Path | None = Field(
        None,
        validation_alias="RELAY_POLICY_FILE",
        description="a TOML file that says which targets may be called, and how (docs/policy.md); it is reread when it changes",
    )
    aws_endpoint_url: str | None = Field(
        None, validation_alias="AWS_ENDPOINT_URL", description="an AWS emulator's address, e.g. http://127.0.0.1:4566"
    )

    workers: Whole = Field(
        16,
        ge=1,
        le=256,
        validation_alias="RELAY_WORKERS",
        description="a whole number from 1 to 256: the requests that may run at the same time",
    )
    queue_size: Whole = Field(
        1000,
        ge=10,
        le=100_000,
        validation_alias="RELAY_QUEUE_SIZE",
        description="a whole number from 10 to 100000: the commands that may wait for a worker",
    )
    lease_seconds: Whole = Field(
        60,
        ge=5,
        le=3600,
        validation_alias="RELAY_LEASE_SECONDS",
        description="a whole number of seconds from 5 to 3600: how long SQS waits before it delivers again what a dead agent had received",
    )
    shared_queue: bool = Field(
        False,
        validation_alias="RELAY_SHARED_QUEUE",
        description="true or false: whether several agents with this AGENT_ID receive from the same queue",
    )
    state_dir: Path = Field(
        Path(".relay"), validation_alias="RELAY_STATE_DIR", description="a directory that the agent may write, e.g. /var/lib/relay-agent"
    )
    admin_addr: str = Field(
        "127.0.0.1:8089",
        validation_alias="RELAY_ADMIN_ADDR",
        description="host:port, or off: where the status page, health and metrics are served",
    )
    drain_seconds: Seconds = Field(
        25, ge=0, le=3600, validation_alias="RELAY_DRAIN_SECONDS", description=_SPAN.format(0, 3600) + "how long a stop may take"
    )
    config_refresh_seconds: Seconds = Field(
        300,
        ge=1,
        le=3600,
        validation_alias="RELAY_CONFIG_REFRESH_SECONDS",
        description=_SPAN.format(1, 3600) + "the time between two reads of the agent's configuration",
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
        description="a whole number of bytes, 1024 to 10^12: the largest response to relay, after decoding",
    )
    max_request_bytes: Bytes = Field(
        16_000_000,
        validation_alias="RELAY_MAX_REQUEST_BYTES",
        description="a whole number of bytes, 1024 to 10^12: the largest command body to accept",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias="RELAY_LOG_LEVEL", description="debug, info, warning or error"
    )
    log_syslog: str | None = Field(
        None,
        validation_alias="RELAY_LOG_SYSLOG",
        description="udp://, tcp:// or tls:// with host:port: a syslog receiver (RFC 5424) that gets every log line too,"
        " e.g. tls://logs.lab.example:6514",
    )

    @field_validator("shared_queue", mode="before")
    @classmethod
    def _truth(cls, value: object) -> object:
        return check_truth(value)

    _sources: tuple[SecretSource, SecretSource]
    _trust: BaseTrust

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

    @field_validator("log_syslog")
    @classmethod
    def _receiver(cls, value: str | None) -> str | None:
        return value and str(syslog_receiver(value))

    @property
    def proxy_urls(self) -> tuple[str | None, ...]:
        """The URLs of all proxies, with their passwords; None where one is not set."""
        return self.http_proxy, self.https_proxy, self.all_proxy, self.platform_proxy, self.target_proxy

    @field_validator("http_proxy", "https_proxy", "all_proxy", "platform_proxy", "target_proxy")
    @classmethod
    def _proxy(cls, value: str | None) -> str | None:
        return value and check_proxy(value)

    @field_validator("requests_ca_bundle", "ssl_cert_file", "ca_file")
    @classmethod
    def _pem(cls, value: Path | None) -> Path | None:
        return value and check_certificates(value)

    @field_validator("policy_file")
    @classmethod
    def _policy(cls, value: Path | None) -> Path | None:
        return value and check_policy(value)

    def model_post_init(self, context: Any, /) -> None:
        """Create the two secret sources, which remember what they last read, and the roots, which are read once."""
        self._sources = (
            SecretSource(self.jwt, self.jwt_file),
            SecretSource(self.secure_command_key, self.secure_command_key_file),
        )
        self._trust = BaseTrust(self.ca_bundle, self.ca_file, self._roots_in_words())

    @property
    def token(self) -> SecretSource:
        """The JWT, from JWT or JWT_FILE."""
        return self._sources[0]

    @property
    def secure_key(self) -> SecretSource:
        """The secure commands' keys, from SECURE_COMMAND_KEY or SECURE_COMMAND_KEY_FILE."""
        return self._sources[1]

    @property
    def ca_bundle(self) -> Path | None:
        """The roots that replace certifi's, None if not given (README.md, "Configuration")."""
        return self.requests_ca_bundle or self.ssl_cert_file

    @property
    def trust(self) -> BaseTrust:
        """The trusted roots of both legs and of the log receiver: those of their files as they were when they were first read."""
        return self._trust

    def _roots_in_words(self) -> str:
        if self.requests_ca_bundle:
            base = f"REQUESTS_CA_BUNDLE={self.requests_ca_bundle}"
        elif self.ssl_cert_file:
            base = f"SSL_CERT_FILE={self.ssl_cert_file}"
        else:
            base = "certifi's roots"
        return f"{base} and RELAY_CA_FILE={self.ca_file}" if self.ca_file else base

    @property
    def admin_endpoint(self) -> tuple[str, int] | None:
        """Host (IPv6 without brackets) and port of the admin pages, None if TCP is off (docs/operations.md, "Pages")."""
        return None if self.admin_addr == "off" else listen_address(self.admin_addr)

    @property
    def syslog_receiver(self) -> SyslogReceiver | None:
        """Where log lines go by syslog, None if nowhere."""
        return None if self.log_syslog is None else syslog_receiver(self.log_syslog)


class Variable(NamedTuple):
    """One row of the configuration table: `default` is "required", or empty if there is none."""

    name: str
    default: str
    description: str


def variables() -> list[Variable]:
    """List every variable with its default and description, in the documented order."""
    return [Variable(aliases(info)[0], _default(name, info), info.description or "") for name, info in Settings.model_fields.items()]


def aliases(info: FieldInfo) -> list[str]:
    """Return the variables that give a setting, the preferred one first."""
    alias = info.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


def _default(name: str, info: FieldInfo) -> str:
    if info.is_required() or name == "jwt":
        return "required"
    return "" if info.default is None else str(info.default).lower() if isinstance(info.default, bool) else str(info.default)


def descriptions() -> dict[str, str]:
    """Return the description of each variable."""
    return {alias: info.description or "" for info in Settings.model_fields.values() for alias in aliases(info)}
