"""The image: its size, owner and content, and what it must never contain."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import relay_agent
from tests.image.conftest import Start
from tests.image.engine import ROOT, docker, fresh_name, image, inspect

LIMIT_BYTES = 130_000_000


@pytest.fixture(scope="module")
def again() -> Iterator[str]:
    """The image, with its files collected and compiled again from the same base; by hand, without the script."""
    name = fresh_name("again")
    base = (ROOT / "build" / "base-image").read_text(encoding="utf-8").strip()
    given = {"BASE_IMAGE": base, "SOURCE_DATE_EPOCH": commit("%ct"), "SOURCE": "https://example.com/relay"}
    options = [part for key, value in given.items() for part in ("--build-arg", f"{key}={value}")]
    docker(
        "build",
        "--quiet",
        "--no-cache",
        "-f",
        str(ROOT / "docker" / "Dockerfile"),
        *options,
        "--target",
        "agent",
        "-t",
        name,
        str(ROOT),
        timeout=300,
    )
    yield name
    docker("rmi", name)


def commit(form: str) -> str:
    """A fact of the commit that is checked out."""
    return subprocess.run(["git", "log", "-1", f"--format={form}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_it_has_at_most_130_million_bytes() -> None:
    assert inspect(image())["Size"] <= LIMIT_BYTES


def test_it_runs_the_agent_as_uid_10001_with_a_volume_for_its_state() -> None:
    configuration = inspect(image())["Config"]
    assert configuration["User"].split(":")[0] == "10001"
    assert list(configuration["Volumes"]) == ["/var/lib/relay-agent"]
    assert configuration["Entrypoint"][-1] == "relay-agent" and configuration["Cmd"] == ["run"]
    assert "RELAY_STATE_DIR=/var/lib/relay-agent" in configuration["Env"]
    assert not configuration.get("ExposedPorts")


def test_its_health_check_asks_no_port() -> None:
    check = " ".join(inspect(image())["Config"]["Healthcheck"]["Test"])
    assert "healthcheck.py" in check and not re.search(r"127\.0\.0\.1|localhost|8089|http", check)
    script = (ROOT / "docker" / "healthcheck.py").read_text(encoding="utf-8")
    assert "AF_UNIX" in script and "AF_INET" not in script


def labels(name: str) -> dict[str, str]:
    """Its labels of the OCI's, by their last part."""
    return {
        key.rpartition(".")[2]: value for key, value in inspect(name)["Config"]["Labels"].items() if key.startswith("org.opencontainers.")
    }


@pytest.mark.parametrize("kind", ["", "-sandbox"])
def test_its_labels_say_version_revision_source_and_time(kind: str) -> None:
    reported = labels(image(kind))
    assert reported["version"] == relay_agent.__version__
    assert reported["revision"].removesuffix("-modified") == commit("%H")
    assert reported["created"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(commit("%ct"))))
    assert reported["source"] == os.environ.get("SOURCE", "")
    assert (reported["title"], reported["licenses"]) == (f"ts-agent-http-relay{kind}", "Apache-2.0")
    assert reported["description"]


def test_all_its_files_have_the_time_of_the_commit(files: tarfile.TarFile) -> None:
    epoch = int(commit("%ct"))
    assert [member.name for member in files if member.mtime != epoch] == []


def test_the_agents_user_may_write_nothing_but_its_state_and_tmp(files: tarfile.TarFile) -> None:
    open_to_it = [member.name for member in files if not member.issym() and (member.mode & 0o002 or 10001 in (member.uid, member.gid))]
    assert sorted(open_to_it) == ["tmp", "var/lib/relay-agent"]
    assert [member.name for member in files if member.mode & 0o6000] == []


def test_every_module_has_its_bytecode_which_no_start_looks_up_again(files: tarfile.TarFile) -> None:
    names = {member.name for member in files}
    modules = [name for name in names if name.endswith(".py") and "site-packages" in name]
    missing = [name for name in modules if not any(bytecode in names for bytecode in cached(name))]
    assert len(modules) > 500 and missing == []
    flags = {read(files, bytecode)[4:8] for name in modules[:50] for bytecode in cached(name) if bytecode in names}
    assert flags == {b"\x01\x00\x00\x00"}  # PEP 552: by hash, and unchecked.


def cached(name: str) -> list[str]:
    """Where a module's bytecode may be, for any Python."""
    path = Path(name)
    return [str(path.parent / "__pycache__" / f"{path.stem}.cpython-{version}.pyc") for version in ("311", "312", "313")]


