"""The unit on a real systemd, which runs in a container of its own and uses this machine's engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import relay_agent
from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from tests.image.engine import DIST, DOCKER, MARK, ROOT, Container, docker, fresh_name, image, inspect, wait_until
from tests.shell_blocks import own, shell_blocks

INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
UNIT = "ts-agent-http-relay"
IMAGE = f"relay-test-systemd:{os.getpid()}"
SHARED = Path("/run", UNIT)
"""The engine resolves what the unit mounts on this machine, so the unit's runtime directory is the same here and there."""
BOOT = (
    "--entrypoint /sbin/init --security-opt seccomp=unconfined --cgroupns=host --tmpfs /run --tmpfs /run/lock --tmpfs /tmp"
    " -v /sys/fs/cgroup/systemd:/sys/fs/cgroup/systemd:rw -v /var/run/docker.sock:/var/run/docker.sock2 -e container=docker"
)
ENGINE = "unix:///var/run/docker.sock2"
STUB = """[Unit]
Description=The engine is this machine's
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""


class Machine:
    """A machine with systemd, on which the delivered unit is installed."""

    def __init__(self, place: Path) -> None:
        self.name = fresh_name("systemd")
        self.agent = fresh_name("unit")
        self._place = place

    def boot(self) -> None:
        """Start it, and install the unit as its head says."""
        docker("volume", "create", "--label", MARK, f"{self.agent}-state")
        shim = self._place / "docker"
        shim.write_text(f'#!/bin/sh\n[ "$1" != run ] || {{ shift; exec /opt/docker run --label {MARK} "$@"; }}\nexec /opt/docker "$@"\n')
        shim.chmod(0o755)
        mounts = ["-v", f"{Path(DOCKER).resolve()}:/opt/docker:ro", "-v", f"{shim}:/usr/bin/docker:ro", "-v", f"{SHARED}:{SHARED}"]
        docker("run", "-d", "--label", MARK, "--name", self.name, "--net=host", *BOOT.split(), *mounts, IMAGE)
        wait_until(lambda: self.sh("systemctl is-system-running || :") in ("running", "degraded"), "systemd has booted")
        docker("cp", str(DIST / f"{UNIT}.service"), f"{self.name}:/etc/systemd/system/")
        self.write("/etc/systemd/system/docker.service", STUB)
        self.sh("systemctl enable docker")
        self.drop_in("test", f"Environment=CONTAINER_NAME={self.agent} DOCKER_HOST={ENGINE}\nRestartSec=1")

    def sh(self, script: str, check: bool = True, text_in: str | None = None) -> str:
        """Run a script on it."""
        flags = ("-i",) if text_in is not None else ()
        return docker(
            "exec", *flags, "-e", f"DOCKER_HOST={ENGINE}", self.name, "sh", "-c", script, check=check, text_in=text_in
        ).stdout.strip()

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Write a file on it."""
        self.sh(f"mkdir -p {Path(path).parent} && umask 077 && cat >{path} && chmod {mode} {path}", text_in=text)

    def drop_in(self, name: str, text: str) -> None:
        """Change the unit, as `systemctl edit` does."""
        self.write(f"/etc/systemd/system/{UNIT}.service.d/{name}.conf", f"[Service]\n{text}\n")
        self.sh("systemctl daemon-reload")

    def end(self) -> None:
        """Remove it, and what the unit left."""
        docker("exec", self.name, "systemctl", "stop", UNIT, check=False)
        docker("rm", "--force", "--volumes", self.agent, check=False)
        docker("rm", "--force", "--volumes", self.name, check=False)
        docker("volume", "rm", "--force", f"{self.agent}-state", check=False)


