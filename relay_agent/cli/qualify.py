"""The command `qualify`: installation and operational qualification, as a report that a person signs (docs/validation.md).

Owns its options, output and exit codes. It must not test anything itself; `qualification` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from relay_agent import AGENT_VERSION
from relay_agent.cli.checks.preflight import check_all
from relay_agent.cli.diagnose import DiagnoseCommand, secrets_in
from relay_agent.cli.options import env_file_named, env_file_option, json_option
from relay_agent.cli.qualification.check_lines import check_lines
from relay_agent.cli.qualification.installation import installation_lines
from relay_agent.cli.qualification.lines import Line, Result
from relay_agent.cli.qualification.page import render
from relay_agent.cli.qualification.report import Report, Subject
from relay_agent.cli.qualification.running_agent import running_agent_lines
from relay_agent.cli.qualification.second_agent import second_agent_lines
from relay_agent.config.inspection import redactor_of
from relay_agent.config.loading import load_usable_settings, state_directory
from relay_agent.config.settings import Settings
from relay_agent.core.errors import ConfigurationError
from relay_agent.core.exit_codes import EXIT_ERROR, EXIT_OK

_COLOURS = {Result.PASS: "green", Result.FAIL: "red", Result.NOT_RUN: "yellow", Result.NOT_APPLICABLE: "bright_black"}


@click.command(
    "qualify",
    cls=DiagnoseCommand,
    epilog="""Examples:
  relay-agent qualify
  relay-agent qualify --target https://lims.lab.example/health -o reports
  relay-agent qualify --json | jq '.lines[] | select(.result == "fail")'""",
)
@click.option(
    "--target",
    "targets",
    metavar="URL",
    multiple=True,
    help="Check this target too, and have the running agent send it a HEAD request; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The directory of the two files; created if missing.  [the current one]",
)
@json_option(about="Print the report as JSON too.")
@env_file_option()
@click.pass_context
def qualify(context: click.Context, targets: tuple[str, ...], output: Path | None, as_json: bool, env_file: Path) -> None:
    """Run the installation and operational qualification.

    Writes a report to sign, as HTML and JSON. Does not disturb the running agent, which only relays a command for the report: stops and
    restarts are tried with a second agent of the same program, in a temporary directory. Takes less than a minute unless the network
    hangs.

    Exit codes: 0 everything is as expected, 1 it is not, or the report cannot be written.
    """
    report = run_qualification(env_file, targets, named=env_file_named(context), progress=_progress(as_json))
    try:
        page, data = write(report, output)
    except OSError as error:
        click.echo(f"cannot write the report to {error.filename} ({error.strerror}); choose another directory with -o.", err=True)
        sys.exit(EXIT_ERROR)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        _print(report, page, data)
    sys.exit(EXIT_OK if report.as_expected else EXIT_ERROR)


COMMANDS = (qualify,)


def run_qualification(
    env_file: Path, targets: Sequence[str], *, named: bool = False, progress: Callable[[str], None] = lambda _text: None
) -> Report:
    """Run every test, and return the report without secrets. `named`: the file was named on the command line, so it must exist."""
    made = datetime.now(UTC)
    missing = named and not env_file.is_file()
    settings, invalid = _usable(None if missing else env_file)
    directory = settings.state_dir if settings is not None else state_directory(env_file, strict=False)
    progress("installation")
    lines: list[Line] = installation_lines(env_file, settings, directory)
    progress("checks")
    lines += check_lines(check_all(env_file, targets, named=named))
    progress("the running agent")
    lines += running_agent_lines(None if invalid or missing else settings, directory, targets)
    progress("a second agent")
    lines += second_agent_lines()
    redactor = redactor_of(env_file)
    redactor.add(*(secret for url in targets for secret in secrets_in(url)))
    return Report(_subject(made, settings, invalid, directory), tuple(lines)).masked(redactor.known)


def _usable(env_file: Path | None) -> tuple[Settings | None, frozenset[str]]:
    try:
        return load_usable_settings(env_file)
    except ConfigurationError:
        return None, frozenset()


def _subject(made: datetime, settings: Settings | None, invalid: frozenset[str], directory: Path) -> Subject:
    def valid(name: str) -> str | None:
        return str(getattr(settings, name)) if settings is not None and name not in invalid else None

    return Subject(
        report_id=f"{made:%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}",
        made=made,
        host=socket.gethostname(),
        agent_version=AGENT_VERSION,
        agent_id=valid("agent_id"),
        organisation=valid("org_slug"),
        api_target=valid("api_target"),
        state_directory=str(directory),
        user=_user(),
    )


def _user() -> str:
    """Return the user's number and, if it has one, name."""
    try:
        return f"{os.geteuid()} ({pwd.getpwuid(os.geteuid()).pw_name})"
    except KeyError:
        return str(os.geteuid())


# --- the files ---


def write(report: Report, output: Path | None) -> tuple[Path, Path]:
    """Write page and JSON, readable by their owner only; return the paths.

    Raises:
        OSError: one cannot be written.
    """
    directory = output or (Path() if os.access(Path(), os.W_OK) else Path(tempfile.gettempdir()))
    directory.mkdir(parents=True, exist_ok=True)
    name = f"relay-agent-qualification-{report.subject.report_id}"
    data = report.json_text().encode()
    page = render(report, f"{name}.json", hashlib.sha256(data).hexdigest()).encode()
    paths = directory / f"{name}.html", directory / f"{name}.json"
    for path, content in zip(paths, (page, data), strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return paths


# --- for people ---


def _progress(as_json: bool) -> Callable[[str], None]:
    """Return what names each part before it runs, on a terminal only."""
    if as_json or not sys.stderr.isatty():
        return lambda _text: None
    return lambda text: click.echo(f"Qualifying: {text} ...", err=True)


def _print(report: Report, page: Path, data: Path) -> None:
    """Print each line that a person must look at, and the result."""
    for line in report.lines:
        if line.result is not Result.PASS or line.remark:
            label = click.style(f"{line.result.value:14}", fg=_COLOURS[line.result])
            click.echo(f"{label}  {line.number:8}  {line.requirement}")
            for name, text in (("expected", line.expected), ("observed", line.observed), ("remark", line.remark)):
                if text:
                    click.echo(" " * 16 + f"{name:8}  {text}")
    counts = ", ".join(f"{report.count(result)} {result.value}" for result in Result if report.count(result))
    click.echo(f"\n{len(report.lines)} lines: {counts}. The installation is {'' if report.as_expected else 'not '}as expected.")
    click.echo(f"Print and sign: {page}\nKeep beside it: {data}")
