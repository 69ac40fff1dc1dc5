"""What verify.sh makes of the agent's status and of signatures, with a `docker` that answers from files.

On a real engine: tests/image/test_scripts.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT

DOCKER = """#!/bin/sh
case "$*" in
*"{{.Name}}"*) echo /ts-agent-http-relay ;;
*"{{.State.Paused}}"*) echo false ;;
*"{{.State.Running}}"*) echo true false ;;
*"status --json"*) cat "$STATUS" ;;
*Labels*) ;;
*) echo something ;;
esac
"""


@pytest.fixture
def verified(tmp_path: Path) -> Any:
    """Run verify.sh for an agent with these ends; its lines."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    shutil.copy(ROOT / "docker" / "verify.sh", tmp_path)

    def run(ending: list[dict[str, str]], good: bool | None = True, **more: str) -> list[str]:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        facts = {"state": "ready", "sentence": "Ready.", "lastConfiguration": now, "lastHeartbeat": now, "ending": ending}
        (tmp_path / "status").write_text(json.dumps(facts, indent=2), encoding="utf-8")
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "STATUS": str(tmp_path / "status"), **more}
        done = subprocess.run(
            [tmp_path / "verify.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stderr == "", done.stderr
        if good is not None:
            assert (done.returncode, done.stdout.splitlines()[-1].split(":")[0]) == ((0, "GOOD") if good else (1, "BAD")), done.stdout
        return done.stdout.splitlines()

    return run


def test_what_ends_soon_is_remarked_and_all_is_good_nevertheless(verified: Any) -> None:
    says = ['the CA certificate CN=The "Lab" CA in C:\\ca.pem expires on 2026-12-01', "the JWT expires on 2026-12-02 03:00 UTC, in 9 days"]
    ending = [{"role": "ca", "name": "ca.pem", "ends": "2026-12-01T00:00:00Z", "remark": remark} for remark in says]
    assert [line for line in verified(ending) if "expiry" in line] == [f"-     expiry     {remark}" for remark in says]


def test_without_an_end_there_is_no_remark(verified: Any) -> None:
    assert [line for line in verified([]) if "expiry" in line] == []


# --- the signature of SHA256SUMS ---

OPENSSL = ("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key")
KEYS = {
    "openssl": (OPENSSL, ("openssl", "pkey", "-in", "key", "-pubout", "-out", "signing-key.pub")),
    "minisign": (("minisign", "-G", "-W", "-f", "-s", "key", "-p", "signing-key.pub"),),
}


@pytest.fixture(params=list(KEYS))
def signed(request: pytest.FixtureRequest, tmp_path: Path, verified: Any) -> Path:
    """A delivery that is signed as `make dist-image SIGN=key` does it, with the public key beside it."""
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param} here")
    for command in KEYS[request.param]:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    image = tmp_path / "ts-agent-http-relay-v0.1.0.tar.gz"
    image.write_bytes(b"an image")
    sums = subprocess.run(["sha256sum", image.name, "verify.sh"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    (tmp_path / "SHA256SUMS").write_text(sums, encoding="utf-8")
    subprocess.run([ROOT / "docker" / "tools" / "sign.sh", "SHA256SUMS", "key"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def on_signature(verify: Any) -> str:
    """The word and the text of the only line on the signature."""
    (line,) = re.findall(r"^(\S+ +signature .*)$", "\n".join(verify([])), re.MULTILINE)
    return " ".join(line.split())


def test_a_signature_is_verified_where_the_public_key_is(signed: Path, verified: Any) -> None:
    assert on_signature(verified).startswith("ok signature SHA256SUMS is signed with the key in signing-key.pub")
    (signed / "signing-key.pub").unlink()
    assert on_signature(verified).startswith("- signature not verified: put the vendor's public key")


def test_a_list_that_was_changed_or_whose_signature_is_missing_is_bad(signed: Path, verified: Any) -> None:
    sums = signed / "SHA256SUMS"
    was = sums.read_text(encoding="utf-8")
    sums.write_text(was.replace("0", "1", 1), encoding="utf-8")
    assert on_signature(lambda ending: verified(ending, good=False)).startswith("BAD signature SHA256SUMS.")
    sums.write_text(was, encoding="utf-8")
    for end in ("sig", "minisig"):
        (signed / f"SHA256SUMS.{end}").unlink(missing_ok=True)
    assert on_signature(lambda ending: verified(ending, good=False)).startswith("BAD signature there is signing-key.pub, but no signature")


def test_a_delivery_that_is_not_signed_is_not_blamed_for_it_without_a_key(verified: Any) -> None:
    assert [line for line in verified([]) if "signature" in line] == []


# --- where the names come from ---


@pytest.mark.parametrize(
    ("environment", "file", "says"),
    [
        ({}, "", "container ts-agent-http-relay (default)"),
        ({"CONTAINER_NAME": "old"}, "", "container old (CONTAINER_NAME in the environment)"),
        ({"CONTAINER_NAME": "old", "RELAY_CONTAINER_NAME": "ours"}, "", "container ours (RELAY_CONTAINER_NAME in the environment)"),
        ({}, "CONTAINER_NAME=file", "container file (CONTAINER_NAME in FILE)"),
        (
            {"CONTAINER_NAME": "old"},
            "CONTAINER_NAME=file",
            "container old (CONTAINER_NAME in the environment, instead of file in FILE)",
        ),
        ({"CONTAINER_NAME": "old"}, "RELAY_CONTAINER_NAME=file", "container file (RELAY_CONTAINER_NAME in FILE)"),
    ],
)
def test_the_name_of_the_container_is_shown_with_its_origin(
    verified: Any, tmp_path: Path, environment: dict[str, str], file: str, says: str
) -> None:
    settings = tmp_path / "agent.env"
    settings.write_text(f"{file}\n", encoding="utf-8")
    assert f"-     names      {says.replace('FILE', str(settings))}" in verified([], good=None, **environment)


def test_what_both_scripts_do_they_do_alike() -> None:
    """Each stands alone, so that an administrator may copy one of them."""
    parts = []
    for name in ("run.sh", "verify.sh"):
        text = (ROOT / "docker" / name).read_text(encoding="utf-8")
        (part,) = re.findall(r"^# --- The same in run\.sh and verify\.sh.*?^# --- End of what is the same", text, re.DOTALL | re.MULTILINE)
        parts.append(part)
    assert parts[0] == parts[1] and "choose()" in parts[0]
