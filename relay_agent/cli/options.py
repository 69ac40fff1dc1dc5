"""What several commands share: the option `--env-file`, help with examples, and usage errors that end with 1.

Owns these forms. It must not read the file: `config.loading` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from relay_agent.core.errors import ConfigurationError, Mistake
from relay_agent.core.exit_codes import EXIT_CONFIGURATION, EXIT_ERROR

INVALID = "The configuration is invalid"
F = TypeVar("F", bound=Callable[..., Any])


def env_file_option(check: Callable[[click.Context, click.Parameter, Path], Path] | None = None) -> Callable[[F], F]:
    """Return a decorator that adds the option `--env-file`, which becomes the argument `env_file`; `check` is click's callback."""
    return click.option(
        "--env-file",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path(".env"),
        callback=check,
        help="A file with settings; the environment takes precedence.  [.env]",
    )


def json_option(name: str = "as_json", about: str = "Print JSON, for programs.") -> Callable[[F], F]:
    """Return a decorator that adds the flag `--json`, which becomes the argument `name`."""
    return click.option("--json", name, is_flag=True, help=about)


def env_file_named(context: click.Context) -> bool:
    """Return whether the file was named on the command line, and so must exist."""
    return context.get_parameter_source("env_file") is click.core.ParameterSource.COMMANDLINE


def require_env_file(context: click.Context, env_file: Path) -> None:
    """Refuse a file that was named and is missing: without it, the command would use other settings.

    Raises:
        ConfigurationError: it is missing.
    """
    if env_file_named(context) and not env_file.is_file():
        raise ConfigurationError(Mistake("--env-file", f"there is no file {env_file}"))


def listed(heading: str, items: Iterable[str]) -> str:
    """Return a heading with a line below it for each item."""
    return "\n".join([heading, *(f"  {item}" for item in items)])


def end_invalid(error: ConfigurationError) -> NoReturn:
    """End the command with the mistakes of its configuration."""
    end(EXIT_CONFIGURATION, listed(f"{INVALID}:", error.problems))


def end(code: int, text: str) -> NoReturn:
    """End the command with an exit code, and a text on stderr."""
    click.echo(text, err=True)
    sys.exit(code)


class WrongUsage(click.UsageError):
    """A usage error of a command whose exit code 2 means an invalid configuration, or nothing."""

    exit_code = EXIT_ERROR


class CommandWithExamples(click.Command):
    """A command whose epilog, the examples, is printed unchanged."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are, without wrapping their lines."""
        formatter.write(f"\n{self.epilog or ''}\n")


class OneForWrongUsage(CommandWithExamples):
    """A command that ends with 1 for a usage error too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            WrongUsage: they are wrong.
        """
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise WrongUsage(error.format_message(), ctx) from None
