"""Values of settings: what is wrong is named by its variable, and a secret never repeated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.config.scenes import Problems, signed_token


@pytest.mark.parametrize(
    "name, value",
    [
        ("API_TARGET", "api.lab.example"),
        ("API_TARGET", "ftp://api.lab.example"),
        ("API_TARGET", "https://"),
        ("API_TARGET", "https://api.lab.example:0"),
        ("API_TARGET", "https://u:canary@api.lab.example"),
        ("API_TARGET", "https://api.lab.example/?canary"),
        ("ORG_SLUG", "acme labs"),
        ("ORG_SLUG", "acme\nX: y"),
        ("AGENT_ID", "../x"),
        ("AGENT_ID", "é"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:4566"),
        ("RELAY_WORKERS", "0"),
        ("RELAY_WORKERS", "257"),
        ("RELAY_WORKERS", "many"),
        ("RELAY_WORKERS", "1e1"),
        ("RELAY_WORKERS", "1.5"),
        ("RELAY_WORKERS", "１６"),
        ("RELAY_WORKERS", "-1"),
        ("RELAY_QUEUE_SIZE", "9"),
        ("RELAY_DRAIN_SECONDS", "-1"),
        ("RELAY_DRAIN_SECONDS", "nan"),
        ("RELAY_DRAIN_SECONDS", "inf"),
        ("RELAY_DRAIN_SECONDS", "25s"),
        ("RELAY_HEARTBEAT_SECONDS", "61"),
        ("RELAY_CONFIG_REFRESH_SECONDS", "0.5"),
        ("RELAY_METRICS_SECONDS", "0"),
        ("RELAY_CONNECT_TIMEOUT_SECONDS", "601"),
        ("RELAY_REQUEST_TIMEOUT_SECONDS", "86401"),
        ("RELAY_MAX_RESPONSE_BYTES", "1023"),
        ("RELAY_MAX_RESPONSE_BYTES", "1000000000001"),
        ("RELAY_MAX_REQUEST_BYTES", "64MB"),
        ("RELAY_LOG_LEVEL", "loud"),
        ("RELAY_ADMIN_ADDR", "8089"),
        ("RELAY_ADMIN_ADDR", ":8089"),
        ("RELAY_ADMIN_ADDR", "127.0.0.1"),
        ("RELAY_ADMIN_ADDR", "127.0.0.1:65536"),
        ("RELAY_ADMIN_ADDR", "127.0.0.1:0"),
        ("RELAY_ADMIN_ADDR", "[::1]:00000"),
        ("RELAY_ADMIN_ADDR", "127.0.0.1:٣"),
        ("RELAY_ADMIN_ADDR", "::1:8089"),
        ("RELAY_ADMIN_ADDR", "[::1:8089"),
        ("RELAY_ADMIN_ADDR", "http://127.0.0.1:8089"),
        ("http_proxy", "ftp://u:canary@p:1"),
        ("HTTPS_PROXY", "http://u:canary@p:x"),
        ("ALL_PROXY", "socks5://u:canary@p:1"),
        ("RELAY_PLATFORM_PROXY", "http://u:can#canary@p:1"),
        ("RELAY_TARGET_PROXY", "http://u:12/canary@p:1"),
        ("JWT", "canary"),
        ("JWT", "canary.canary.canary"),
        ("SECURE_COMMAND_KEY", "canary"),
        ("SECURE_COMMAND_KEY", ","),
        ("ORG_SLUG", "'acme'"),
        ("JWT", f'"{signed_token()}"'),
    ],
)
def test_an_invalid_value_is_reported_by_its_variable_and_no_secret_is_repeated(problems: Problems, name: str, value: str) -> None:
    (line,) = problems(**{name: value})
    assert re.fullmatch(rf"{name}: (?!Value error).+; expected: .+", line)
    assert "canary" not in line
    assert signed_token() not in line


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "RELAY_CA_FILE"])
@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "cannot read {} (No such file or directory)"),
        (b"", "{} contains no PEM certificate"),
        (b"\x30\x82\x01", "{} contains no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "{} contains a damaged certificate"),
    ],
)
def test_an_unusable_file_of_roots_is_named(problems: Problems, tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    (line,) = problems(**{name: str(path)})
    assert line.startswith(f"{name}: {reason.format(path)}; expected: a PEM file")


def test_a_directory_of_roots_is_named(problems: Problems, tmp_path: Path) -> None:
    (line,) = problems(SSL_CERT_FILE=str(tmp_path))
    assert line.startswith(f"SSL_CERT_FILE: cannot read {tmp_path} (Is a directory)")
