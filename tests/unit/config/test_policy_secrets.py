"""No secret of a policy file is in the text of any object that holds it, nor in a message about a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from tests.unit.config.policies import CANARY, TARGET, Directory


@pytest.fixture
def policy(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def everything(found: object, seen: set[int]) -> Iterator[object]:
    """Everything that an object holds, and itself; the values alone of texts and bytes are what the others must not show."""
    if id(found) in seen or isinstance(found, str | bytes | Path):
        return
    seen.add(id(found))
    if is_dataclass(found):
        yield found
        parts = [getattr(found, each.name) for each in fields(found)]
    elif isinstance(found, Mapping):
        parts = [*found, *found.values()]
    elif isinstance(found, tuple | list | set | frozenset):
        parts = list(found)
    else:
        yield found
        parts = list(getattr(found, "__dict__", {}).values()) if type(found).__module__.startswith("relay_agent") else []
    for part in parts:
        yield from everything(part, seen)


def test_no_object_of_a_loaded_policy_shows_a_secret(policy: Directory) -> None:
    loaded = policy.load(
        TARGET
        + 'client_cert = "agent.pem"\nclient_key = "sealed.key"\nclient_key_password_file = "password"\n'
        + f'proxy = "http://lab:{CANARY}@proxy.lab.example:3128"\n'
        + 'auth = { digest = { user = "agent", password = { file = "password" } } }\n'
        + '[[target]]\nhosts = ["eln.lab.example"]\nheaders = { Authorization = { file = "token" } }\n'
    )
    assert CANARY in loaded.secrets
    objects = list(everything(loaded, set()))
    assert {"LoadedPolicy", "TargetSettings", "Digest", "Proxy", "ClientCertificate", "TlsContexts"} <= {
        type(each).__name__ for each in objects
    }
    assert not [type(each).__name__ for each in objects if CANARY in repr(each) + str(each)]


def test_the_passwords_of_a_policy_are_held_so_that_no_text_of_them_can_be_made_by_accident(policy: Directory) -> None:
    target = policy.target(
        'client_cert = "agent.pem"\nclient_key = "sealed.key"\nclient_key_password_file = "password"\n'
        'auth = { digest = { user = "agent", password = { file = "password" } } }\n'
    )
    assert target.auth is not None and target.tls is not None and target.tls.client is not None
    for password in (target.auth.password, target.tls.client.password):  # type: ignore[attr-defined]
        assert password.get_secret_value() == CANARY
        assert CANARY not in f"{password} {password!r}"


@pytest.mark.parametrize(
    "secret", ["Bearer s3cretpw", "basic dXNlcjpwdw==", "Token s3cretpw", "-----BEGIN PRIVATE KEY-----", "a\\ns3cretpw"]
)
@pytest.mark.parametrize(
    "line",
    [
        'headers = {{ Authorization = {{ file = "{}" }} }}\n',
        'auth = {{ digest = {{ user = "a", password = {{ file = "{}" }} }} }}\n',
        'client_cert = "agent.pem"\nclient_key = "{}"\n',
        'client_cert = "agent.pem"\nclient_key_password_file = "{}"\n',
        'ca_file = "{}"\n',
    ],
)
def test_a_secret_in_place_of_the_name_of_its_file_is_not_repeated(policy: Directory, line: str, secret: str) -> None:
    (said,) = policy.mistakes(TARGET + line.format(secret))
    assert secret.rpartition(" ")[2].rpartition("\\n")[2] not in said
    assert "looks like the secret itself" in said


def test_a_limit_beyond_any_disk_is_a_mistake(policy: Directory) -> None:
    assert policy.target(f"max_response_bytes = {10**12}").max_response_bytes == 10**12
    assert "max_response_bytes" in policy.mistake(TARGET + f"max_response_bytes = {10**30}")
