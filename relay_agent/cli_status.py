"""The commands that tell what the agent of this directory does: `status` and `commands` (OPERATIONS §1).

This room owns their options and their words. It must not find anything out: the running agent's pages and the journal's reader do.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from relay_agent import bundle, listing
from relay_agent.admin.client import NoAgent, NoAnswer, ask
from relay_agent.admin.page import ago, span
from relay_agent.config import masked, secret_values, state_directory
from relay_agent.errors import ConfigurationError, JournalError
from relay_agent.exit_codes import EXIT_CONFIGURATION, EXIT_ERROR, EXIT_NO_AGENT, EXIT_OK
from relay_agent.journal import State
from relay_agent.journal.reader import Reader
from relay_agent.listing import FAILED, Listed
from relay_agent.telemetry.redact import Redactor, proxy_secrets

_WIDE = 100_000
"""Columns where nobody looks at a terminal: a line is never broken or cut there."""
_NARROWEST = 70
"""Below it an id is left out."""
_SHORT_ID = 8
"""As much of an id as a narrow terminal shows: `commands show` finds a command by it."""


def _there(context: click.Context, parameter: click.Parameter, env_file: Path) -> Path:
    """The file, which must be there where it was asked for: without it, another agent's directory would be looked at."""
    asked_for = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
    if asked_for and not env_file.is_file():
        _end(EXIT_CONFIGURATION, f"The configuration is invalid:\n  --env-file: there is no file {env_file}")
    return env_file


_env_file = click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(".env"),
    callback=_there,
    help="Settings besides the environment's.  [.env]",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command()
@_as_json
@_env_file
def status(as_json: bool, env_file: Path) -> None:
    """Tell what the running agent does.

    One line a thread, the queue, the workers, the journal, when it last received, sent and refreshed, what expires when, and what is
    wrong with its cure. It asks the agent that holds RELAY_STATE_DIR; no other setting is needed.

    Exit codes: 0 ready, 1 running and not ready, 2 the configuration is invalid, 4 no agent runs here.

    Example: docker exec ts-agent-http-relay relay-agent status
    """
    directory = _directory(env_file)
    try:
        _, body = ask(directory / "admin.sock", "/status.json")
        found = _status_of(body)
    except NoAgent:
        _end(EXIT_NO_AGENT, f"No agent runs on {directory}. Start one (relay-agent run), or name its directory with RELAY_STATE_DIR.")
    except PermissionError:
        _end(EXIT_ERROR, f"{directory / 'admin.sock'} belongs to another user: ask as the user that the agent runs as.")
    except (NoAnswer, ValueError) as error:
        _end(
            EXIT_ERROR,
            f"{error}. The agent runs and does not answer; its log may say why, and its watchdog ends it if it stands still.",
        )
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print_status(found)
    sys.exit(EXIT_OK if found["state"] == "ready" else EXIT_ERROR)


