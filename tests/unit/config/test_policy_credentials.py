"""The keys `auth` and `proxy_auth` of a policy file's tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from relay_agent.config.policy_file import LoadedPolicy, load_policy
from relay_agent.core.errors import ConfigurationError

TABLE = '[[target]]\nhosts = ["lims.lab.example"]\n'
WHERE = "RELAY_POLICY_FILE: policy.toml: [[target]] 1 (lims.lab.example): "
GIVEN = "digest = { user = 'a', password = 'b' }"
MUST = "must have exactly one of digest, ntlm, negotiate"


def loaded(directory: Path, text: str) -> LoadedPolicy:
    file = directory / "policy.toml"
    file.write_text(TABLE + text, encoding="utf-8")
    return load_policy(file)


@pytest.mark.parametrize("key", ["auth", "proxy_auth"])
@pytest.mark.parametrize("scheme", ["digest", "ntlm", "negotiate"])
def test_a_scheme_with_a_user_and_a_password_from_a_file(tmp_path: Path, key: str, scheme: str) -> None:
    (tmp_path / "password").write_text(" secret\n", encoding="utf-8")
    policy = loaded(tmp_path, f"{key} = {{ {scheme} = {{ user = 'LAB\\agent', password = {{ file = \"password\" }} }} }}")
    (target,) = policy.rules.targets
    found = target.auth if key == "auth" else target.proxy_auth
    assert found is not None
    assert (found.scheme, found.user) == (scheme, "LAB\\agent")
    assert (target.auth is None) == (key == "proxy_auth")
    assert (policy.secrets, set(policy.files)) == (("secret",), {tmp_path / "policy.toml", tmp_path / "password"})
    assert "secret" not in repr(policy)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("auth = {}", f"auth: {MUST}"),
        ("auth = 'x'", f"auth: {MUST}"),
        ("auth.digest = { user = 'a', password = 'b' }\nauth.ntlm = { user = 'a', password = 'b' }", f"auth: {MUST}"),
        ("auth.digets = { user = 'a', password = 'b' }", "auth: unknown key 'digets'; did you mean 'digest'?"),
        ("auth.basic = { user = 'a', password = 'b' }", "auth: unknown key 'basic'; known are digest, ntlm, negotiate"),
        ("auth.digest = 'a'", "auth.digest: must be a table with user and password"),
        ("auth.digest = { user = 'a', pasword = 'b', password = 'c' }", "auth.digest: unknown key 'pasword'; did you mean 'password'?"),
        ("auth.digest = { user = 'a' }", "auth.digest: 'password' is missing"),
        ("auth.digest = { password = 'a' }", "auth.digest: 'user' is missing"),
        ("auth.digest = { user = '', password = 'a' }", "auth.digest.user: must be a text of printable characters"),
        ('auth.digest = { user = "a\\nb", password = "a" }', "auth.digest.user: must be a text of printable characters"),
        ("auth.digest = { user = 'a', password = 1 }", 'auth.digest.password is unusable: must be a text, or { file = "…" }'),
        ("auth.digest = { user = 'a', password = ' ' }", "auth.digest.password is empty"),
        (
            "auth.digest = { user = 'a', password = 'b' }\nheaders.Authorization = 'c'",
            "auth: headers sets authorization too; keep one of the two",
        ),
        (
            "proxy_auth.digest = { user = 'a', password = 'b' }\nproxy = 'none'",
            "proxy_auth: is for HTTP proxies only, and `proxy` is not an HTTP proxy",
        ),
        (
            "proxy_auth.digest = { user = 'a', password = 'b' }\nproxy = 'http://u:p@proxy.lab.example'",
            "proxy_auth: proxy has a user too; keep one of the two",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, mistake: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text)
    assert [str(problem) for problem in caught.value.problems] == [f"{WHERE}{mistake}"]


@pytest.mark.parametrize("scheme", ["ntlm", "negotiate"])
def test_without_pyspnego_the_message_says_what_to_install(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "spnego"] + ["spnego", "spnego.channel_bindings"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"auth\.\w+: needs the package pyspnego.*pip install 'tdp-relay-agent\[windows-auth\]'"):
        loaded(tmp_path, f"auth.{scheme} = {{ user = 'a', password = 'b' }}")
    assert loaded(tmp_path, "auth.digest = { user = 'a', password = 'b' }").rules.targets[0].auth is not None
