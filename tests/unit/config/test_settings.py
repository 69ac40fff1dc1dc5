"""Settings: what each variable takes, its default, and that no secret shows (README.md, "Configuration")."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
import trustme

from relay_agent.config.settings import Settings, variables
from tests.unit.config.scenes import KEY, REQUIRED, ROOT, Load

# --- What is read ---


def test_the_four_required_variables_are_enough(load: Load) -> None:
    settings = load()
    assert (settings.api_target, settings.org_slug, settings.agent_id) == ("https://api.lab.example", "acme-labs", "9b9f275c-a60d")
    assert settings.token.get() == REQUIRED["JWT"]
    assert not settings.secure_key.given
    assert (settings.workers, settings.drain_seconds, settings.log_level) == (16, 25, "info")


def test_an_empty_or_blank_optional_variable_is_unset(load: Load) -> None:
    names = {name for row in variables() if row.default != "required" for name in (row.name,)}
    for blank in ("", "  "):
        settings = load(**dict.fromkeys(names, blank))
        assert settings.model_dump() == load(**dict.fromkeys(names)).model_dump()


def test_white_space_around_a_value_is_stripped(load: Load) -> None:
    settings = load(ORG_SLUG=" acme ", RELAY_WORKERS=" 4 ", RELAY_LOG_LEVEL=" WARNING\n")
    assert (settings.org_slug, settings.workers, settings.log_level) == ("acme", 4, "warning")


@pytest.mark.parametrize(
    "given", ["https://api.lab.example", "https://api.lab.example/", "https://api.lab.example/v1", "https://api.lab.example/v1/"]
)
def test_a_trailing_slash_or_v1_of_the_api_target_is_accepted(load: Load, given: str) -> None:
    assert load(API_TARGET=given).api_target == "https://api.lab.example"
    assert load(API_TARGET="http://127.0.0.1:8000/base/v1/").api_target == "http://127.0.0.1:8000/base"


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy", "no_proxy"])
def test_proxy_variables_are_read_in_either_case_and_lower_case_wins(load: Load, name: str) -> None:
    field = load(**{name.upper(): "upper:1"})
    assert getattr(field, name) == "upper:1"
    assert getattr(load(**{name: "lower:1"}), name) == "lower:1"
    assert getattr(load(**{name: ""}), name) == "upper:1"


def test_a_proxy_may_be_none(load: Load) -> None:
    settings = load(RELAY_PLATFORM_PROXY="NONE", RELAY_TARGET_PROXY="socks5h://u:p@p:1080")
    assert (settings.platform_proxy, settings.target_proxy) == ("none", "socks5h://u:p@p:1080")


@pytest.mark.parametrize(
    "given, endpoint",
    [
        ("", ("127.0.0.1", 8089)),
        ("[::1]:1", ("::1", 1)),
        ("localhost:65535", ("localhost", 65535)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("OFF", None),
    ],
)
def test_the_admin_address_is_host_and_port_or_off(load: Load, given: str, endpoint: tuple[str, int] | None) -> None:
    assert load(RELAY_ADMIN_ADDR=given).admin_endpoint == endpoint


def test_requests_ca_bundle_wins_over_ssl_cert_file(load: Load, tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "RELAY_CA_FILE")}
    for path in paths.values():
        trustme.CA().cert_pem.write_to_path(str(path))
    given = {name: str(path) for name, path in paths.items()}
    assert load(SSL_CERT_FILE=given["SSL_CERT_FILE"]).ca_bundle == paths["SSL_CERT_FILE"]
    assert load(**given).ca_bundle == paths["REQUESTS_CA_BUNDLE"]
    assert load(**given).ca_file == paths["RELAY_CA_FILE"]
    assert load(**dict.fromkeys(given)).ca_bundle is None


# --- Secrets ---


def test_settings_show_no_secret(load: Load) -> None:
    key = base64.b64encode(KEY).decode()
    proxies = dict.fromkeys(["http_proxy", "https_proxy", "all_proxy", "RELAY_PLATFORM_PROXY", "RELAY_TARGET_PROXY"], "http://u:canary@p:1")
    settings = load(SECURE_COMMAND_KEY=key, **proxies)
    for shown in (repr(settings), str(settings), repr(settings.token), repr(settings.secure_key)):
        assert not any(secret in shown for secret in (key, "canary", REQUIRED["JWT"]))


# --- Documentation ---


def test_every_variable_has_a_row_with_a_description() -> None:
    rows = variables()
    assert [row.name for row in rows if row.default == "required"] == list(REQUIRED)
    assert len({row.name for row in rows}) == len(rows) == len(Settings.model_fields)
    assert all(row.description and "<" not in row.description for row in rows)
    assert {row.name: row.default for row in rows}["RELAY_ADMIN_ADDR"] == "127.0.0.1:8089"


def test_the_example_documents_every_variable_with_its_default_and_a_comment() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    found = {
        match[2]: (match[1], match[3], lines[place - 1])
        for place, line in enumerate(lines)
        if (match := re.fullmatch(r"(#?)([A-Za-z_]+)=(.*)", line))
    }
    assert set(found) == {row.name for row in variables()}
    for row in variables():
        hash_, value, above = found[row.name]
        assert above.startswith("# "), row.name
        assert (hash_ == "") is (row.default == "required"), row.name
        if row.default == "required":
            assert re.search("<.+>", value), row.name
        elif row.default and row.name != "RELAY_STATE_DIR":
            assert float(value) == float(row.default) if row.default[:1].isdigit() and ":" not in row.default else value == row.default
