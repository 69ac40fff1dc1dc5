"""docs/install.md: its commands can be typed, what it names exists, and its sizes are those that tests enforce.

tests/image/test_install_doc.py types all of it on a real engine.
"""

from __future__ import annotations

import re
import shlex

import pytest

import relay_agent
from relay_agent.config.settings import variables
from relay_agent.core.failures import Code
from relay_agent.storage.disk_space import BACKLOG_BYTES, RESERVE_BYTES
from relay_agent.storage.retention import KEEP_IDS
from tests.integration.test_log_budgets import COMMAND_BYTES, IDLE_YEAR_BYTES
from tests.pages import OPERATIONS, README, ROOT, inline, names, parse, rows, section
from tests.shell_blocks import OWN, PLACEHOLDER, own, shell_blocks

PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
DOCKER = ROOT / "docker"
FILES = ("run.sh", "verify.sh", "agent.env", "compose.yml", "ts-agent-http-relay.service")
RUN, VERIFY, TEMPLATE, COMPOSE, UNIT = ((DOCKER / name).read_text(encoding="utf-8") for name in FILES)
BLOCKS = list(shell_blocks(PAGE))
LINES = [line.removesuffix(OWN).strip() for block in BLOCKS for line in block.lines]
CONTAINER = "ts-agent-http-relay"
IMAGE = f"{CONTAINER}:v{relay_agent.__version__}"
ON_A_CONTAINER = frozenset({"exec", "inspect", "logs", "rm", "start", "stop"})
OTHERS = frozenset({"image", "info", "load", "ps", "rmi", "run", "version", "volume"})
SHELL = {"cat", "cd", "chmod", "chown", "cp", "df", "install", "rm", "sha256sum", "test", "vi"}
ENGINES = {"docker", "docker-compose", "podman", "./run.sh", "./verify.sh"}
SYSTEM = {"gunzip", "journalctl", "restorecon", "semanage", "systemctl", "timedatectl"}
FIRST = "Install in five steps"
OF_SCRIPTS = {f"{prefix}{name}" for prefix in ("", "RELAY_") for name in ("IMAGE_NAME", "CONTAINER_NAME", "ENV_FILE")}
OF_SCRIPTS |= {"LOG_DRIVER", "DOCKER_OPTIONS"}
TEMPLATES = set(re.findall(r"^#?([A-Za-z_]+)=", TEMPLATE, re.MULTILINE))


def words(line: str) -> list[str]:
    """One line's words, its assignments and where its output goes left out; a placeholder is a word."""
    plain = PLACEHOLDER.sub("X", line)
    found = shlex.split(plain.partition(" > ")[0])
    while found and re.match(r"[A-Z_]+=", found[0]):
        del found[0]
    return found


COMMANDS = [words(line) for line in LINES]


def of(program: str) -> list[list[str]]:
    """Every command of a program, in `$(…)` too."""
    inner = [words(found) for line in LINES for found in re.findall(r'"\$\((.*?)\)"', line)]
    return [command for command in [*COMMANDS, *inner] if command[0] == program]


# --- what it tells to type can be typed ---


def test_every_line_is_one_of_a_program_that_an_administrator_has() -> None:
    assert len(LINES) > 80
    assert {command[0] for command in COMMANDS} <= SHELL | ENGINES | SYSTEM


def test_what_everybody_needs_comes_first_and_fits_two_screens() -> None:
    first = section(PAGE, FIRST)
    assert PAGE.index(f"## {FIRST}") == PAGE.index("## ")
    assert len(first.split()) <= 400 and len(first.splitlines()) <= 60
    assert re.findall(r"^\*\*(\d)\. (\w+)\.\*\*", first, re.MULTILINE) == [
        (str(place), name) for place, name in enumerate(("Image", "Settings", "Check", "Run", "Verify"), 1)
    ]
    typed = [line for block in BLOCKS if block.section == FIRST for line in block.lines]
    ends = ["docker load", "vi agent.env", "check", "./run.sh", "./verify.sh"]
    assert [next(place for place, line in enumerate(typed) if end in line) for end in ends] == sorted(
        next(place for place, line in enumerate(typed) if end in line) for end in ends
    )


def test_every_command_of_the_agent_parses() -> None:
    asked = [command[command.index("relay-agent") + 1 :] for command in COMMANDS if "relay-agent" in command]
    asked += [command[command.index(IMAGE) + 1 :] for command in of("docker") if command[1] == "run" and "--entrypoint" not in command]
    shown = [shlex.split(found) for found in re.findall(r"`docker exec ts-agent-http-relay relay-agent ([^`]+)`", PAGE)]
    assert len(asked) > 15 and shown
    for args in [*filter(None, asked), *shown]:
        parse(args)


