"""The commands for diagnosis: `check` and `explain` (docs/operations.md).

Owns their options, output and exit codes. It must not check anything itself or word a cause; `checks` does.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

from relay_agent.cli.checks.nagios import State, look, plugin_output, unknown
from relay_agent.cli.checks.preflight import check_all, secrets_of
from relay_agent.cli.checks.result import Check, Status, exit_code, report
from relay_agent.cli.checks.route_trace import Stage
from relay_agent.cli.checks.target_check import Explained, explain, shown
from relay_agent.cli.options import CommandWithExamples, OneForWrongUsage, env_file_named, env_file_option, json_option, require_env_file
from relay_agent.config.inspection import redactor_of
from relay_agent.config.loading import debugging, load_route_settings, state_directory
from relay_agent.core.errors import ConfigurationError
from relay_agent.core.exit_codes import EXIT_ERROR, EXIT_OK
from relay_agent.core.urls import BadUrl, parse_url
from relay_agent.diagnostics.local_causes import CONFIGURATION
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.secret_patterns import MASK

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.ERROR: "red", Status.SKIPPED: "bright_black"}
_NARROWEST = 60


class DiagnoseCommand(CommandWithExamples):
    """Reports an unexpected error in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            ClickException: an unexpected error, in one line.
        """
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            raise  # Whoever reads the output has seen enough (`| head -1`): click ends quietly.
        except Exception as problem:
            if debugging():
                raise
            reason = f"unexpected {type(problem).__name__}. Please report it to the vendor; RELAY_LOG_LEVEL=debug shows where."
            raise click.ClickException(reason) from None


class _CheckCommand(DiagnoseCommand):
    """With `--nagios`, what prevents the check is UNKNOWN and one line on stdout, as a plugin's is: 1 and 2 have other meanings there."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--nagios" not in args:
            return super().parse_args(ctx, args)
        try:
            return super().parse_args(ctx, list(args))
        except click.UsageError as error:
            _end_plugin(*unknown(error.format_message()))

    def invoke(self, ctx: click.Context) -> Any:
        if not ctx.params.get("nagios") or debugging():
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _end_plugin(*unknown(error.format_message()))


class _ExplainCommand(OneForWrongUsage, DiagnoseCommand):
    """Exits with 1 for a usage error too, since 2 means an invalid configuration."""


_json = json_option(about="Print the report as JSON.")


@click.command(
    cls=_CheckCommand,
    epilog="""Examples:
  relay-agent check
  relay-agent check --nagios
  relay-agent check --target https://lims.lab.example --target http://10.20.0.7:9005/status
  relay-agent check --json | jq '.checks[] | select(.status != "ok")'""",
)
@click.option("--target", "targets", metavar="URL", multiple=True, help="Check this target too, with a HEAD request; may be repeated.")
@click.option(
    "--ignore-running",
    is_flag=True,
    help="Do not ask the agent that runs on the state directory: checks new settings before they replace the running agent's.",
)
@click.option(
    "--nagios", is_flag=True, help="Print one line, and exit with the codes of a Nagios or Icinga plugin; the agent must run and be ready."
)
@_json
@env_file_option()
@click.pass_context
def check(context: click.Context, targets: tuple[str, ...], ignore_running: bool, nagios: bool, as_json: bool, env_file: Path) -> None:
    """Check everything the agent needs, with cause and cure.

    Starts nothing and changes nothing; may run while the agent runs. Takes at most 30 s.
    Exit codes: 0 no error (warnings allowed), 1 an error, 2 the configuration is invalid. With --nagios: 0 OK, 1 WARNING, 2 CRITICAL,
    3 UNKNOWN.
    """
    if nagios:
        if as_json or ignore_running:
            raise click.UsageError("--nagios excludes --json and --ignore-running")
        _check_as_plugin(context, targets, env_file)
    checks = check_all(env_file, targets, named=env_file_named(context), ask_agent=not ignore_running)
    if as_json:
        click.echo(json.dumps(report(checks), indent=2))
    else:
        _print_checks(checks)
    sys.exit(exit_code(checks))


def _check_as_plugin(context: click.Context, targets: tuple[str, ...], env_file: Path) -> NoReturn:
    began = time.monotonic()
    try:
        require_env_file(context, env_file)
        agent = look(state_directory(env_file))
    except ConfigurationError as problem:
        _end_plugin(*unknown("; ".join(problem.problems)))
    checks = check_all(env_file, targets, named=env_file_named(context))
    _end_plugin(*plugin_output(checks, agent, datetime.now(UTC), time.monotonic() - began))


def _end_plugin(state: State, line: str) -> NoReturn:
    click.echo(line)
    sys.exit(state)


