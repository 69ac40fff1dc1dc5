"""docs/install.md and docs/troubleshooting.md, typed: every command line in order, on this engine, against the sandbox.

Names, directories and addresses are replaced by the test's own, so that nothing of this machine is touched. Lines that the pages mark
as the reader's own and lines that need a machine with systemd are skipped and counted; tests/image/test_systemd.py types the latter.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import relay_agent
from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from tests.image.conftest import SECONDS
from tests.image.engine import DIST, ROOT, Container, docker, fresh_name, image, inspect, wait_until
from tests.shell_blocks import PLACEHOLDER, Block, own, shell_blocks

INSTALL = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
NAME = "ts-agent-http-relay"
COMPOSE = "docker-compose" if shutil.which("docker-compose") else "docker compose"
STARTS = re.compile(r"\./run\.sh|docker start|docker run -d|up -d")
DNS = re.compile(r"\bnslookup\b")
"""Asks a DNS server, which is not the sandbox's to give."""


@dataclass
class Machine:
    """An administrator's machine: a delivery, settings, and the pages' words for what is on it."""

    place: Path
    container: Container
    settings: dict[str, str]
    words: dict[str, str]
    environment: dict[str, str]
    tag: str
    here: Path
    left_out: Counter[str] = field(default_factory=Counter)
    typed: int = 0
    fresh: bool = False
    volumes: set[str] = field(default_factory=set)
    """Those of its container at one time or another: one without a name is left when another container takes its place."""

    def here_for(self, line: str) -> str:
        """A page's line, with this machine's names in it."""
        line = re.sub(rf"docker rmi {NAME}:\S+", f"docker rmi {self.tag}", line)  # The tests after this one need the image.
        given = {name: self.settings[name] for name in ("no_proxy", "AWS_ENDPOINT_URL", "RELAY_ADMIN_ADDR")}
        line = line.replace("-e no_proxy= ", "".join(f"-e {name}={value} " for name, value in given.items()))
        for word, value in self.words.items():
            line = line.replace(word, value)
        assert not PLACEHOLDER.search(line), f"nothing is known for {line}"
        line = re.sub(rf"(?<![\w/.-]){NAME}(?=-2\b|-state\b|-2-state\b|[\s\"')]|$)", self.container.name, line)
        return line.replace("docker-compose", COMPOSE)

    def type(self, block: Block, by_hand: Callable[[str], None] = lambda line: None) -> str:
        """Type the lines of a block, as far as they can run here; each must end well. `by_hand` does what a line leaves to the reader."""
        if block.of_systemd:
            self.left_out["systemd"] += len(block.lines)
            return ""
        if self.fresh:
            self.wait_ready()
        reported = ""
        for line in block.lines:
            if own(line) or DNS.search(line):
                self.left_out["own" if own(line) else "dns"] += 1
                by_hand(line)
                continue
            reported += self.call(self.here_for(line))
            self.fresh |= STARTS.search(line) is not None
            self.typed += 1
        return reported

    def call(self, line: str) -> str:
        """Run one line in the directory that the lines before it have led to."""
        self.volumes.update(
            docker("inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", self.container.name, check=False).stdout.split()
        )
        done = subprocess.run(
            ["sh", "-euc", f'{line}\npwd >"$AFTERWARDS"'],
            cwd=self.here,
            env={**self.environment, "AFTERWARDS": str(self.place / "pwd")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        self.here = Path((self.place / "pwd").read_text(encoding="utf-8").strip())
        return done.stdout + done.stderr

    def wait_ready(self) -> None:
        """A reader looks before going on: where the container runs, its agent is ready."""
        reported = docker("inspect", "--format", "{{.State.Running}} {{.State.StartedAt}}", self.container.name, check=False).stdout.split()
        if reported[:1] == ["true"]:
            logs = ("logs", "--since", reported[1], self.container.name)
            wait_until(lambda: '"event":"agent-ready"' in docker(*logs).stdout, "the agent is ready")
            self.fresh = False

    def fill_in(self, name: str, **changes: str) -> None:
        """Fill in a file of settings, as with an editor; further settings go to its end."""
        file = self.here / name
        text = file.read_text(encoding="utf-8")
        for variable, value in changes.items():
            text, count = re.subn(rf"^#?{variable}=.*$", f"{variable}={value}", text, count=1, flags=re.MULTILINE)
            text += "" if count else f"{variable}={value}\n"
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)

    def end(self) -> None:
        """Remove what it made, by name: what a page's own command makes carries no label."""
        name = self.container.name
        docker("rm", "--force", "--volumes", name, f"{name}-2", f"{name}-previous", f"{name}-2-previous", check=False)
        docker(
            "volume",
            "rm",
            "--force",
            *(f"{name}{end}" for end in ("-state", "-2-state", "-state-newer", "_sandbox")),
            *self.volumes,
            check=False,
        )
        docker("rmi", self.tag, check=False)


@pytest.fixture
def machine(
    tmp_path: Path, sandbox: Sandbox, agent_id: str, settings: dict[str, str], labelled: dict[str, str], demo_target: DemoTarget
) -> Iterator[Machine]:
    """One that holds nothing yet but what was handed over."""
    container = Container(sandbox, fresh_name("typed"), agent_id)
    token = tmp_path / "token"
    token.write_text(settings["JWT"] + "\n", encoding="utf-8")
    home = tmp_path / container.name
    target = f"{demo_target.http_url}/json"
    words = {
        f"{NAME}:v{relay_agent.__version__}": image(),
        f"/opt/{NAME}": str(home),
        f"/etc/{NAME}": str(tmp_path / "etc"),
        "<where-the-delivery-is>": str(DIST),
        "<directory-of-the-old-delivery>": str(home),
        "<directory-of-the-new-delivery>": str(tmp_path / "newer"),
        "<image-of-the-new-delivery>": f"{image().replace(':', '-')}.tar.gz",
        "<address-of-the-platform>": sandbox.api_target,
        "https://api.tetrascience.com": sandbox.api_target,
        "<agent-id>": agent_id,
        "<organisation>": settings["ORG_SLUG"],
        "<token>": settings["JWT"],
        "<file-with-the-token>": str(token),
        "<file-with-the-new-token>": str(token),
        "<file-of-the-token>": str(tmp_path / "etc" / "secrets" / "jwt"),
        "<url-of-a-target>": target,
        "https://lims.lab.example:9005/": target,
        "http://127.0.0.1:8089/readyz": f"{sandbox.api_target}/",  # Its TCP page is off here: another agent may use the port.
    }
    for service in ("sqs", "s3", "logs"):
        words[f"https://{service}.<region>.amazonaws.com/"] = settings["AWS_ENDPOINT_URL"]
    tag = f"relay-test-typed:{uuid.uuid4().hex[:8]}"
    docker("tag", image(), tag)
    named = {
        "CONTAINER_NAME": container.name,
        "COMPOSE_PROJECT_NAME": container.name,
    }  # The delivery's project name belongs to a real agent.
    one = Machine(tmp_path, container, settings, words, {**labelled, **named}, tag, tmp_path)
    yield one
    one.end()


def only(page: str, section: str) -> list[Block]:
    """The blocks of one section."""
    found = [block for block in shell_blocks(page) if block.section == section]
    assert found, f"no block under {section}"
    return found


@pytest.mark.timeout(2 * SECONDS)  # It starts the agent a dozen times, and each start is checked before.
def test_every_line_of_the_installation_guide_can_be_typed_in_order(machine: Machine, sandbox: Sandbox, agent_id: str) -> None:
    second = sandbox.add_agent()
    (take_away,) = only(INSTALL, "Start it")
    secrets = machine.place / "etc" / "secrets"

    def by_hand(line: str) -> None:
        if "vi second.env" in line:
            machine.fill_in("second.env", AGENT_ID=second)
        elif "vi agent.env" in line and secrets.is_dir():
            machine.fill_in("agent.env", JWT="", JWT_FILE=f"{secrets}/jwt", SECURE_COMMAND_KEY_FILE=f"{secrets}/secure-command-key")
        elif "vi agent.env" in line:
            machine.fill_in("agent.env", **machine.settings)

    reported: dict[str, str] = {}
    first = {name: only(INSTALL, name)[0] for name in ("With run.sh", "With docker run", "With compose", "Verify", "Upgrade", "Uninstall")}
    blocks = [block for block in shell_blocks(INSTALL) if block != take_away]
    for block in blocks:
        if block in (first["With docker run"], first["With compose"], first["Verify"]):
            machine.type(take_away)
        if block == first["Verify"]:
            machine.type(first["With run.sh"])
        if block == first["Upgrade"]:
            shutil.copytree(DIST, machine.place / "newer")
        if block == first["Uninstall"]:
            assert machine.container.get(machine.words["<url-of-a-target>"]).status == "SUCCESS"
        reported[block.section] = reported.get(block.section, "") + machine.type(block, by_hand)
        if block.section == "Install in five steps":
            assert machine.here.stat().st_mode & 0o777 == 0o700  # As the page says, whatever the permissions of the source.

    assert f"Loaded image: {image()}" in reported["Install in five steps"]
    assert "The agent is ready: container" in reported["Install in five steps"]
    assert re.search(r"^GOOD: ", reported["Install in five steps"], re.MULTILINE) and "HTTP/1.1 200" in reported["Install in five steps"]
    assert "The agent is ready: container" in reported["With run.sh"]
    assert "Ready: waiting for commands." in reported["Verify"]
    assert "exited, exit code 0" in reported["Daily operation"]
    assert re.search(r"^GOOD: ", reported["Upgrade"], re.MULTILINE) and re.search(r"^GOOD: ", reported["Roll back"], re.MULTILINE)
    assert reported["Roll back"].count("No command matches") == 3
    assert docker("ps", "-aq", "--filter", f"name={machine.container.name}").stdout == ""
    assert not (machine.place / "etc").exists() and not (machine.place / machine.container.name).exists()
    lines = [line for block in blocks for line in block.lines]
    print(f"typed {machine.typed}, left out {dict(machine.left_out)}, of {len(lines)} lines")
    assert machine.left_out["dns"] == 0
    assert machine.typed + machine.left_out.total() >= len(lines)
    assert machine.left_out["own"] < 0.15 * len(lines)


def test_every_line_of_troubleshooting_can_be_typed_in_order(machine: Machine, demo_target: DemoTarget) -> None:
    machine.here = machine.place / machine.container.name
    shutil.copytree(DIST, machine.here, ignore=shutil.ignore_patterns("*.tar.gz"))
    machine.fill_in("agent.env", **machine.settings)
    machine.call("./run.sh")
    failed = machine.container.get(f"{demo_target.http_url}/status/404")
    assert failed.status == "FAILURE"
    machine.words[" show ID"] = f" show {failed.id}"
    blocks = list(shell_blocks(TROUBLE))
    seen: set[str] = set()
    reported = ""
    for block in blocks:  # A command that only reads, and has succeeded before, is not repeated.
        again = {line for line in block.lines if line in seen and line.startswith("docker exec")}
        reported += machine.type(replace(block, lines=tuple(line for line in block.lines if line not in again)))
        machine.typed += len(again)
        seen |= set(block.lines)
    assert "404" in reported
    bundle = machine.here / "support.zip"
    assert bundle.stat().st_size > 1000
    lines = [line for block in blocks for line in block.lines]
    print(f"typed {machine.typed}, left out {dict(machine.left_out)}, of {len(lines)} lines")
    assert machine.left_out == Counter({"dns": 1})
    assert machine.typed == len(lines) - 1


def used(container: Container) -> int:
    """Bytes of the journal that hold something; what was wiped is given back to the disk only bit by bit."""
    ask = "import sqlite3; c = sqlite3.connect('file:/var/lib/relay-agent/journal.db?mode=ro', uri=True); " + (
        "page, all, free = (c.execute(f'PRAGMA {name}').fetchone()[0] for name in ('page_size', 'page_count', 'freelist_count')); "
        "print(page * (all - free))"
    )
    return int(container.exec("python3", "-c", ask).stdout)


def test_the_sizes_in_the_guide_are_those_of_this_image(machine: Machine, demo_target: DemoTarget) -> None:
    size = re.search(r"image (\d+) MB \(130 MB at most\), its tarball (\d+) MB", INSTALL)
    assert size
    assert inspect(image())["Size"] / 1e6 == pytest.approx(float(size[1]), rel=0.05)
    assert (DIST / f"{image().replace(':', '-')}.tar.gz").stat().st_size / 1e6 == pytest.approx(float(size[2]), rel=0.05)
    machine.here = machine.place / machine.container.name
    shutil.copytree(DIST, machine.here, ignore=shutil.ignore_patterns("*.tar.gz"))
    machine.fill_in("agent.env", **machine.settings)
    machine.call("./run.sh")
    machine.container.ready()
    count, before = 400, used(machine.container)
    commands = [machine.container.create(f"{demo_target.http_url}/json") for _ in range(count)]
    for command in commands:
        assert machine.container.sandbox.wait_final(command.id, 30).status == "SUCCESS"
    wait_until(lambda: '"delivered": 400' in machine.container.exec("relay-agent", "status", "--json").stdout, "all is noted as delivered")
    wait_until(lambda: len([line for line in machine.container.logs if line["event"] == "command"]) == count, "each has its line")
    assert len(machine.container.output()) / count * 1000 <= 0.5e6
    journal = (used(machine.container) - before) / count * 1000
    reported = re.search(r"The journal takes ([\d.]+) to ([\d.]+) MB per 1,000 commands", INSTALL)
    assert reported
    print(f"the journal takes {journal / 1e6:.2f} MB per 1,000 commands")
    assert 0.5 * float(reported[1]) < journal / 1e6 <= float(reported[2])


def test_a_line_that_fails_is_found(machine: Machine) -> None:
    with pytest.raises(AssertionError, match="exit 1"):
        machine.type(Block("none", ("docker volume inspect relay-test-there-is-none",)))
    with pytest.raises(AssertionError, match="nothing is known"):
        machine.type(Block("none", ("cat <a-file-of-yours>",)))


def test_nothing_of_this_machine_is_named_by_what_is_typed(machine: Machine) -> None:
    """The names of the pages might be those of an agent that somebody runs here."""
    blocks = [block for page in (INSTALL, TROUBLE) for block in shell_blocks(page) if not block.of_systemd]
    typed = [line for block in blocks for line in block.lines if not own(line)]
    machine.words[" show ID"] = " show 0"
    shown = [re.sub(rf"{NAME}(-sandbox)?[:-]v[\d.]+|docker image \w+ .*", "", machine.here_for(line)) for line in typed]
    assert [line for line in shown if NAME in line] == []
    assert [line for line in shown if re.search(r"(?<!\w)/(etc|opt)/", line)] == []
    assert os.environ.get("CONTAINER_NAME") is None or os.environ["CONTAINER_NAME"] not in "".join(shown)