def test_every_command_of_docker_is_one_and_is_about_what_the_guide_has_made() -> None:
    found = of("docker")
    assert len(found) > 40
    for command in found:
        assert command[1] in ON_A_CONTAINER | OTHERS, command
        if command[1] in ON_A_CONTAINER:
            assert {CONTAINER, f"{CONTAINER}-2"} & set(command), command
        if command[1] == "run":
            assert IMAGE in command, command


def test_every_volume_is_that_of_run_sh_or_derived_from_it() -> None:
    volumes = set(re.findall(r"ts-agent-http-relay[\w-]*-state[\w-]*", PAGE))
    assert "container-state" in RUN and volumes == {f"{CONTAINER}-state", f"{CONTAINER}-2-state", f"{CONTAINER}-state-newer"}


def test_a_container_is_stopped_with_time_to_drain_wherever_it_is_stopped() -> None:
    stops = re.findall(r"docker stop[^`\n]*", PAGE)
    reported = [stop for stop in stops if CONTAINER in stop]
    assert len(reported) > 3 and all(" -t 40 " in stop for stop in reported)


def test_the_guides_own_command_gives_eight_variables_and_what_is_not_needed_empty() -> None:
    (command,) = (command for command in of("docker") if command[1] == "run" and "-d" in command)
    given = dict(command[place + 1].split("=") for place, word in enumerate(command) if word == "-e")
    assert {name for name, value in given.items() if value} == {"AGENT_ID", "API_TARGET", "JWT", "ORG_SLUG"}
    assert {name for name, value in given.items() if not value} == {"SECURE_COMMAND_KEY", "http_proxy", "https_proxy", "no_proxy"}
    assert {"--name", CONTAINER, "--restart=always", "--net=host"} <= set(command) and command[-1] == IMAGE


def test_files_are_taken_out_of_the_container_by_cat_never_by_docker_cp() -> None:
    assert [command for command in of("docker") if command[1] == "cp"] == []
    for text in (section(PAGE, "Daily operation"), OPERATIONS):
        assert "docker exec ts-agent-http-relay cat /tmp/support.zip > support.zip" in text and "`docker cp`" in text


def test_the_lines_for_systemd_are_those_of_the_units_own_head() -> None:
    head = UNIT.partition("[Unit]")[0]
    block = next(block for block in BLOCKS if block.section == "With systemd")
    reported = [part for line in re.findall(r"^#   (.+)$", head, re.MULTILINE) for part in line.split(" && ")]
    assert set(reported) <= {*block.lines, *(line.removesuffix(" agent.env /etc/ts-agent-http-relay/") for line in block.lines)}


def test_only_what_needs_the_readers_hand_is_marked_as_his() -> None:
    marked = [line for block in BLOCKS for line in block.lines if own(line)]
    assert 0 < len(marked) <= 16
    assert {words(line.removesuffix(OWN))[0] for line in marked} <= {"vi", "docker", "docker-compose", "podman"} | SYSTEM


@pytest.mark.parametrize("wrong", [["check", "--bogus"], ["nothing"], ["commands", "--state", "lost"]])
def test_a_command_that_is_none_would_be_found(wrong: list[str]) -> None:
    with pytest.raises(Exception, match=r"[Nn]o such|not one of"):
        parse(wrong)


# --- what it names exists ---


def test_it_is_about_this_version() -> None:
    assert set(re.findall(r"\bv(\d+\.\d+\.\d+)\b", PAGE)) == {relay_agent.__version__}


def test_every_setting_it_names_is_one_that_the_template_has() -> None:
    known = {variable.name for variable in variables()} | OF_SCRIPTS
    reported = {name for name in inline(PAGE) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+|JWT|\w+_proxy", name)} - {"IMAGE_ID", *Code}
    assert len(reported) > 15
    assert reported - known == set()
    settings = rows(section(PAGE, "Configure"), "setting")
    assert {name for row in settings for name in names(row[0])} <= TEMPLATES | OF_SCRIPTS


def test_every_default_it_states_is_the_agents() -> None:
    defaults = {variable.name: variable.default for variable in variables()}
    reported = [(name, names(row[1])) for row in rows(section(PAGE, "Configure"), "setting") for name in names(row[0]) if name in defaults]
    assert len(reported) > 6
    assert [(name, default[0] if default else "") for name, default in reported] == [(name, defaults[name]) for name, _ in reported]


def test_every_file_of_the_delivery_is_documented() -> None:
    reported = {name for row in rows(section(PAGE, "Prepare the host"), "file") for name in names(row[0])}
    written = (DOCKER / "tools" / "dist.sh").read_text(encoding="utf-8")
    copied = re.search(r"^for file in (.+); do$", written, re.MULTILINE)
    pages = re.search(r"^for page in (.+); do$", written, re.MULTILINE)
    chart = re.search(r"^chart=(.+)$", written, re.MULTILINE)
    monitoring = re.search(r"^for file in (.+); do cp \"docs/monitoring/", written, re.MULTILINE)
    assert copied and pages and chart and monitoring
    files = {*copied[1].split(), *(f"{page}.md" for page in pages[1].split()), "LICENSE", "CHANGELOG.md", f"{chart[1]}/"}
    files |= {"monitoring/", "README.md", *monitoring[1].split()}
    assert files <= reported
    ends = {re.sub(r"^ts-agent-http-relay(-sandbox)?-v\d+\.\d+\.\d+\.", "", name) for name in reported - files}
    assert ends == {"tar.gz", "sbom.cdx.json", "manifest.sha256", "SHA256SUMS", "IMAGE_ID"}


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("The agent is ready: container", RUN),
        ("the platform has not answered yet", RUN),
        ("must be corrected", RUN),
        ("GOOD: ", VERIFY),
        ("BAD: ", VERIFY),
        ("/run/secrets/jwt", COMPOSE),
        ("secrets/secure-command-key", COMPOSE),
        ("LoadCredential=jwt:/etc/ts-agent-http-relay/jwt", UNIT),
    ],
)
def test_what_a_script_is_said_to_say_it_says(said: str, source: str) -> None:
    assert said in source
    assert said in PAGE or said in ("must be corrected", "/run/secrets/jwt")


