"""The command line: `relay-agent COMMAND` (docs/operations.md). It has no logic: each command calls the module that does the work."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay_agent import __version__
from relay_agent.cli.options import env_file_option, require_env_file
from relay_agent.core import failpoints
from relay_agent.core.errors import ConfigurationError, JournalError, Mistake, RelayError, StateDirectoryBusy, TokenExpired
from relay_agent.core.exit_codes import EXIT_CONFIGURATION, EXIT_ERROR, EXIT_OK

if TYPE_CHECKING:
    from relay_agent.agent.agent import Agent
    from relay_agent.agent.signals import Signals


class _Lazy(click.Group):
    """Imports a command's module only when the command is called: the sandbox is an extra, and `--help` must be quick."""

    _senders = ("send", "keygen", "encrypt", "decrypt")
    _diagnoses = ("check", "explain")
    _watchers = ("status", "commands", "support-bundle")
    _policies = ("policy",)
    _ends = ("retire",)
    _qualifications = ("qualify",)

    def list_commands(self, ctx: click.Context) -> list[str]:
        ours = (self._diagnoses, self._policies, self._watchers, self._qualifications, self._ends, self._senders)
        return ["run", *(name for names in ours for name in names), "sandbox"]

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
        if cmd_name in self._qualifications:
            from relay_agent.cli.qualify import COMMANDS as QUALIFICATIONS

            return next(command for command in QUALIFICATIONS if command.name == cmd_name)
        if cmd_name in self._ends:
            from relay_agent.cli.retire import COMMANDS as ENDS

            return next(command for command in ENDS if command.name == cmd_name)
        if cmd_name in self._policies:
            from relay_agent.cli.policy import COMMANDS as POLICIES

            return next(command for command in POLICIES if command.name == cmd_name)
        if cmd_name == "sandbox":
            return _sandbox()
        return super().get_command(ctx, cmd_name)


def _sandbox() -> click.Command:
    try:
        from relay_agent.sandbox.cli import sandbox_command
    except ImportError as error:
        from relay_agent.sandbox.examples import DESCRIPTION, EXAMPLE

        missing = error.name or "a package"

        @click.command("sandbox", help=f"{DESCRIPTION}\n\nNeeds the extra `sandbox`, which is not installed.", epilog=EXAMPLE)
        def absent() -> None:
            click.echo(f"Error: {missing} is not installed; install the extra: pip install 'tdp-relay-agent[sandbox]'", err=True)
            sys.exit(EXIT_CONFIGURATION)

        return absent
    return sandbox_command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="relay-agent")
def main() -> None:
    """Relay HTTP commands from the Tetra Data Platform to systems behind a firewall.

    Example: relay-agent run
    """


@main.command()
@env_file_option()
@click.pass_context
def run(context: click.Context, env_file: Path) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Exit codes: 0 stopped cleanly, 1 the agent failed or the token has expired, 2 the configuration is invalid or
    another agent uses the state directory, 3 the platform refused the agent.

    Example: API_TARGET=… ORG_SLUG=… AGENT_ID=… JWT=… relay-agent run
    """
    from relay_agent.agent.signals import Signals
    from relay_agent.core.memory import use_one_arena

    # A core dump would contain every secret. A program to which the system pipes dumps gets this limit too, but may ignore it (core(5)).
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signals = Signals()
    signals.install()  # First: the rest of the start takes most of a second, and a signal meanwhile must stop the agent too.
    try:
        use_one_arena()
        agent, debug = _build(context, env_file, signals)
    except Exception as error:
        # Here, because `_build` decides which libraries may be imported (`import_blocking`).
        from relay_agent.cli.failed_start import report_failed_start
        from relay_agent.config.loading import debugging

        if debugging() and not isinstance(error, RelayError):
            raise
        code = _code(error, stopped=signals.count > 0)
        report_failed_start(code, error, env_file)
        sys.exit(code)
    sys.exit(_run(agent, debug))


def _code(error: Exception, *, stopped: bool) -> int:
    """Return the exit code for a start that ended with this error."""
    if isinstance(error, ConfigurationError | StateDirectoryBusy):
        return EXIT_CONFIGURATION
    # A stop while it waited for a full disk is not a failure.
    return EXIT_OK if stopped and isinstance(error, TokenExpired | JournalError) else EXIT_ERROR


def _build(context: click.Context, env_file: Path, signals: Signals) -> tuple[Agent, bool]:
    """Build the agent from its settings; return it, and whether it logs at level debug.

    Raises:
        ConfigurationError, TokenExpired, StateDirectoryBusy, JournalError: see `core.errors`.
    """
    from relay_agent.cli.import_blocking import without_extras

    with without_extras():  # These modules import the libraries that look for the extras.
        from relay_agent.config import secrets  # noqa: F401
        from relay_agent.protocol import jwe  # noqa: F401
        from relay_agent.telemetry import logs  # noqa: F401
        from relay_agent.transport import session  # noqa: F401
    from relay_agent.config.inspection import unknown_variables
    from relay_agent.config.loading import load_settings

    require_env_file(context, env_file)
    settings = load_settings(env_file)
    _arm_fault_point()
    from relay_agent.agent.agent import Agent

    return Agent(settings, signals=signals, unknown=unknown_variables(env_file)), settings.log_level == "debug"


def _arm_fault_point() -> None:
    from relay_agent.config.loading import fault_point

    try:
        failpoints.arm(fault_point())
    except ValueError as error:
        mistake = Mistake("RELAY_FAULT_POINT", f"{error}; this variable is for the agent's own tests: unset it")
        raise ConfigurationError(mistake) from None


def _run(agent: Agent, debug: bool) -> int:
    from relay_agent.cli.failed_start import report_crash

    try:
        return agent.run()
    except Exception as error:
        if debug:
            raise
        report_crash(EXIT_ERROR, error)
        return EXIT_ERROR
