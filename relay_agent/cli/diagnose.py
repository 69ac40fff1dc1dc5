"""The commands for diagnosis: `check` and `explain` (OPERATIONS §1).

Owns their options, output and exit codes. It must not check anything itself or word a cause; `checks` does.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from relay_agent.cli.checks.preflight import check_all, secrets_of
from relay_agent.cli.checks.result import Check, Status, exit_code, report
from relay_agent.cli.checks.route_trace import Stage
from relay_agent.cli.checks.target_check import Explained, explain
from relay_agent.config.loading import debugging, load_way_settings
from relay_agent.core.errors import ConfigurationError, Mistake
from relay_agent.core.exit_codes import EXIT_ERROR, EXIT_OK
from relay_agent.diagnostics.local_causes import CONFIGURATION
from relay_agent.telemetry.redaction import Redactor
from relay_agent.telemetry.secret_patterns import MASK

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.ERROR: "red", Status.SKIPPED: "bright_black"}
_NARROWEST = 60


class _DiagnoseCommand(click.Command):
    """Reports an unexpected error in one line; prints the examples in its epilog unchanged."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as problem:
            if debugging():
                raise
            reason = f"unexpected {type(problem).__name__}. Please report it to the vendor; RELAY_LOG_LEVEL=debug shows where."
            raise click.ClickException(reason) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"\n{self.epilog or ''}\n")


class _WrongUsage(click.UsageError):
    exit_code = EXIT_ERROR


class _ExplainCommand(_DiagnoseCommand):
    """Exits with 1 for a usage error too, since 2 means an invalid configuration."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as problem:
            raise _WrongUsage(problem.format_message(), ctx) from None


_env_file = click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(".env"),
    help="A file with settings; the environment wins over it.  [.env]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


@click.command(
    cls=_DiagnoseCommand,
    epilog="""Examples:
  relay-agent check
  relay-agent check --target https://lims.lab.example --target http://10.20.0.7:9005/status
  relay-agent check --json | jq '.checks[] | select(.status != "ok")'""",
)
@click.option("--target", "targets", metavar="URL", multiple=True, help="Check this target too, with a HEAD request; may be repeated.")
@_json
@_env_file
@click.pass_context
def check(context: click.Context, targets: tuple[str, ...], as_json: bool, env_file: Path) -> None:
    """Check everything that the agent needs; print cause and cure of each problem.

    Starts nothing and changes nothing; may run beside a running agent. Takes at most 30 s.
    Exit codes: 0 no error (warnings allowed), 1 an error, 2 the configuration is invalid.
    """
    checks = check_all(env_file, targets, named=_named(context))
    if as_json:
        click.echo(json.dumps(report(checks), indent=2))
    else:
        _print_checks(checks)
    sys.exit(exit_code(checks))


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
@_json
@_env_file
@click.pass_context
def explain_command(context: click.Context, url: str, method: str | None, send: bool, as_json: bool, env_file: Path) -> None:
    """Show what would happen to a command for URL, stage by stage.

    Shows policy, proxy, name, connection and TLS, each with its time, and the error code that a command would get. Uses only
    the settings for proxies, certificates and limits, and RELAY_ADMIN_ADDR: API_TARGET, JWT and the like may be missing.
    Exit codes: 0 the command would succeed, 1 it would fail.
    """
    try:
        if _named(context) and not env_file.is_file():
            raise ConfigurationError(Mistake("--env-file", f"there is no file {env_file}"))
        settings = load_way_settings(env_file)
    except ConfigurationError as problem:
        _finish(_invalid(problem), Redactor(), as_json)
        return
    redactor = secrets_of(settings)
    redactor.add(*_secrets_in(url))
    _finish(explain(settings, url, method, send=send), redactor, as_json)


COMMANDS = (check, explain_command)


def _named(context: click.Context) -> bool:
    return context.get_parameter_source("env_file") is click.core.ParameterSource.COMMANDLINE


def _secrets_in(url: str) -> list[str]:
    """Return the parts of the URL that no output may show: user info and query."""
    authority = url.partition("://")[2].partition("/")[0]
    userinfo = authority.rpartition("@")[0]
    return [part for part in (userinfo, userinfo.partition(":")[2], url.partition("?")[2]) if part]


def _invalid(problem: ConfigurationError) -> Explained:
    names = ", ".join(mistake.variable for mistake in problem.mistakes)
    cause = CONFIGURATION.about(problems="\n".join(problem.problems))
    return Explained(MASK, None, None, None, None, (Stage("configuration", Status.ERROR, f"invalid: {names}", 0.0, cause),))


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
    said = [f"{counts[status]} {status}{'s' if counts[status] != 1 and status is not Status.SKIPPED else ''}" for status in Status]
    said[0] = f"{counts[Status.OK]} ok"
    click.echo("\n" + ", ".join(text for text, status in zip(said, Status, strict=True) if counts[status]))


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