@click.group(invoke_without_command=True)
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only commands in this state.")
@click.option("--host", help="Only commands for this host.")
@click.option("--failed", is_flag=True, help="Only commands that failed.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="How many, the newest first.")
@_as_json
@_env_file
@click.pass_context
def commands(context: click.Context, state: str | None, host: str | None, failed: bool, limit: int, as_json: bool, env_file: Path) -> None:
    """List recent commands from the journal, whether or not an agent runs.

    When, id, action, method, host, how each ended and how long each stage took. Bodies, headers, paths and queries are never shown.

    Example: relay-agent commands --failed --limit 5
    """
    context.ensure_object(dict)
    context.obj = (as_json, env_file)
    if context.invoked_subcommand is not None:
        return
    try:
        found = listing.recent(_reader(env_file), limit, state=state, host=host, failed=failed)
    except JournalError as error:
        _end(1, f"{error}. RELAY_STATE_DIR names the agent's state directory.")
    if as_json:
        click.echo(json.dumps({"commands": listing.as_json(found)}, indent=2))
    elif found:
        _print_commands(found)
    else:
        click.echo("No command fits." if state or host or failed else "The journal holds no command yet.")


@commands.command()
@click.argument("command_id", metavar="ID")
@click.option("--json", "own_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def show(given: tuple[bool, Path], command_id: str, own_json: bool) -> None:
    """Show one command, by its id or the beginning of it. Exit code 1 where there is none.

    Example: relay-agent commands show 9b9f275c
    """
    as_json, env_file = given
    try:
        row = _reader(env_file).one(command_id)
    except JournalError as error:
        _end(1, f"{error}. RELAY_STATE_DIR names the agent's state directory.")
    if row is None:
        _end(1, f"The journal holds no command whose id is, or alone begins with, {command_id!r}. It remembers 24 h, and 50,000 commands.")
    one = listing.listed(row)
    if as_json or own_json:
        click.echo(json.dumps(one.as_json(), indent=2))
        return
    for name, value in _told(one):
        click.echo(f"{name:<12} {value}")


@click.command("support-bundle")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.  [relay-agent-support-<time>.zip]"
)
@_as_json
@_env_file
def support_bundle(output: Path | None, as_json: bool, env_file: Path) -> None:
    """Make a zip for the vendor's support.

    Checks, status, metrics, the last log lines, recent commands, the configuration and versions. No secret, body, header or query is in
    it; what is inside is listed, so look at it before you send it.

    Example: docker exec ts-agent-http-relay relay-agent support-bundle -o /tmp/support.zip
    """
    directory = state_directory(env_file, strict=False)
    made = datetime.now(UTC)
    name = f"relay-agent-support-{made:%Y%m%dT%H%M%SZ}.zip"
    path = output or (Path(name) if os.access(Path(), os.W_OK) else Path(tempfile.gettempdir()) / name)
    parts = bundle.collect(directory, masked(env_file), lambda: _checks(env_file), _without_secrets(env_file))
    try:
        bundle.write(path, parts, made)
    except OSError as error:
        _end(1, f"{path} cannot be written ({error.strerror}); name another file with -o.")
    if as_json:
        inside = [{"name": part.name, "about": part.about, "bytes": len(part.text.encode())} for part in parts]
        click.echo(json.dumps({"file": str(path), "inside": inside}, indent=2))
        return
    click.echo(f"{path} holds, with nothing secret in it:")
    for part in parts:
        click.echo(f"  {part.name:<20} {len(part.text.encode()):>9,} bytes  {part.about}")


COMMANDS = (status, commands, support_bundle)


# --- how it is printed ---


def _print_status(found: dict[str, Any]) -> None:
    console = _console()
    good = found["state"] == "ready"
    console.print(Text(found["sentence"], style="bold green" if good else "bold red"))
    for problem in found["problems"] + found["warnings"]:
        console.print(Text(f"\n{problem['reason']}", style="red" if problem in found["problems"] else "yellow"))
        console.print(Text(f"  cause  {problem['cause']}\n  cure   {problem['cure']}"))
    agent, now = found["agent"], found["time"]
    workers, queue, journal = found["workers"], found["queue"], found["journal"]
    states = ", ".join(f"{journal[state]} {state}" for state in State if state in journal)
    rows = [
        ("agent", f"{agent['name'] or agent['id']} ({agent['id']}) in {agent['organisation']}, {found['version']}"),
        ("running for", span(found["uptimeSeconds"])),
        (
            "workers",
            f"{workers['busy']} of {workers['total']} busy, {queue['waiting']} commands wait, {found['untold']} answers to be told",
        ),
        ("journal", f"{states}; {journal['bytes'] / 1e6:.1f} MB"),
        ("receive", _moment(found["lastReceive"], now)),
        ("heartbeat", _moment(found["lastHeartbeat"], now)),
        ("answers", _moment(found["lastAnswer"], now)),
        ("configuration", _moment(found["lastConfiguration"], now)),
        ("JWT ends", found["tokenEnds"] or "never"),
        ("AWS credentials", f"end {found['credentialsEnd']}" if found["credentialsEnd"] else "none yet"),
        ("log lines", f"{found['logLines']['waiting']} to be delivered, {found['logLines']['dropped']} dropped"),
    ]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(value))
    console.print()
    console.print(table)
    console.print()
    threads = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for one in found["threads"]:
        life = Text("turns", style="green") if one["alive"] else Text("has ended", style="red")
        threads.add_row(Text(one["name"]), life, Text(": ".join(part for part in (one["activity"], one["problem"]) if part)))
    console.print(threads)


def _print_commands(found: Sequence[Listed]) -> None:
    """As much as the terminal has room for, and nothing cut off: where even the least is too wide, a cell goes on below."""
    console = _console()
    columns = next((columns for columns in (_ALL, _SOME) if _width(console, _table(found, columns)) <= console.width), _NARROW)
    console.print(_table(found, columns[:-1] if console.width < _NARROWEST else columns))


def _width(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(max_width=_WIDE)).maximum


