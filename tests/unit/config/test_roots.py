"""Trusted roots: each file is read once, and is parsed only for the targets that are called."""

from __future__ import annotations

import shutil
import ssl
from collections import Counter
from pathlib import Path

import pytest

from relay_agent.config import policy_tls
from relay_agent.config.network import load_rules, read_roots, syslog_tls, tls_contexts
from relay_agent.config.policy_file import LoadedPolicy
from relay_agent.config.settings import Settings
from relay_agent.core import files
from relay_agent.core.errors import ConfigurationError
from relay_agent.transport.tls import Roots
from tests.target_certificates import ca_pem, ca_that_ends
from tests.unit.config.policies import Directory

TABLES = 10


def settings_of(directory: Path, **more: str) -> Settings:
    required = {"API_TARGET": "https://api.lab.example", "ORG_SLUG": "acme", "AGENT_ID": "a", "JWT": "x.y.z"}
    return Settings(_env_file=None, **required, RELAY_STATE_DIR=str(directory), **more)  # type: ignore[arg-type]


def tables(directory: Path, lines: str) -> str:
    """A policy file with many tables, each with a client certificate of its own."""
    for number in range(TABLES):
        shutil.copy(directory / "both.pem", directory / f"client-{number}.pem")
    return "".join(f'[[target]]\nhosts = ["h{n}.lab.example"]\nclient_cert = "client-{n}.pem"\n{lines}\n' for n in range(TABLES))


def contexts_of(loaded: LoadedPolicy) -> dict[str, list[ssl.SSLContext]]:
    """Every context of every table, with and without its client certificate."""
    found: dict[str, list[ssl.SSLContext]] = {"client": [], "anonymous": []}
    for target in loaded.rules.targets:
        assert target.tls is not None
        for name, tls in (("client", target.tls), ("anonymous", target.tls.without_client)):
            found[name] += [tls.context(True), tls.context(True, names=False), tls.context(False)]
    return found


@pytest.fixture
def policy(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Roots]:
    """Whose roots were parsed, once for each context."""
    found: list[Roots] = []
    load = Roots.load

    def counting(roots: Roots, context: ssl.SSLContext) -> None:
        found.append(roots)
        load(roots, context)

    monkeypatch.setattr(Roots, "load", counting)
    return found


def _x509(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509"]


def test_a_policy_is_loaded_without_parsing_the_built_in_roots_and_its_tables_share_what_they_can(
    policy: Directory, parsed: list[Roots]
) -> None:
    loaded = policy.load(tables(policy.path, ""))
    assert not parsed
    found = contexts_of(loaded)
    assert len(set(map(id, found["client"]))) == 3 * TABLES, "a context shows one client certificate"
    assert len(set(map(id, found["anonymous"]))) == 3, "what shows none is the same for all"
    assert len(parsed) == 2 * TABLES + 2
    contexts_of(loaded)
    assert len(parsed) == 2 * TABLES + 2, "each is made once"


def test_a_file_that_many_tables_name_is_read_and_parsed_once(policy: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    whole = policy_tls.read_certificates

    def counting(path: Path, beside: Path | None = None) -> bytes:
        read[path.name] += 1
        return whole(path, beside)

    monkeypatch.setattr(policy_tls, "read_certificates", counting)
    loaded = policy.load(tables(policy.path, 'ca_file = "ca.pem"'))
    assert read == {"ca.pem": 1, **{f"client-{number}.pem": 1 for number in range(TABLES)}}
    assert len(set(map(id, contexts_of(loaded)["anonymous"]))) == 3


def test_what_is_wrong_with_a_file_is_said_of_each_table_that_names_it(policy: Directory) -> None:
    line = '[[target]]\nhosts = ["h"]\nca_file = "damaged.pem"\n'
    assert [text.partition(":")[0] for text in policy.mistakes(line * 2)] == ["[[target]] 1 (h)", "[[target]] 2 (h)"]


def test_files_that_change_after_the_load_change_no_context(policy: Directory) -> None:
    loaded = policy.load(tables(policy.path, 'ca_file = "ca.pem"'))
    for name in ("ca.pem", *(f"client-{number}.pem" for number in range(TABLES))):
        (policy.path / name).unlink()
    assert {_x509(context) for context in contexts_of(loaded)["client"]} == {0, 1}


def test_the_roots_of_the_settings_are_read_once_at_the_start(policy: Directory) -> None:
    added = policy.path / "site.pem"
    added.write_bytes(ca_pem())
    settings = settings_of(policy.path, RELAY_CA_FILE=str(added))
    read_roots(settings)
    first = _x509(tls_contexts(settings).context(True))
    added.write_bytes(ca_pem() + ca_that_ends(10))
    assert _x509(tls_contexts(settings).context(True, names=False)) == first, "one agent must not trust in two ways"
    added.unlink()
    assert _x509(syslog_tls(settings).context(True)) == first


def test_a_changed_policy_is_taken_over_though_the_settings_roots_are_gone(policy: Directory) -> None:
    added = policy.path / "site.pem"
    added.write_bytes(ca_pem())
    policy.file.write_text('default = "allow"\n')
    settings = settings_of(policy.path, RELAY_CA_FILE=str(added), RELAY_POLICY_FILE=str(policy.file))
    read_roots(settings)
    added.unlink()
    policy.file.write_text(tables(policy.path, "") + '[[target]]\nhosts = ["h"]\nca_file = "ca.pem"\n[[rule]]\naction = "deny"\n')
    loaded = load_rules(settings)
    assert len(loaded.rules.targets) == TABLES + 1
    own = loaded.rules.targets[-1].tls
    assert own is not None and _x509(own.context(True)) == 1
    assert own.roots == (policy.path / "ca.pem", added)
    contexts_of(LoadedPolicy(type(loaded.rules)(loaded.rules.policy, loaded.rules.targets[:-1])))


def test_roots_that_are_gone_before_the_start_has_read_them_are_named(policy: Directory) -> None:
    added = policy.path / "site.pem"
    added.write_bytes(ca_pem())
    settings = settings_of(policy.path, RELAY_CA_FILE=str(added))
    added.unlink()
    with pytest.raises(ConfigurationError, match=r"RELAY_CA_FILE: cannot read .*site\.pem \(No such file or directory\)"):
        read_roots(settings)


def test_a_file_in_memory_needs_no_system_that_knows_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    create = files.os.memfd_create
    flags: list[int] = []

    def old(name: str, given: int) -> int:
        flags.append(given)
        if given != files.os.MFD_CLOEXEC:
            raise OSError(22, "Invalid argument")
        return create(name, given)

    monkeypatch.setattr(files.os, "memfd_create", old)
    with files.as_file(b"content") as path:
        assert Path(path).read_bytes() == b"content"
    assert len(flags) == 2


def test_a_system_without_files_in_memory_gets_one_on_disk_that_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(files.os, "memfd_create")
    with files.as_file(b"content") as path:
        assert Path(path).read_bytes() == b"content"
    assert not Path(path).exists()