def test_the_events_and_codes_that_it_names_are_the_agents() -> None:
    events = {row[0].strip("`") for row in rows(section(OPERATIONS, "Log events"), "event")}
    assert {"agent-ready", "admin-unavailable", "upload-failed"} <= events & set(inline(PAGE))


# --- what it tells of sizes and limits is held ---


def cell(what: str, column: int = 2) -> str:
    """A cell of the table of requirements."""
    (found,) = (row[column] for row in rows(section(PAGE, "What you need"), "what") if row[0] == what)
    return found


def test_the_limits_of_image_and_memory_are_those_that_are_tested() -> None:
    limit = re.search(r"^limit=(\d+)$", (DOCKER / "tools" / "image.sh").read_text(encoding="utf-8"), re.MULTILINE)
    memory = re.search(r"^MEMORY_BYTES = ([\d_]+)$", (ROOT / "tests" / "image" / "test_guide.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert limit and memory
    assert f"{int(limit[1]) / 1e6:g} MB at most" in cell("disk for the image")
    assert f"under {int(memory[1]) / 1e6:g} MB" in cell("memory") and "--memory 1g" in RUN and "1 GB" in cell("memory", 1)


def test_the_sizes_of_the_log_are_those_of_its_budget() -> None:
    assert cell("disk for the log, a year idle", 1) == f"{IDLE_YEAR_BYTES / 1e6:g} MB"
    assert (
        cell("disk for the log, per 1,000 commands", 1)
        == f"{COMMAND_BYTES * 1000 / 1e6:g} MB of lines ({COMMAND_BYTES} bytes each at most)"
    )
    assert "log_driver=${log_driver:-local}" in RUN and "--log-driver local" in UNIT
    assert "driver: local" in COMPOSE and "five files of 20 MB" in cell("disk for the log, in all")


def test_the_sizes_of_the_state_are_those_of_the_code() -> None:
    state = cell("disk for the state")
    assert state.startswith(f"{RESERVE_BYTES / 1e6:.0f} MB are reserved") and f"at most {KEEP_IDS:,}" in state
    assert f"{BACKLOG_BYTES / 1e9:g} GB" == cell("disk in an outage", 1)
    reported = re.search(r"([\d.]+) MB per 1,000 commands.* (\d+) MB$", state)
    assert reported and float(reported[1]) * KEEP_IDS / 1000 == pytest.approx(float(reported[2]))


def test_the_oldest_docker_and_the_times_of_a_stop_are_those_of_the_scripts() -> None:
    lowest = re.search(r"^lowest=(\S+)$", RUN, re.MULTILINE)
    assert lowest and lowest[1] in cell("Docker", 1) and lowest[1] in section(PAGE, "Prepare the host")
    assert "stop_seconds=$((${drain:-25} + 15))" in RUN and "15 s more" in PAGE
    assert "stop_grace_period: 40s" in COMPOSE and "--stop-timeout 40" in UNIT and "compose and systemd wait 40 s" in PAGE


def test_every_host_that_the_agent_calls_is_in_the_table() -> None:
    reported = " ".join(name for row in rows(section(PAGE, "Ports and hosts to open"), "outbound to") for name in names(row[0]))
    for host in ("API_TARGET", "sqs.<region>.amazonaws.com", "s3.<region>.amazonaws.com", "logs.<region>.amazonaws.com"):
        assert host in reported
    trouble = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`((?:\*\.)?\w+\.<region>\.amazonaws\.com)`", trouble)) <= set(reported.split())


# --- it is found ---


def test_it_is_linked_and_every_section_from_its_contents() -> None:
    assert "](docs/install.md)" in README
    head = section(PAGE, "Contents") + "(#install-in-five-steps)(#contents)"
    titles = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)]
    assert [title for title in titles if f"(#{title})" not in head] == []
