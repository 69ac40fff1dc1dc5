"""The commands `check` and `explain`: their exit codes, and that no output shows a secret of the URL.

Against platforms and targets they are tested in `tests/integration/test_check_command.py` and `test_explain_command.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay_agent.cli import diagnose
from relay_agent.cli.checks.result import error, ok, warning
from relay_agent.cli.diagnose import check, explain_command
from relay_agent.diagnostics import local_causes, platform_causes
from tests.targets import ByteTarget, closed_port, reply


def run(command: Any, *args: str) -> Result:
    return CliRunner().invoke(command, args)


# --- check ---

SLOW = platform_causes.SLOW.about(seconds="3")


@pytest.mark.parametrize(
    ("found", "code", "end"),
    [
        ([ok("token", "valid")], 0, "1 ok"),
        ([ok("token", "valid"), warning(SLOW, "answers late")], 0, "1 ok, 1 warning"),
        ([error(platform_causes.REFUSED, "refused"), warning(SLOW, "x"), warning(SLOW, "y")], 1, "2 warnings, 1 error"),
        ([error(local_causes.CONFIGURATION.about(problems="JWT: is not set\nORG_SLUG: is not set"), "invalid")], 2, "1 error"),
    ],
    ids=["ok", "warning", "error", "configuration"],
)
def test_check_prints_each_check_and_their_numbers_and_ends_with_the_worst(
    environment: pytest.MonkeyPatch, found: list[Any], code: int, end: str
) -> None:
    environment.setattr(diagnose, "check_all", lambda *_args, **_more: found)
    result = run(check)
    assert (result.exit_code, result.stdout.rstrip().rpartition("\n")[2]) == (code, end)
    assert all(one.summary in result.stdout for one in found)
    as_json = run(check, "--json")
    assert (as_json.exit_code, [one["id"] for one in json.loads(as_json.stdout)["checks"]]) == (code, [one.id for one in found])


def test_every_line_of_a_cause_is_printed_and_its_cure_below_it(environment: pytest.MonkeyPatch) -> None:
    cause = local_causes.CONFIGURATION.about(problems="JWT: is not set\nORG_SLUG: is not set")
    environment.setattr(diagnose, "check_all", lambda *_args, **_more: [error(cause, "invalid")])
    lines = [line.strip() for line in run(check).stdout.splitlines()]
    first = next(place for place, line in enumerate(lines) if line.startswith("cause  "))
    assert "ORG_SLUG: is not set" in lines[first : first + 3]
    assert any(line.startswith("cure   ") for line in lines[first:])


def test_an_unexpected_error_is_one_line_and_the_debug_level_shows_it_all(environment: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any, **_more: Any) -> Any:
        raise RuntimeError("with a secret in it")

    environment.setattr(diagnose, "check_all", broken)
    result = run(check)
    assert (result.exit_code, "unexpected RuntimeError" in result.stderr, "secret" in result.output) == (1, True, False)
    environment.setenv("RELAY_LOG_LEVEL", "debug")
    assert isinstance(run(check).exception, RuntimeError)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--nagios", "--json"], "--nagios excludes --json"),
        (["--nagios", "--wrong"], "--wrong"),
        (["--nagios", "--env-file", "nowhere.env"], "there is no file nowhere.env"),
    ],
)
def test_as_a_plugin_wrong_usage_is_unknown_and_not_critical(arguments: list[str], words: str) -> None:
    result = run(check, *arguments)
    assert (result.exit_code, result.stdout.count("\n"), result.stderr) == (3, 1, "")
    assert result.stdout.startswith("RELAY AGENT UNKNOWN - ")
    assert words in result.stdout


def test_as_a_plugin_an_unexpected_error_is_unknown(environment: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any, **_more: Any) -> Any:
        raise RuntimeError("with a secret in it")

    environment.setattr(diagnose, "check_all", broken)
    result = run(check, "--nagios")
    assert (result.exit_code, "unexpected RuntimeError" in result.stdout, "secret" in result.output) == (3, True, False)


def test_as_a_plugin_an_agent_that_does_not_run_is_critical(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("RELAY_STATE_DIR", str(tmp_path))
    environment.setattr(diagnose, "check_all", lambda *_args, **_more: [ok("token", "valid")])
    result = run(check, "--nagios")
    assert (result.exit_code, result.stdout.startswith(f"RELAY AGENT CRITICAL - no agent runs on {tmp_path} | errors=0")) == (2, True)


# --- explain ---


def test_explain_ends_with_0_if_a_command_would_reach_the_target(environment: pytest.MonkeyPatch) -> None:
    with ByteTarget() as target:
        target.on("/a", reply(418))
        looked, sent = run(explain_command, target.url("/a")), run(explain_command, "--send", target.url("/a"))
    assert (looked.exit_code, looked.stdout.endswith("A command would reach the target.\n")) == (0, True)
    assert (sent.exit_code, sent.stdout.endswith("The request reached the target, which answered 418.\n")) == (0, True)


def test_explain_ends_with_1_and_the_code_that_a_command_would_get(environment: pytest.MonkeyPatch) -> None:
    result = run(explain_command, f"http://127.0.0.1:{closed_port()}/")
    assert (result.exit_code, result.stdout.endswith("A command would fail with ECONNREFUSED.\n")) == (1, True)


@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_no_output_shows_user_info_or_query(environment: pytest.MonkeyPatch, option: tuple[str, ...]) -> None:
    url = f"http://canary-user:canary-password@127.0.0.1:{closed_port()}/path?canary-query"
    assert "canary" not in run(explain_command, *option, url).output


@pytest.mark.parametrize("args", [(), ("--nonsense", "http://h/"), ("http://h/", "http://i/")])
def test_wrong_usage_of_explain_ends_with_1_since_2_means_an_invalid_configuration(
    environment: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    assert run(explain_command, *args).exit_code == 1


def test_an_invalid_setting_is_shown_as_a_stage(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("https_proxy", "ftp://canary")
    result = run(explain_command, "http://h/")
    assert result.exit_code == 1
    assert "configuration" in result.stdout and "invalid: https_proxy" in result.stdout
    assert result.stdout.endswith("Nothing was checked.\n")


def test_a_missing_settings_file_that_was_named_is_reported(environment: pytest.MonkeyPatch) -> None:
    result = run(explain_command, "--env-file", "nowhere.env", "http://h/")
    assert (result.exit_code, "there is no file nowhere.env" in result.stdout) == (1, True)