def read(files: tarfile.TarFile, name: str) -> bytes:
    """The bytes of a file."""
    member = files.extractfile(name)
    assert member is not None
    return member.read()


def test_nothing_for_building_or_testing_is_in_it(files: tarfile.TarFile) -> None:
    unwanted = re.compile(
        r"/(pip|setuptools|wheel|ensurepip|SelfTest|idlelib|lib2to3)(/|$)|bin/(gcc|cc|apt|dpkg|perl|make|pip3?)$|/python3[.\d]*/test/|/build/"
    )
    assert [member.name for member in files if unwanted.search(f"/{member.name}")] == []


def test_of_botocores_data_only_what_the_agent_uses_is_in_it(files: tarfile.TarFile) -> None:
    data = {match[1] for member in files if (match := re.search(r"/botocore/data/([^/]+)", member.name))}
    assert {"sqs", "logs", "endpoints.json", "partitions.json"} <= data
    assert data <= {"sqs", "s3", "logs", "sts", "endpoints.json", "partitions.json", "_retry.json", "sdk-default-configuration.json"}


def test_no_file_names_the_machine_that_built_it(files: tarfile.TarFile) -> None:
    settings = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    hosts = set(re.findall(r"https?://[^/'\s]+", settings)) - {"https://pypi.org"}
    strange = [str(ROOT).encode(), b"/root-agent", b"/build/source", *(host.encode() for host in hosts)]
    found = [(member.name, word) for member in files if member.isfile() for word in strange if word in read(files, member.name)]
    assert found == []


def test_the_bundle_of_trusted_roots_is_debians_own(files: tarfile.TarFile) -> None:
    """A root that this machine trusts besides must not get into images."""
    bundle = read(files, "etc/ssl/certs/ca-certificates.crt").count(b"BEGIN CERTIFICATE")
    assert 100 < bundle < 200
    assert [member.name for member in files if member.name.startswith("usr/local/share/ca-certificates")] == []


def test_neither_history_nor_configuration_holds_a_secret_or_a_path_of_the_build() -> None:
    reported = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image()).stdout + json.dumps(inspect(image())["Config"])
    assert not re.search(r"eyJ|PIP_|INDEX_URL|proxy=|JWT=", reported)
    assert str(ROOT) not in reported and f"{tempfile.gettempdir()}/" not in reported


def test_every_line_of_the_lock_is_pinned_and_hashed() -> None:
    for name in ("requirements.lock", "requirements-sandbox.lock", "build.lock"):
        text = (ROOT / "docker" / name).read_text(encoding="utf-8")
        entries = re.split(r"\n(?=[a-z])", text.split("\n", 1)[1].strip())
        assert all(re.match(r"[a-z0-9.-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries), name
        assert "http" not in text


def test_the_same_commit_gives_the_same_layers(again: str) -> None:
    assert inspect(again)["RootFS"]["Layers"] == inspect(image())["RootFS"]["Layers"]


def test_a_build_by_hand_says_the_version_and_the_source_it_is_given_and_makes_nothing_up(again: str) -> None:
    reported = labels(again)
    assert (reported["version"], reported["source"]) == (relay_agent.__version__, "https://example.com/relay")
    assert (reported["revision"], reported["created"]) == ("", "")


def test_the_classic_builder_is_enough() -> None:
    recipe = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"^#\s*syntax|--mount|<<|COPY .*--link|--chmod", recipe, flags=re.MULTILINE)
    assert recipe.count("ARG BASE_IMAGE=python:3.13-slim-trixie") == 1


def test_a_read_only_root_is_enough_and_tmp_the_only_other_writable_place(started: Start) -> None:
    container = started().ready()
    assert container.exec("touch", "/tmp/a", check=False).returncode == 0
    for place in ("/", "/etc", "/opt/relay-agent", "/run", "/var/lib"):
        assert container.exec("touch", f"{place}/a", check=False).returncode != 0, place
    assert container.exec("id", "-u").stdout.strip() == "10001"
    status = container.exec("cat", "/proc/1/status").stdout
    assert set(re.findall(r"^Cap(?:Prm|Eff|Bnd):\s*(\S+)", status, flags=re.MULTILINE)) == {"0000000000000000"}
    assert re.search(r"^NoNewPrivs:\s*1$", status, flags=re.MULTILINE)
