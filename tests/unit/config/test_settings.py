"""Settings: every mistake in one message, no secret in any (issue 3 "Start", SECURITY §1, OPERATIONS §5)."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
import trustme

from relay_agent.config.inspection import unknown_variables
from relay_agent.config.loading import load_settings
from relay_agent.config.secrets import SecretSource, check_token, token_expiry
from relay_agent.config.settings import Settings, variables
from relay_agent.core.errors import ConfigurationError, TokenExpired
from relay_agent.protocol.keyring import parse_key, parse_keys

_NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
_SIGNING = "a-key-of-the-platform-32-bytes-long"
_KEY = bytes(range(32))
_ROOT = Path(__file__).parents[3]


def _token(**claims: object) -> str:
    return jwt.encode({"sub": "service", **claims}, _SIGNING, algorithm="HS256")


_REQUIRED = {"API_TARGET": "https://api.lab.example", "ORG_SLUG": "acme-labs", "AGENT_ID": "9b9f275c-a60d", "JWT": _token()}

Load = Callable[..., Settings]


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, env_file: Path) -> Load:
    """Load settings from these variables alone (None takes a required one away), and `.env` where it was written."""
    for name in list(os.environ):
        monkeypatch.delenv(name)

    def loaded(**given: str | None) -> Settings:
        for name, value in {**_REQUIRED, **given}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return load_settings(env_file)

    return loaded


@pytest.fixture
def problems(load: Load) -> Callable[..., list[str]]:
    def found(**given: str | None) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            load(**given)
        return caught.value.problems

    return found


Problems = Callable[..., list[str]]


# --- What is read ---


def test_the_four_required_variables_are_enough(load: Load) -> None:
    settings = load()
    assert (settings.api_target, settings.org_slug, settings.agent_id) == ("https://api.lab.example", "acme-labs", "9b9f275c-a60d")
    assert settings.token.get() == _REQUIRED["JWT"]
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


def test_state_lies_beside_the_env_file_unless_told_otherwise(load: Load, env_file: Path) -> None:
    assert load().state_dir == Path(".relay")
    env_file.write_text("ORG_SLUG=acme\n")
    assert load().state_dir == env_file.resolve().parent / ".relay"
    assert load().token.get() == _REQUIRED["JWT"]
    assert load(RELAY_STATE_DIR="/var/lib/relay-agent").state_dir == Path("/var/lib/relay-agent")


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
    [("", ("127.0.0.1", 8089)), ("[::1]:1", ("::1", 1)), ("localhost:0", ("localhost", 0)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("OFF", None)],
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


# --- Mistakes ---


def test_everything_missing_is_told_at_once_in_the_documented_order(problems: Problems) -> None:
    found = problems(**dict.fromkeys(_REQUIRED))
    assert [line.partition(":")[0] for line in found] == ["API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT"]
    assert all("is not set; set it" in line for line in found)
    assert "https://api.tetrascience.com" in found[0]


def test_every_mistake_is_told_in_one_message(problems: Problems, env_file: Path) -> None:
    env_file.write_text("RELAY_QUEUE_SIZE=many\n")
    wrong = {"ORG_SLUG": "a b", "JWT": "no", "RELAY_WORKERS": "0", "RELAY_CA_FILE": "/nonexistent", "SECURE_COMMAND_KEY": "short"}
    found = problems(AGENT_ID=None, API_TARGET="<url>", **wrong)
    assert {line.partition(":")[0] for line in found} == {"AGENT_ID", "API_TARGET", "RELAY_QUEUE_SIZE", *wrong}
    assert len(found) == len({line.partition(":")[0] for line in found})


def test_every_wrong_value_has_one_line_that_says_what_right_looks_like(problems: Problems) -> None:
    for row in variables():
        if row.name in {"no_proxy", "RELAY_STATE_DIR"}:
            continue
        lines = [line for line in problems(**{row.name: "<fill in>"}) if line.startswith(f"{row.name}: ")]
        assert lines == [f"{row.name}: is still a placeholder; set it to {row.description}"]


@pytest.mark.parametrize(
    "text", ["<token>", "https://<host>/", "https://your-company.example", "YOUR_ORG", "changeme", "CHANGE-ME", "xxxx", "..."]
)
@pytest.mark.parametrize("name", ["API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT", "https_proxy", "HTTPS_PROXY", "RELAY_WORKERS"])
def test_a_placeholder_is_a_mistake(problems: Problems, name: str, text: str) -> None:
    (line,) = problems(**{name: text})
    assert line.startswith(f"{name}: is still a placeholder; set it to ")


def test_the_example_as_it_stands_is_one_message_of_its_four_placeholders(problems: Problems, env_file: Path) -> None:
    env_file.write_text((_ROOT / ".env.example").read_text())
    found = problems(**dict.fromkeys(_REQUIRED))
    assert [line.partition(";")[0] for line in found] == [f"{name}: is still a placeholder" for name in _REQUIRED]


def test_what_only_resembles_a_placeholder_is_a_value(load: Load) -> None:
    load(ORG_SLUG="acme-your-labs", http_proxy="http://u:changeme@p.lab.example:1", https_proxy="http://<u>:p<a>ss@p.lab.example:1")


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
        ("RELAY_MAX_REQUEST_BYTES", "64MB"),
        ("RELAY_LOG_LEVEL", "loud"),
        ("RELAY_ADMIN_ADDR", "8089"),
        ("RELAY_ADMIN_ADDR", ":8089"),
        ("RELAY_ADMIN_ADDR", "127.0.0.1"),
        ("RELAY_ADMIN_ADDR", "127.0.0.1:65536"),
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
        ("JWT", f'"{_token()}"'),
    ],
)
def test_a_wrong_value_is_told_by_its_variable_and_a_secret_never_repeated(problems: Problems, name: str, value: str) -> None:
    (line,) = problems(**{name: value})
    assert re.fullmatch(rf"{name}: (?!Value error).+; it takes .+", line)
    assert "canary" not in line
    assert _token() not in line


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "RELAY_CA_FILE"])
@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "cannot read {} (No such file or directory)"),
        (b"", "{} holds no certificate in PEM form"),
        (b"\x30\x82\x01", "{} holds no certificate in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "{} holds a damaged certificate"),
    ],
)
def test_a_file_of_roots_that_cannot_be_used_is_named(
    problems: Problems, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    (line,) = problems(**{name: str(path)})
    assert line.startswith(f"{name}: {reason.format(path)}; it takes a PEM file")


def test_a_directory_of_roots_is_named(problems: Problems, tmp_path: Path) -> None:
    (line,) = problems(SSL_CERT_FILE=str(tmp_path))
    assert line.startswith(f"SSL_CERT_FILE: cannot read {tmp_path} (Is a directory)")


def test_lines_of_the_env_file_that_set_nothing_are_named(problems: Problems, env_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    env_file.write_text("ORG_SLUG=acme\n\nthis is canary\nRELAY_WORKERS='1\n")
    found = problems()
    assert [line.partition(": ")[2] for line in found] == [f"line {number} is not NAME=value with closed quotes" for number in (3, 4)]
    assert "canary" not in "".join(found)
    assert not caplog.records


def test_an_env_file_that_is_no_text_is_named(problems: Problems, env_file: Path) -> None:
    env_file.write_bytes(b"ORG_SLUG=\xff\xfe\n")
    assert problems() == [f"{env_file}: is not UTF-8 text; save it as UTF-8"]


# --- Secrets ---


def test_settings_show_no_secret(load: Load) -> None:
    key = base64.b64encode(_KEY).decode()
    proxies = dict.fromkeys(["http_proxy", "https_proxy", "all_proxy", "RELAY_PLATFORM_PROXY", "RELAY_TARGET_PROXY"], "http://u:canary@p:1")
    settings = load(SECURE_COMMAND_KEY=key, **proxies)
    for shown in (repr(settings), str(settings), repr(settings.token), repr(settings.secure_key)):
        assert not any(secret in shown for secret in (key, "canary", _REQUIRED["JWT"]))


@pytest.mark.parametrize("name, value", [("JWT", _REQUIRED["JWT"]), ("SECURE_COMMAND_KEY", _KEY.hex())])
def test_a_secret_may_be_a_file_but_not_both(load: Load, problems: Problems, tmp_path: Path, name: str, value: str) -> None:
    path = tmp_path / "secret"
    path.write_text(f" {value}\n")
    settings = load(**{name: None, f"{name}_FILE": str(path)})
    assert (settings.token if name == "JWT" else settings.secure_key).get() == value
    (line,) = problems(**{name: value})
    assert line == f"{name}: both {name} and {name}_FILE are set; keep one of them"


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "cannot read {} (No such file or directory)"),
        (b" \n", "the file is empty"),
        (b"\xff\xfe", "cannot read {} (it is not UTF-8 text)"),
        (b"<canary>", "is still a placeholder"),
        (b"canary", "is no JSON Web Token (three base64url parts with dots between them)"),
    ],
)
def test_a_secrets_file_that_cannot_be_used_is_told(problems: Problems, tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    (line,) = problems(JWT=None, JWT_FILE=str(path))
    assert line.startswith(f"JWT_FILE: {reason.format(path)}; it takes a readable file")
    assert "canary" not in line


def test_a_wrong_secret_is_told_beside_other_mistakes(problems: Problems) -> None:
    assert [line.partition(":")[0] for line in problems(ORG_SLUG=None, JWT="no")] == ["ORG_SLUG", "JWT"]


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    source = SecretSource(path=path)
    assert source.get() == "first"
    stat = path.stat()
    path.write_text("other")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert source.get() == "first"
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert source.get() == "other"


def test_a_file_that_vanished_or_is_being_rewritten_leaves_the_last_secret(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    source = SecretSource(path=path)
    source.get()
    path.write_text("")
    assert source.get() == "first"
    path.unlink()
    assert source.get() == "first"
    path.write_text("second!")
    assert source.get() == "second!"


def test_a_file_that_was_never_read_raises_and_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="token"):
        SecretSource(path=tmp_path / "token").get()
    assert SecretSource().get() == ""


# --- Tokens and keys ---


def test_an_expired_token_is_a_valid_configuration_but_refused(load: Load) -> None:
    token = load(JWT=_token(exp=_NOW)).token.get()
    with pytest.raises(TokenExpired, match=r"expired on 2030-01-02 03:04 UTC, according to this machine's clock: create") as caught:
        check_token(token, lambda: _NOW)
    assert token not in str(caught.value)
    check_token(token, lambda: _NOW - timedelta(seconds=1))
    check_token(_token(), lambda: _NOW)


def test_a_tokens_end_is_read_without_checking_anything_else() -> None:
    past = _NOW - timedelta(days=9999)
    assert token_expiry(_token(exp=_NOW, nbf=_NOW + timedelta(days=9), iat=_NOW + timedelta(days=9), aud="x", iss="x", jti=2)) == _NOW
    assert token_expiry(_token(exp=past)) == past
    assert token_expiry(jwt.encode({"sub": "x"}, key="", algorithm="none")) is None


def test_an_end_beyond_any_calendar_is_not_past() -> None:
    check_token(_token(exp=int(_NOW.timestamp() * 1000)), lambda: _NOW)


@pytest.mark.parametrize(
    "text", ["", "a", "a.b", "a.b.c", "..", "é.é.é", _token()[:-50].rpartition(".")[0], "Bearer " + _token(), _token(exp=1) + ".x.y"]
)
def test_what_is_no_token_is_told_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is no JSON Web Token"):
        token_expiry(text)


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(_KEY).decode(),
        base64.b64encode(_KEY).decode().rstrip("="),
        f" {base64.urlsafe_b64encode(_KEY).decode()}\n",
        _KEY.hex(),
        _KEY.hex().upper(),
    ],
)
def test_a_key_is_read_in_each_of_its_forms(text: str) -> None:
    assert parse_key(text) == _KEY


def test_base64url_and_base64_of_the_same_key_are_one() -> None:
    key = b"\xfb\xff" * 16
    assert parse_key(base64.b64encode(key).decode()) == parse_key(base64.urlsafe_b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "holds 0 bytes, not 32"),
        ("YQ==", "holds 1 bytes, not 32"),
        (base64.b64encode(bytes(33)).decode(), "holds 33 bytes, not 32"),
        (_KEY.hex()[:-2], "holds 46 bytes, not 32"),
        ("canary!", "is neither base64 nor base64url nor 64 hex digits"),
        ("é" * 43, "is neither base64 nor base64url nor 64 hex digits"),
        ("A" * 45, "is neither base64 nor base64url nor 64 hex digits"),
    ],
)
def test_what_is_no_key_is_told_without_repeating_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_key(text)
    assert str(caught.value) == reason


def test_several_keys_keep_their_order_and_a_wrong_one_is_named_by_its_place() -> None:
    assert parse_keys(f"{_KEY.hex()}, {'ff' * 32},") == [_KEY, b"\xff" * 32]
    with pytest.raises(ValueError, match=r"^key 2 holds 1 bytes"):
        parse_keys(f"{_KEY.hex()},YQ==")
    with pytest.raises(ValueError, match=r"^holds no key$"):
        parse_keys(" , ")


# --- Documentation ---


def test_every_variable_has_a_row_with_a_description() -> None:
    rows = variables()
    assert [row.name for row in rows if row.default == "required"] == list(_REQUIRED)
    assert len({row.name for row in rows}) == len(rows) == len(Settings.model_fields)
    assert all(row.description and "<" not in row.description for row in rows)
    assert {row.name: row.default for row in rows}["RELAY_ADMIN_ADDR"] == "127.0.0.1:8089"


def test_the_example_documents_every_variable_with_its_default_and_a_comment() -> None:
    lines = (_ROOT / ".env.example").read_text().splitlines()
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


# --- what is no setting ---


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
def test_a_variable_that_is_no_setting_is_found_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, nearest: str | None
) -> None:
    monkeypatch.setenv(name, "secret")
    assert unknown_variables(None) == [(name, nearest)]
    monkeypatch.delenv(name)
    file = tmp_path / ".env"
    file.write_text(f"{name}=secret\n")
    assert unknown_variables(file) == [(name, nearest)]


def test_settings_empty_variables_and_those_of_others_are_not_taken_for_mistakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in variables():
        monkeypatch.setenv(variable.name, "1")
    for name, value in {"RELAY_FAULT_POINT": "x", "RELAY_EMPTY": "", "RELAYS": "1", "MY_RELAY_X": "1", "HTTP_PROXY": "1"}.items():
        monkeypatch.setenv(name, value)
    assert unknown_variables(tmp_path / "absent") == []


def test_one_that_stands_in_both_places_is_named_once(monkeypatch: pytest.MonkeyPatch, env_file: Path) -> None:
    env_file.write_text("RELAY_WORKER=1\nRELAY_B=1\nAGENT_ID=x\n")
    monkeypatch.setenv("RELAY_WORKER", "2")
    assert unknown_variables(env_file) == [("RELAY_B", None), ("RELAY_WORKER", "RELAY_WORKERS")]