@pytest.fixture(scope="module")
def _systemd_image() -> Iterator[None]:
    made = subprocess.run(
        [ROOT / "docker" / "tools" / "base.sh", IMAGE],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PACKAGES": "systemd,systemd-sysv,dbus"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    yield
    docker("rmi", IMAGE)


@pytest.fixture
def machine(_systemd_image: None, tmp_path: Path) -> Iterator[Machine]:
    """A machine that has booted."""
    made = not SHARED.exists()
    SHARED.mkdir(mode=0o711, exist_ok=True)
    one = Machine(tmp_path)
    try:
        one.boot()
        yield one
    finally:
        one.end()
        if made:
            shutil.rmtree(SHARED, ignore_errors=True)


def env_file(settings: dict[str, str], **changes: str) -> str:
    """An agent.env with these settings."""
    return "".join(f"{name}={value}\n" for name, value in {**settings, **changes}.items())


def test_the_unit_starts_restarts_drains_and_stops_the_agent(
    machine: Machine, sandbox: Sandbox, agent_id: str, settings: dict[str, str], demo_target: DemoTarget
) -> None:
    machine.write(f"/etc/{UNIT}/agent.env", env_file(settings), "0600")
    machine.sh(f"systemctl enable --now {UNIT}")
    assert machine.sh(f"systemctl is-enabled {UNIT}") == "enabled"
    container = Container(sandbox, machine.agent, agent_id)
    wait_until(lambda: docker("inspect", machine.agent, check=False).returncode == 0, "the unit makes its container")
    container.ready()
    command = container.get(f"{demo_target.http_url}/json")
    assert command.status == "SUCCESS"
    assert '"event":"agent-ready"' in machine.sh(f"journalctl -u {UNIT} -o cat --no-pager")
    host = inspect(machine.agent)["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"], host["Memory"]) == ("host", True, ["ALL"], 1 << 30)

    before = inspect(machine.agent)["Id"]
    container.kill()
    wait_until(lambda: docker("inspect", "--format", "{{.Id}}", machine.agent, check=False).stdout.strip() not in ("", before), "a new one")
    container.ready()
    assert command.id in container.exec("relay-agent", "commands", "--json").stdout

    gate = demo_target.gate("unit-stop")
    held = container.create(f"{demo_target.http_url}/gate/unit-stop")
    assert gate.entered.wait(20)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(machine.sh, f"systemctl stop {UNIT}")
        container.wait_log("agent-stopping")
        gate.release()
        stopping.result(60)
    assert sandbox.wait_final(held.id, 5).status == "SUCCESS"
    assert machine.sh(f"systemctl show -p ActiveState,Result {UNIT}").split() == ["Result=success", "ActiveState=inactive"]
    assert docker("inspect", machine.agent, check=False).returncode != 0, "the container is removed with the unit's stop"


def test_systemctl_kill_drains_and_starts_it_again(machine: Machine, sandbox: Sandbox, agent_id: str, settings: dict[str, str]) -> None:
    machine.write(f"/etc/{UNIT}/agent.env", env_file(settings), "0600")
    machine.sh(f"systemctl start {UNIT}")
    container = Container(sandbox, machine.agent, agent_id)
    wait_until(lambda: docker("inspect", machine.agent, check=False).returncode == 0, "the unit makes its container")
    container.ready()
    machine.sh(f"systemctl kill --signal=TERM --kill-who=main {UNIT}")
    wait_until(lambda: machine.sh(f"systemctl show -p NRestarts --value {UNIT}") == "1", "systemd starts it again")
    assert '"event":"agent-stopped"' in machine.sh(f"journalctl -u {UNIT} -o cat --no-pager")


def test_secrets_are_taken_with_loadcredential_and_handed_to_the_containers_user(
    machine: Machine, sandbox: Sandbox, agent_id: str, settings: dict[str, str], demo_target: DemoTarget
) -> None:
    machine.write(f"/etc/{UNIT}/agent.env", env_file(settings, JWT="", SECURE_COMMAND_KEY=""), "0600")
    machine.write(f"/etc/{UNIT}/jwt", settings["JWT"], "0400")
    machine.write(f"/etc/{UNIT}/secure-command-key", "A" * 43, "0400")
    machine.drop_in("secrets", f"LoadCredential=jwt:/etc/{UNIT}/jwt\nLoadCredential=secure-command-key:/etc/{UNIT}/secure-command-key")
    machine.sh(f"systemctl start {UNIT}")
    container = Container(sandbox, machine.agent, agent_id)
    wait_until(lambda: docker("inspect", machine.agent, check=False).returncode == 0, "the unit makes its container")
    container.ready()
    assert container.get(f"{demo_target.http_url}/json").status == "SUCCESS"
    assert settings["JWT"] not in json.dumps(inspect(machine.agent)) + machine.sh(f"journalctl -u {UNIT} -o cat --no-pager")
    owners = {path.name: (path.stat().st_uid, path.stat().st_mode & 0o777) for path in (SHARED / "secrets").iterdir()}
    assert owners == {"jwt": (10001, 0o400), "secure-command-key": (10001, 0o400)}
    check = json.loads(container.exec("relay-agent", "check", "--json").stdout)["checks"]
    assert {one["id"]: one["status"] for one in check}["secure-key"] == "ok"


