"""docker/podman's Quadlet unit, read by Quadlet itself. No Podman runs here: the unit's keys become options of `podman run`."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pages import ROOT

UNIT = ROOT / "docker" / "podman" / "ts-agent-http-relay.container"
RUN = (ROOT / "docker" / "run.sh").read_text(encoding="utf-8")
FETCHED = ROOT / "build" / "tools" / "deployment" / "quadlet"
INSTALLED = (Path("/usr/libexec/podman/quadlet"), Path("/usr/lib/podman/quadlet"))
QUADLET = next((path for path in (*INSTALLED, FETCHED) if path.is_file()), None)
needs_quadlet = pytest.mark.skipif(QUADLET is None, reason="no Quadlet on this machine: make deployment")


def service(place: Path, unit: str, *options: str) -> str:
    """The service that Quadlet makes of the unit; fail with what it says if it makes none."""
    assert QUADLET is not None
    (place / UNIT.name).write_text(unit, encoding="utf-8")
    done = subprocess.run(
        [QUADLET, *options, "-dryrun"], env={"QUADLET_UNIT_DIRS": str(place)}, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0 and "---ts-agent-http-relay.service---" in done.stdout, done.stderr
    return done.stdout.partition("---ts-agent-http-relay.service---\n")[2]


def words(text: str) -> list[str]:
    """The words of the service's command; an option and its value are one, however they are written."""
    (command,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    found = shlex.split(command)
    return [*found, *(f"{name}={value}" for name, value in itertools.pairwise(found) if name.startswith("-"))]


@needs_quadlet
@pytest.mark.parametrize("options", [(), ("-user",)], ids=["root", "rootless"])
def test_quadlet_makes_a_service_that_confines_the_agent_as_run_sh_does(options: tuple[str, ...], tmp_path: Path) -> None:
    text = service(tmp_path, UNIT.read_text(encoding="utf-8"), *options)
    found = words(text)
    (confined,) = re.findall(r'^    docker run (.+?)^        --env-file "\$work/env"', RUN, re.MULTILINE | re.DOTALL)
    (service_only,) = re.findall(r'^start --detach (.+?)^    "\$@"', RUN, re.MULTILINE | re.DOTALL)
    given = shlex.split((confined + service_only).replace("\\\n", " "))
    elsewhere = {  # How systemd and Podman do it.
        "--name": "--name=ts-agent-http-relay",
        "--net=host": "--network=host",
        "--cap-drop=ALL": "--cap-drop=all",
        "--security-opt": "--security-opt=no-new-privileges",
        "--log-driver": "--log-driver=journald",
        "--stop-timeout": "--stop-timeout=40",
        "--volume": "-v=ts-agent-http-relay-state:/var/lib/relay-agent:Z",
        "--restart=always": None,
        "--cidfile": None,
        "--label": None,  # For verify.sh.
    }
    checked = 0
    for name, value in zip(given, [*given[1:], ""], strict=True):
        if name.startswith("--"):
            wanted = elsewhere.get(name, f"{name}={value}" if value and not value.startswith("-") and "=" not in name else name)
            assert wanted is None or wanted in found, (name, wanted)
            checked += 1
    assert checked > 10
    assert {"Restart=always", "RestartSec=5", "TimeoutStopSec=60"} <= set(text.splitlines())
    assert not re.search(r"^Restart=(?!always)", text, re.MULTILINE)


@needs_quadlet
def test_the_secrets_are_files_and_the_settings_lie_beside_the_unit(tmp_path: Path) -> None:
    found = words(service(tmp_path, UNIT.read_text(encoding="utf-8")))
    assert f"--env-file={tmp_path}/ts-agent-http-relay.env" in found
    assert {"--env=JWT=", "--env=SECURE_COMMAND_KEY=", "--env=JWT_FILE=/run/secrets/jwt"} <= set(found)
    assert "--secret=ts-agent-http-relay-jwt,type=mount,target=jwt,uid=10001,gid=10001,mode=0400" in found


@needs_quadlet
def test_the_lines_with_a_comment_sign_become_options_without_it(tmp_path: Path) -> None:
    text, count = re.subn(r"^#(?=(Environment|Secret|Volume)=)", "", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 4
    found = words(service(tmp_path, text))
    assert "--env=SECURE_COMMAND_KEY_FILE=/run/secrets/secure-command-key" in found
    assert "-v=/etc/ts-agent-http-relay/certificates:/etc/ts-agent-http-relay/certificates:ro,z" in found


def test_every_mount_has_a_label_for_selinux() -> None:
    mounts = re.findall(r"^#?Volume=(\S+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(mounts) == 3
    assert [mount for mount in mounts if not re.search(r":(ro,)?[zZ]$", mount)] == []


@needs_quadlet
def test_a_key_that_is_none_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="unsupported key"):
        service(tmp_path, UNIT.read_text(encoding="utf-8").replace("[Service]", "DropCapabilities=all\n\n[Service]"))


@needs_quadlet
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_finds_nothing_wrong_with_the_service(tmp_path: Path) -> None:
    text = service(tmp_path, UNIT.read_text(encoding="utf-8"))
    (tmp_path / "service").mkdir()
    path = tmp_path / "service" / "ts-agent-http-relay.service"
    path.write_text(text.replace("/usr/bin/podman", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if path.name in line]) == (0, []), done.stderr
