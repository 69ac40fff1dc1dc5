"""Tokens and keys as variables or files: which is in force, what is well formed, and that nothing repeats one."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from relay_agent.config import secrets
from relay_agent.config.secrets import SecretSource, check_token, shown_path, token_expiry
from relay_agent.core.errors import TokenExpired
from relay_agent.core.files import read_regular
from tests.overwriting import overwrite
from tests.unit.config.scenes import KEY, REQUIRED, Load, Problems, signed_token

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


# --- Secrets ---


@pytest.mark.parametrize("name, value", [("JWT", REQUIRED["JWT"]), ("SECURE_COMMAND_KEY", KEY.hex())])
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
        (b"canary", "is not a JSON Web Token (three base64url parts separated by dots)"),
    ],
)
def test_an_unusable_file_of_a_secret_is_reported(problems: Problems, tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    (line,) = problems(JWT=None, JWT_FILE=str(path))
    assert line.startswith(f"JWT_FILE: {reason.format(path)}; expected: a readable file")
    assert "canary" not in line


def test_an_invalid_secret_is_reported_beside_other_mistakes(problems: Problems) -> None:
    assert [line.partition(":")[0] for line in problems(ORG_SLUG=None, JWT="no")] == ["ORG_SLUG", "JWT"]


def test_only_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def noted(path: Path) -> bytes:
        reads.append(path)
        return read_regular(path)

    monkeypatch.setattr(secrets, "read_regular", noted)
    path = tmp_path / "token"
    path.write_text("first")
    source = SecretSource(path=path)
    assert [source.get() for _ in range(3)] == ["first"] * 3
    assert reads == [path]
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert (source.get(), len(reads)) == ("first", 2)


def test_a_file_overwritten_in_place_with_its_size_and_time_put_back_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    source = SecretSource(path=path)
    assert source.get() == "first"
    overwrite(path, "other")
    assert source.get() == "other"


def test_a_missing_or_empty_file_keeps_the_last_secret(tmp_path: Path) -> None:
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


def test_a_named_pipe_in_place_of_the_file_keeps_the_last_secret_and_holds_up_nothing(tmp_path: Path) -> None:
    """Reading it would wait until somebody wrote to it, and the poller with it."""
    path = tmp_path / "token"
    path.write_text("first")
    source = SecretSource(path=path)
    source.get()
    path.unlink()
    os.mkfifo(path)
    assert (source.get(), source.gone) == ("first", "it is not a regular file")


def test_a_file_that_was_never_read_raises_and_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="token"):
        SecretSource(path=tmp_path / "token").get()
    assert SecretSource().get() == ""


def test_a_path_is_shown_unless_it_names_nothing_and_may_be_a_secret(tmp_path: Path) -> None:
    """A home directory may have the `@` of a domain."""
    beside = tmp_path / "agent@lab.example"
    (beside / "keys").mkdir(parents=True)
    (beside / "a@b").write_text("x")
    for shown in ("keys/no", "a@b", "no.pem", "no/no.key"):
        assert shown_path(beside / shown, beside) == str(beside / shown)
    for hidden in ("no", "no/no", "no@x.pem", "https://x.example/a.pem", "keys/u:p@x"):
        assert shown_path(beside / hidden, beside).startswith("the file, since the value ")
    assert shown_path(Path("https://u.example/x")).startswith("the file, since the value ")
    assert shown_path(Path("/no/such/file")) == "/no/such/file"


# --- Tokens and keys ---


def test_an_expired_token_is_a_valid_configuration_but_refused(load: Load) -> None:
    token = load(JWT=signed_token(exp=NOW)).token.get()
    with pytest.raises(TokenExpired, match=r"expired on 2030-01-02 03:04 UTC, according to this machine's clock: create") as caught:
        check_token(token, lambda: NOW)
    assert token not in str(caught.value)
    check_token(token, lambda: NOW - timedelta(seconds=1))
    check_token(signed_token(), lambda: NOW)


def test_a_tokens_expiry_is_read_without_checking_anything_else() -> None:
    past = NOW - timedelta(days=9999)
    assert token_expiry(signed_token(exp=NOW, nbf=NOW + timedelta(days=9), iat=NOW + timedelta(days=9), aud="x", iss="x", jti=2)) == NOW
    assert token_expiry(signed_token(exp=past)) == past
    assert token_expiry(jwt.encode({"sub": "x"}, key="", algorithm="none")) is None


def test_an_expiry_beyond_any_calendar_is_not_past() -> None:
    check_token(signed_token(exp=int(NOW.timestamp() * 1000)), lambda: NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a.b",
        "a.b.c",
        "..",
        "é.é.é",
        signed_token()[:-50].rpartition(".")[0],
        "Bearer " + signed_token(),
        signed_token(exp=1) + ".x.y",
    ],
)
def test_an_invalid_token_is_reported_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a JSON Web Token"):
        token_expiry(text)
