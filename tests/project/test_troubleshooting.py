"""docs/troubleshooting.md: everything that can be met at night is in it, and every command in it can be typed."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from relay_agent.core.failures import Code
from tests.pages import LOGS, OPERATIONS, PROTOCOL, ROOT, blocks, inline, names, parse, rows, section

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CONTAINER = "ts-agent-http-relay"
ON_A_CONTAINER = frozenset({"cp", "exec", "inspect", "kill", "logs", "rm", "start", "stop", "restart", "unpause"})
OTHERS = frozenset({"images", "load", "ps", "run", "system", "volume"})
TOOLS = frozenset({"cat", "nslookup"})
"""What of the image's busybox the page uses."""
CODES = rows(section(PAGE, "Error codes"), "code")
ENDS = rows(section(PAGE, "The container does not stay up"), "exit code")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "relay_agent").rglob("*.py"))


def shell_lines(text: str) -> list[str]:
    """The lines of a page's `sh` blocks, each with those that continue it."""
    joined = re.sub(r"(\\|\|)\n\s*", lambda match: " " if match[1] == "\\" else "| ", "".join(blocks(text, "sh")))
    return joined.splitlines()


def words(line: str) -> list[str]:
    """One command's words; what another command gives in its place is one of them."""
    return shlex.split(re.sub(r'"\$\(.*?\)"', "IMAGE", line), comments=True)


def commands(text: str) -> list[list[str]]:
    """Every command of the agent and of Docker on the page; each part of a pipe, and the content of `$(…)`, is separate."""
    lines = [*shell_lines(text), *(code for code in inline(text) if re.match(r"(docker|relay-agent) \S", code))]
    inner = [found for line in lines for found in re.findall(r'"\$\((.*?)\)"', line)]
    parts = [part for line in [*lines, *inner] for part in re.split(r" \| ", line)]
    found = [words(part.partition(" > ")[0]) for part in parts]
    return [command for command in found if command[0] == "relay-agent" or len(command) > 2]  # `docker exec` alone is only named


# --- everything is in it ---


def test_every_error_code_has_its_row_and_no_cell_of_it_is_empty() -> None:
    assert sorted(code for row in CODES for code in names(row[0])) == sorted(Code)
    assert [row for row in CODES if len(row) != 5 or not all(row)] == []


def test_every_row_of_a_code_begins_with_whether_the_target_may_have_got_the_request() -> None:
    reported = {names(row[0])[0]: re.match(r"\*?(no|perhaps|yes)\b", row[4]) for row in CODES}
    assert [code for code, match in reported.items() if match is None] == []


def test_a_code_of_which_the_protocol_says_that_nothing_was_sent_says_no() -> None:
    unsent = {names(row[0])[0] for row in rows(section(PROTOCOL, "Error codes"), "code") if "nothing was sent" in row[2]}
    assert len(unsent) >= 4
    assert {names(row[0])[0] for row in CODES if row[4] == "no"} >= unsent


def test_the_codes_that_are_rejected_are_those_of_the_protocol() -> None:
    rejected = {names(row[0])[0] for row in rows(section(PROTOCOL, "Error codes"), "code") if row[1] == "REJECTED"}
    assert {names(row[0])[0] for row in CODES if "(REJECTED)" in row[1]} == rejected


def test_every_statuscode_of_the_guide_has_its_row() -> None:
    reported = [row[0] for row in rows(section(PAGE, "A command fails with a statusCode"), "statusCode")]
    assert reported[:5] == ["401", "403", "407", "502", "503"]


def test_every_event_of_the_levels_warning_and_error_is_named() -> None:
    wanted = {names(row[0])[0] for row in rows(section(LOGS, "Events"), "event") if re.search(r"warning|error", row[1])}
    assert len(wanted) > 20
    assert wanted - set(inline(PAGE)) == set()


def test_every_check_is_named() -> None:
    wanted = {names(row[0])[0] for row in rows(section(OPERATIONS, "Checks"), "check")}
    assert len(wanted) > 10
    assert wanted - {"target"} - set(inline(PAGE)) == set()  # `target` is asked with `check --target`; here `explain` says the same


def test_no_row_of_any_table_has_an_empty_or_a_missing_cell() -> None:
    tables = re.findall(r"^\|.*(?:\n\|.*)+", PAGE, re.MULTILINE)
    assert len(tables) > 8
    for table in tables:
        found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
        assert [row for row in found if len(row) != len(found[0]) or not all(row)] == []


# --- what it quotes is so ---


