"""The command line: `relay-agent COMMAND` (OPERATIONS §1). It has no logic: each command calls the module that does the work."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay_agent import __version__
from relay_agent.core import failpoints
from relay_agent.core.exit_codes import EXIT_CONFIGURATION, EXIT_ERROR, EXIT_OK

if TYPE_CHECKING:
    from relay_agent.agent.agent import Agent


class _Lazy(click.Group):
    """Imports a command's module only when the command is called: the sandbox is an extra, and `--help` must be quick."""

    _senders = ("send", "keygen", "encrypt", "decrypt")
    _diagnoses = ("check", "explain")
    _watchers = ("status", "commands", "support-bundle")

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["run", *self._diagnoses, *self._watchers, *self._senders, "sandbox"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._senders:
            from relay_agent.cli.send import COMMANDS

            return next(command for command in COMMANDS if command.name == cmd_name)
        if cmd_name in self._watchers:
            from relay_agent.cli.status import COMMANDS as WATCHERS

            return next(command for command in WATCHERS if command.name == cmd_name)
        if cmd_name in self._diagnoses:
            from relay_agent.cli.diagnose import COMMANDS as DIAGNOSES

            return next(command for command in DIAGNOSES if command.name == cmd_name)
        if cmd_name == "sandbox":
            return _sandbox()
        return super().get_command(ctx, cmd_name)


def _sandbox() -> click.Command:
    try:
        from relay_agent.sandbox.cli import sandbox_command
    except ImportError as error:
        missing = error.name or "a package"

        @click.command("sandbox", help="Run an emulated platform on this machine (needs the extra `sandbox`).")
        def absent() -> None:
            raise click.ClickException(f"{missing} is not installed; install the extra: pip install 'relay-agent[sandbox]'")

        return absent
    return sandbox_command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="relay-agent")
def main() -> None:
    """Relay HTTP commands from the Tetra Data Platform to systems behind a firewall.

    Example: relay-agent run
    """


@main.command()
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(".env"),
    help="A file with settings; the environment wins over it.  [.env]",
)
@click.pass_context
def run(context: click.Context, env_file: Path) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Exit codes: 0 stopped cleanly, 1 the agent failed or the token has expired, 2 the configuration is invalid or
    another agent uses the state directory, 3 the platform refused the agent.

    Example: API_TARGET=… ORG_SLUG=… AGENT_ID=… JWT=… relay-agent run
    """
    from relay_agent.agent.signals import Signals

    signals = Signals()
    signals.install()  # First: the rest of the start takes most of a second, and a signal meanwhile must stop the agent too.
    from relay_agent.cli.import_blocking import without_extras

    with without_extras():  # These modules import the libraries that look for the extras.
        from relay_agent.telemetry import logs  # noqa: F401
        from relay_agent.transport import session  # noqa: F401
    from relay_agent.config.inspection import unknown_variables
    from relay_agent.config.loading import fault_point, load_settings
    from relay_agent.core.errors import ConfigurationError, JournalError, Mistake, StateDirectoryBusy, TokenExpired

    try:
        if context.get_parameter_source("env_file") is click.core.ParameterSource.COMMANDLINE and not env_file.is_file():
            raise ConfigurationError(Mistake("--env-file", f"there is no file {env_file}"))
        settings = load_settings(env_file)
        try:
            failpoints.arm(fault_point())
        except ValueError as error:
            raise ConfigurationError(
                Mistake("RELAY_FAULT_POINT", f"{error}; this variable is for the agent's own tests: unset it")
            ) from None
        from relay_agent.agent.agent import Agent

        agent = Agent(settings, signals=signals, unknown=unknown_variables(env_file))
    except ConfigurationError as error:
        lines = ["The configuration is invalid:", *(f"  {problem}" for problem in error.problems)]
        if not env_file.is_file():
            lines.append(
                f"Settings are read from the environment (for a container: agent.env) and from {env_file}, which does not exist here."
            )
        _complain(*lines)
        sys.exit(EXIT_CONFIGURATION)
    except StateDirectoryBusy as error:
        _complain(str(error))
        sys.exit(EXIT_CONFIGURATION)
    except (TokenExpired, JournalError) as error:
        _complain(str(error))
        sys.exit(EXIT_OK if signals.count else EXIT_ERROR)  # A stop while it waited for a full disk is not a failure.
    sys.exit(_run(agent, settings.log_level == "debug"))


def _run(agent: Agent, debug: bool) -> int:
    try:
        return agent.run()
    except Exception as error:
        if debug:
            raise
        _complain(
            f"The agent ended with an unexpected {type(error).__name__}. Please report it to the vendor; RELAY_LOG_LEVEL=debug shows where."
        )
        return EXIT_ERROR


def _complain(*lines: str) -> None:
    """Write to stderr why `run` ends; if nothing reads stderr, end anyway."""
    from relay_agent.telemetry.stdout_writer import output

    written = output(sys.stderr, time.monotonic)
    for line in lines:
        written.write(line)
    written.close()