def _table(found: Sequence[Listed], columns: Sequence[_Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column.name, justify=column.justify, no_wrap=not column.folds, overflow="fold")
    for one in found:
        table.add_row(*(column.cell(one) for column in columns))
    return table


def _state(one: Listed) -> Text:
    style = "red" if one.status in FAILED else "green" if one.status else ""
    return Text(one.status if one.status and one.state == State.DELIVERED else f"{one.status or ''} {one.state}".strip(), style=style)


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    cell: Callable[[Listed], Text]
    folds: bool = False
    justify: JustifyMethod = "left"


def _stage(name: str, value: Callable[[Listed], int | None]) -> _Column:
    return _Column(name, lambda one: Text(_milliseconds(value(one))), justify="right")


_WHEN = _Column("when (UTC)", lambda one: Text(one.when[:19].replace("T", " ")))
_OUTCOME = (
    _Column("state", _state, folds=True),
    _Column("code", lambda one: Text(one.code or "-"), folds=True),
    _Column("method", lambda one: Text(one.method or "-")),
    _Column("host", lambda one: Text(one.where), folds=True),
)
_ID = _Column("id", lambda one: Text(one.id))
_SOME = (_WHEN, *_OUTCOME, _ID)
_ALL = (
    *_SOME,
    _Column("action", lambda one: Text((one.action or "-").rpartition(".")[2])),
    _stage("queued", lambda one: one.queued_ms),
    _stage("target", lambda one: one.target_ms),
    _stage("told", lambda one: one.delivered_ms),
)
_NARROW = (
    _Column(_WHEN.name, lambda one: Text(one.when[5:19].replace("T", " "))),
    *_OUTCOME,
    _Column("id", lambda one: Text(one.id[:_SHORT_ID])),
)


def _told(one: Listed) -> list[tuple[str, str]]:
    return [
        ("id", one.id),
        ("action", one.action or "-"),
        ("method", one.method or "-"),
        ("host", one.where),
        ("state", one.state),
        ("status", one.status or "-"),
        ("code", one.code or "-"),
        ("admitted", one.admitted),
        ("started", f"{one.started or '-'}  {_after(one.queued_ms) if one.started else ''}".rstrip()),
        ("finished", f"{one.finished or '-'}  {_after(one.target_ms)}".rstrip()),
        ("delivered", f"{one.delivered or '-'}  {_after(one.delivered_ms)}".rstrip()),
    ]


def _milliseconds(value: int | None) -> str:
    return "-" if value is None else f"{value} ms"


def _after(value: int | None) -> str:
    return "" if value is None else f"(after {value} ms)"


def _moment(moment: str | None, now: str) -> str:
    return "never" if moment is None else f"{ago(moment, now)} ({moment})"


def _console() -> Console:
    """A terminal's own width; wide enough for a line where nobody looks at one."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


# --- which agent ---


def _directory(env_file: Path) -> Path:
    try:
        return state_directory(env_file)
    except ConfigurationError as error:
        _end(EXIT_CONFIGURATION, "\n".join(["The configuration is invalid:", *(f"  {problem}" for problem in error.problems)]))


def _reader(env_file: Path) -> Reader:
    directory = _directory(env_file)
    try:
        ask(directory / "admin.sock", "/healthz")
        in_use = True
    except NoAgent:
        in_use = False
    except (NoAnswer, OSError):
        in_use = True
    return Reader(directory / "journal.db", in_use=in_use)


def _status_of(body: bytes) -> dict[str, Any]:
    """The page, if it is one of this version's.

    Raises:
        ValueError: it is not.
    """
    found = json.loads(body)
    wanted = {"state", "sentence", "problems", "warnings", "agent", "time", "workers", "queue", "journal", "threads", "logLines"}
    if not isinstance(found, dict) or not wanted <= found.keys():
        raise ValueError("what answers on admin.sock is no agent of this version")
    return found


def _without_secrets(env_file: Path) -> Callable[[str], str]:
    """Takes the secrets of the settings out of a text, be they right or wrong, as far as they can be read."""
    secrets, proxies = secret_values(env_file)
    redactor = Redactor(part for secret in secrets for part in (secret, *secret.split(",")))
    for proxy in proxies:
        redactor.add(*proxy_secrets(proxy))
    return redactor.known


def _checks(env_file: Path) -> dict[str, Any]:
    from relay_agent.checks.check import report
    from relay_agent.checks.preflight import check_all

    return report(check_all(env_file))


def _end(code: int, text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(code)