def test_the_exit_codes_of_run_are_those_of_the_manual() -> None:
    column = [row[:2] for row in rows(section(OPERATIONS, "Exit codes"), "command")]
    start = next(place for place, row in enumerate(column) if row[0] == "`run`")
    end = next(place for place, row in enumerate(column) if place > start and row[0])
    reported = {int(code) for row in ENDS for code in re.findall(r"\d+", row[0])}
    assert {code for code in reported if code < 125} == {int(row[1]) for row in column[start:end]}


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("agent-stopped", "stopped cleanly"),
        ("the JWT expired on", "the JWT has expired"),
        ("the journal was written by a newer agent", "a newer agent wrote the journal"),
        ("no progress for", "no progress for 5 minutes"),
        ("thread-died", "a core thread died"),
        ("The configuration is invalid", "the configuration is invalid"),
        ("the agent, another agent or", "another agent holds the state directory"),
        ("platform-failed", "the platform refused it at the start"),
    ],
)
def test_a_last_line_has_the_exit_code_that_the_manual_gives_its_meaning(line: str, meaning: str) -> None:
    manual = {row[1] for row in rows(section(OPERATIONS, "Exit codes"), "command") if meaning in row[2]}
    assert len(manual) == 1
    assert {row[0] for row in ENDS if line in inline(row[1])} == manual


def test_an_exit_code_named_beside_a_command_is_one_of_its_own() -> None:
    manual: dict[str, set[str]] = {}
    command = ""
    for row in rows(section(OPERATIONS, "Exit codes"), "command"):
        command = row[0] or command
        for name in names(command):
            manual.setdefault(name, set()).add(row[1])
    named = re.findall(r"[`*](status|check|explain|commands)[`*][^|.]*?((?:exit code \d+[^|.]*?)+)[.|]", PAGE)
    assert len(named) >= 3
    for name, reported in named:
        own = manual["run"] if "at the start" in reported else manual[name]
        assert set(re.findall(r"exit code (\d+)", reported)) - own == set(), reported


def test_every_line_that_it_says_the_agent_prints_is_one_that_the_agent_has() -> None:
    events = set(re.findall(r"^\| `([^`]+)` \|", LOGS, re.MULTILINE))
    printed = {line for row in ENDS for line in inline(row[1])} - events
    printed = {line for line in printed if not re.fullmatch(r"[A-Z_]+|reason", line)}
    assert len(printed) >= 7
    assert [line for line in printed if line.removeprefix("RELAY_STATE_DIR: ") not in SOURCE] == []


# --- what it tells to type can be typed ---


def test_every_command_of_the_agent_parses() -> None:
    ours = [found[found.index("relay-agent") + 1 :] for found in commands(PAGE) if "relay-agent" in found]
    assert len(ours) > 8
    for args in ours:
        parse(args)


def test_every_command_of_docker_is_one_and_is_about_the_container_of_the_guide() -> None:
    found = [command for command in commands(PAGE) if command[0] == "docker"]
    assert len(found) > 15
    for command in found:
        assert command[1] in ON_A_CONTAINER | OTHERS, command
        if command[1] in ON_A_CONTAINER:
            assert any(word.partition(":")[0] == CONTAINER for word in command), command
        if command[1] == "exec":
            assert command[2] == CONTAINER, command
            assert command[3] in TOOLS | {"relay-agent"}, command


def test_every_line_of_a_shell_block_is_docker_s() -> None:
    """A reader who has only docker can type all of them."""
    assert shell_lines(PAGE)
    assert [line for line in shell_lines(PAGE) if not line.startswith("docker ")] == []


def test_a_command_beside_a_container_that_restarts_is_run_in_one_of_its_own() -> None:
    (beside,) = [found for found in commands(PAGE) if found[:2] == ["docker", "run"] and "--rm" in found]
    assert beside[beside.index("IMAGE") + 1 :] == ["check"]
    parse(beside[beside.index("IMAGE") + 1 :])


@pytest.mark.parametrize("wrong", [["check", "--bogus"], ["commands", "--limit", "many"], ["nothing"], ["explain"], ["commands", "show"]])
def test_a_command_that_is_none_would_be_found(wrong: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(wrong)


# --- it is found ---


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_it_is_linked(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.search(r"\]\((docs/)?troubleshooting\.md\)", text)


def test_every_section_is_linked_from_its_head() -> None:
    head = PAGE.partition("\n## ")[0]
    titles = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)]
    assert [title for title in titles if f"(#{title})" not in head and title != "error-codes"] == []