@click.command(
    "explain",
    cls=_ExplainCommand,
    epilog="""Examples:
  relay-agent explain https://lims.lab.example:9005/api
  relay-agent explain -X POST --send http://10.20.0.7/status
  relay-agent explain --json https://lims.lab.example | jq .code""",
)
@click.argument("url")
@click.option("-X", "--request", "method", metavar="METHOD", help="The method; GET by default.")
@click.option("--send", is_flag=True, help="Really send the request, as the agent would; by default it stops after the handshakes.")
@click.option("--secure", is_flag=True, help="Treat the command as secure (for rules with secure_only).")
@_json
@env_file_option()
@click.pass_context
def explain_command(context: click.Context, url: str, method: str | None, send: bool, secure: bool, as_json: bool, env_file: Path) -> None:
    """Show what would happen to a command for URL.

    Shows policy, proxy, name, connection and TLS, stage by stage, with the time of each, and the error code that a command would get.
    Uses only the settings for proxies, certificates and limits, and RELAY_ADMIN_ADDR: API_TARGET, JWT and the like may be missing. Exit
    codes: 0 the command would succeed, 1 it would fail.
    """
    try:
        require_env_file(context, env_file)
        settings = load_route_settings(env_file)
    except ConfigurationError as problem:
        redactor = redactor_of(env_file)
        redactor.add(*secrets_in(url))
        _finish(_invalid(problem, url), redactor, as_json)
        return
    redactor = secrets_of(settings)
    redactor.add(*secrets_in(url))
    _finish(explain(settings, url, method, send=send, secure=secure), redactor, as_json)


COMMANDS = (check, explain_command)


def secrets_in(url: str) -> list[str]:
    """Return the parts of the URL that no output may show: user info and query."""
    authority = url.partition("://")[2].partition("/")[0]
    userinfo = authority.rpartition("@")[0]
    return [part for part in (userinfo, userinfo.partition(":")[2], url.partition("?")[2]) if part]


def _invalid(problem: ConfigurationError, url: str) -> Explained:
    try:
        asked = shown(parse_url(url))
    except BadUrl:  # Then it is not known where in it a secret stands.
        asked = MASK
    names = ", ".join(dict.fromkeys(mistake.variable for mistake in problem.mistakes))
    cause = CONFIGURATION.about(problems="\n".join(problem.problems))
    return Explained(asked, None, None, None, None, (Stage("configuration", Status.ERROR, f"invalid: {names}", 0.0, cause),))


def _finish(found: Explained, redactor: Redactor, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_masked(found.to_json(), redactor), indent=2))
    else:
        _print_explained(found, redactor)
    sys.exit(EXIT_OK if found.goes_through else EXIT_ERROR)


def _masked(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, str):
        return redactor.known(value)
    if isinstance(value, list):
        return [_masked(item, redactor) for item in value]
    return {key: _masked(item, redactor) for key, item in value.items()} if isinstance(value, dict) else value


# --- for people ---


def _print_checks(checks: list[Check]) -> None:
    width = max(len(found.id) for found in checks)
    for found in checks:
        seconds = "" if found.status is Status.SKIPPED else f"{found.seconds:.2f} s"
        _row(found.status, f"{found.id:{width}}  {seconds:>7}", found.summary)
        _why(found.cause, found.cure, width)
    counts = {status: sum(found.status is status for found in checks) for status in Status}
    parts = [f"{counts[status]} {status}{'s' if counts[status] != 1 and status is not Status.SKIPPED else ''}" for status in Status]
    parts[0] = f"{counts[Status.OK]} ok"
    click.echo("\n" + ", ".join(text for text, status in zip(parts, Status, strict=True) if counts[status]))


def _print_explained(found: Explained, redactor: Redactor) -> None:
    click.echo(redactor.known(found.url) + "\n")
    width = max(len(stage.stage) for stage in found.stages)
    for stage in found.stages:
        _row(stage.status, f"{stage.stage:{width}}  {stage.seconds:>7.3f} s", redactor.known(stage.summary))
        if stage.cause:
            _why(redactor.known(stage.cause.cause), redactor.known(stage.cause.cure), width)
    click.echo("\n" + _conclusion(found))


def _conclusion(found: Explained) -> str:
    if found.goes_through:
        return (
            "A command would reach the target."
            if found.status_code is None
            else f"The request reached the target, which answered {found.status_code}."
        )
    if found.code is not None:
        return f"A command would fail with {found.code}."
    if found.status_code is not None:
        return f"A command would fail with the proxy's answer, statusCode {found.status_code}."
    return "Nothing was checked."


def _row(status: Status, head: str, summary: str) -> None:
    label = click.style(f"{status:8}", fg=_COLOURS[status])
    _lines(f"{label}  {head}  ", len(head) + 12, summary)


def _why(cause: str | None, cure: str | None, width: int) -> None:
    for label, text in (("cause", cause), ("cure", cure)):
        for place, line in enumerate((text or "").split("\n") if text else []):
            _lines(" " * 10 + f"{label if place == 0 else '':5}  ", 17, line)


def _lines(head: str, indent: int, text: str) -> None:
    """Print one line; on a terminal, wrap it at word boundaries."""
    if not sys.stdout.isatty():
        click.echo(head + text)
        return
    room = max(_NARROWEST, shutil.get_terminal_size().columns - indent)
    first, *rest = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    click.echo(head + first)
    for line in rest:
        click.echo(" " * indent + line)
