"""What several commands share: a file of settings that was named must exist, wrong usage ends with 1, examples keep their lines."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from relay_agent.cli.options import CommandWithExamples, OneForWrongUsage, WrongUsage, env_file_named, env_file_option, require_env_file
from relay_agent.core.errors import ConfigurationError

EPILOG = """Examples:
  relay-agent one --with a very long line that a terminal of eighty columns would wrap, were it a paragraph
  relay-agent two"""


@click.command()
@env_file_option()
@click.pass_context
def reading(context: click.Context, env_file: Path) -> None:
    click.echo(f"{env_file} {env_file_named(context)}")
    require_env_file(context, env_file)


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_file_of_this_directory_is_the_default_and_may_be_missing() -> None:
    found = CliRunner().invoke(reading)
    assert (found.exit_code, found.stdout) == (0, ".env False\n")


@pytest.mark.parametrize("name", ["other.env", ".env"])
def test_a_file_that_was_named_must_exist_even_if_it_is_the_default(name: str) -> None:
    missing = CliRunner().invoke(reading, ["--env-file", name])
    assert isinstance(missing.exception, ConfigurationError)
    assert missing.exception.problems == [f"--env-file: there is no file {name}"]
    Path(name).write_text("")
    assert CliRunner().invoke(reading, ["--env-file", name]).exit_code == 0


@pytest.mark.parametrize("args", [["--nonsense"], ["too", "many"], []])
def test_wrong_usage_ends_with_1_where_2_means_something_else(args: list[str]) -> None:
    strict = OneForWrongUsage("strict", params=[click.Argument(["one"])], callback=lambda one: click.echo(one))
    plain = click.Command("plain", params=[click.Argument(["one"])])
    found = CliRunner().invoke(strict, args)
    assert (found.exit_code, "Usage: strict" in found.stderr, CliRunner().invoke(plain, args).exit_code) == (1, True, 2)
    assert CliRunner().invoke(strict, ["fine"]).exit_code == 0


def test_wrong_usage_that_a_command_finds_itself_ends_with_1_too() -> None:
    def refuse() -> None:
        raise WrongUsage("--a needs --b")

    found = CliRunner().invoke(OneForWrongUsage("strict", callback=refuse))
    assert (found.exit_code, "--a needs --b" in found.stderr) == (1, True)


def test_examples_are_printed_as_they_are() -> None:
    found = CliRunner().invoke(CommandWithExamples("one", epilog=EPILOG), ["--help"])
    assert EPILOG in found.stdout