def test_the_installation_guides_lines_for_systemd_can_be_typed_in_order(
    machine: Machine, sandbox: Sandbox, agent_id: str, settings: dict[str, str], demo_target: DemoTarget
) -> None:
    """All that tests/image/test_install_doc.py leaves out, since it needs systemd."""
    delivery = f"/opt/{UNIT}"
    machine.sh(f"rm /etc/systemd/system/{UNIT}.service")
    machine.write(f"{delivery}/{UNIT}.service", (DIST / f"{UNIT}.service").read_text(encoding="utf-8"))
    machine.write(f"{delivery}/install.md", (DIST / "install.md").read_text(encoding="utf-8"))
    machine.write(f"{delivery}/agent.env", env_file(settings), "0600")
    machine.write("/root/token", settings["JWT"] + "\n", "0600")
    (edited,) = re.findall(r"^```ini\n\[Service\]\n(.*?)^```$", INSTALL, re.MULTILINE | re.DOTALL)
    container = Container(sandbox, machine.agent, agent_id)

    def by_hand(line: str) -> None:
        if line.startswith("systemctl edit"):
            machine.drop_in("override", edited)
        elif line.startswith("vi "):
            machine.sh(f"sed -i 's/^JWT=.*/JWT=/' {line.split()[1]}")

    reported: dict[str, str] = {}
    typed = 0
    for block in (block for page in (INSTALL, TROUBLE) for block in shell_blocks(page) if block.of_systemd):
        for line in block.lines:
            if own(line):
                by_hand(line)
                continue
            if line.startswith("journalctl"):  # A reader checks before going on.
                wait_until(lambda: docker("inspect", machine.agent, check=False).returncode == 0, "the unit makes its container")
                container.ready()
            line = line.replace("<file-with-the-token>", "/root/token").replace(f"{UNIT}:v{relay_agent.__version__}", image())
            reported[block.section] = reported.get(block.section, "") + machine.sh(f"cd {delivery} && {line}") + "\n"
            typed += 1
    assert reported["Prepare the host"].split()[:1] == ["enabled"]
    assert "active (running)" in reported["With systemd"] and '"event":"agent-ready"' in reported["With systemd"]
    assert f"Docs: file:{delivery}/install.md" in reported["With systemd"]
    assert typed >= 13

    wait_until(
        lambda: "JWT_FILE=/run/secrets/jwt" in docker("inspect", machine.agent, check=False).stdout, "a container with the credentials"
    )
    container.ready()
    assert container.get(f"{demo_target.http_url}/json").status == "SUCCESS"
    assert settings["JWT"] not in json.dumps(inspect(machine.agent))
    check = json.loads(container.exec("relay-agent", "check", "--json").stdout)["checks"]
    assert {one["id"]: one["status"] for one in check}["secure-key"] == "ok"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_the_unit_and_little_exposed(tmp_path: Path) -> None:
    for name in (f"{UNIT}.service", "docker.service"):
        (tmp_path / name).write_text(STUB if name == "docker.service" else (DIST / name).read_text(encoding="utf-8"), encoding="utf-8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / f"{UNIT}.service"], capture_output=True, text=True, check=False,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if UNIT in line]) == (0, [])
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", tmp_path / f"{UNIT}.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for .*: ([\d.]+)", judged.stdout)
    assert found and float(found[1]) < 5.0, judged.stdout[-300:] + judged.stderr
