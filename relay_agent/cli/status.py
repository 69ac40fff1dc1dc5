"""The commands that show what the agent of a state directory does: `status`, `commands` and `support-bundle` (docs/operations.md).

Owns their options and output. It must not look at anything itself: it asks the running agent's pages and the journal's reader.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from relay_agent.agent.admin.client import NoAgent, NoAnswer, agent_runs, ask_status
from relay_agent.cli.options import end, end_invalid, env_file_option, json_option, require_env_file
from relay_agent.cli.support_bundle import collect, write
from relay_agent.cli.tables import command_details, print_commands, print_status
from relay_agent.config.inspection import masked, redactor_of
from relay_agent.config.loading import state_directory
from relay_agent.core.clock import compact
from relay_agent.core.errors import ConfigurationError, JournalError
from relay_agent.core.exit_codes import EXIT_ERROR, EXIT_NO_AGENT, EXIT_OK
from relay_agent.diagnostics import command_history
from relay_agent.storage.journal import State
from relay_agent.storage.journal_reader import Reader
from relay_agent.storage.state_directory import JOURNAL, SOCKET


def _require_file(context: click.Context, _parameter: click.Parameter, env_file: Path) -> Path:
    """Require the file if it was named on the command line: without it, the command would look at another agent's directory."""
    try:
        require_env_file(context, env_file)
    except ConfigurationError as error:
        end_invalid(error)
    return env_file


@click.command()
@json_option()
@env_file_option(_require_file)
def status(as_json: bool, env_file: Path) -> None:
    """Show what the running agent does.

    Shows problems with cause and cure, the threads, the queue, the workers and the journal, the times of the last receive, heartbeat and
    configuration, and when JWT and credentials expire. Asks the agent that uses RELAY_STATE_DIR; needs no other setting.

    Exit codes: 0 ready, 1 running but not ready, 2 the configuration is invalid, 4 no agent runs here.

    Example: docker exec ts-agent-http-relay relay-agent status
    """
    directory = _directory(env_file)
    try:
        found = ask_status(directory)
    except NoAgent:
        end(EXIT_NO_AGENT, f"No agent runs on {directory}. Start it (relay-agent run), or set RELAY_STATE_DIR to its state directory.")
    except PermissionError:
        end(EXIT_ERROR, f"{directory / SOCKET} belongs to another user: run this command as the user of the agent.")
    except NoAnswer as error:
        end(
            EXIT_ERROR,
            f"{error}. The agent runs, but does not answer: look at its log. If it hangs, its watchdog ends it within minutes.",
        )
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        print_status(found)
    sys.exit(EXIT_OK if found["state"] == "ready" else EXIT_ERROR)


@click.group(invoke_without_command=True)
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only commands in this state.")
@click.option("--host", help="Only commands for this host.")
@click.option("--failed", is_flag=True, help="Only commands that failed.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="How many, the newest first.")
@json_option()
@env_file_option(_require_file)
@click.pass_context
def commands(context: click.Context, state: str | None, host: str | None, failed: bool, limit: int, as_json: bool, env_file: Path) -> None:
    """List recent commands from the journal.

    Works whether or not an agent runs. Shows time, id, action, method, host, outcome, and how long each stage took; never bodies,
    headers, paths or queries.

    Example: relay-agent commands --failed --limit 5
    """
    context.ensure_object(dict)
    context.obj = (as_json, env_file)
    if context.invoked_subcommand is not None:
        return
    try:
        found = command_history.recent(_reader(env_file), limit, state=state, host=host, failed=failed)
    except JournalError as error:
        end(EXIT_ERROR, f"{error}. Set RELAY_STATE_DIR to the agent's state directory.")
    if as_json:
        click.echo(json.dumps({"commands": command_history.as_json(found)}, indent=2))
    elif found:
        print_commands(found)
    else:
        click.echo("No command matches." if state or host or failed else "The journal has no commands yet.")


@commands.command()
@click.argument("command_id", metavar="ID")
@json_option("own_json")
@click.pass_obj
def show(given: tuple[bool, Path], command_id: str, own_json: bool) -> None:
    """Show one command, by its id or the beginning of it. Exit code 1 if there is none.

    Example: relay-agent commands show 9b9f275c
    """
    as_json, env_file = given
    try:
        row = _reader(env_file).one(command_id)
    except JournalError as error:
        end(EXIT_ERROR, f"{error}. Set RELAY_STATE_DIR to the agent's state directory.")
    if row is None:
        end(
            EXIT_ERROR,
            f"The journal has no command with the id {command_id!r}, or several whose ids begin with it."
            " It keeps commands for 24 h, at most 50,000.",
        )
    one = command_history.listed(row)
    if as_json or own_json:
        click.echo(json.dumps(one.as_json(), indent=2))
        return
    for name, value in command_details(one):
        click.echo(f"{name:<12} {value}")


@click.command("support-bundle")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.  [relay-agent-support-<time>.zip]"
)
@json_option()
@env_file_option(_require_file)
def support_bundle(output: Path | None, as_json: bool, env_file: Path) -> None:
    """Create a zip file for the vendor's support.

    Contains checks, status, metrics, the last log lines, recent commands, the configuration and versions; no secret, body, header or
    query. The command lists the files in it: look at them before you send it.

    Example: docker exec ts-agent-http-relay relay-agent support-bundle -o /tmp/support.zip
    """
    directory = state_directory(env_file, strict=False)
    made = datetime.now(UTC)
    name = f"relay-agent-support-{compact(made)}.zip"
    path = output or (Path(name) if os.access(Path(), os.W_OK) else Path(tempfile.gettempdir()) / name)
    parts = collect(directory, masked(env_file), lambda: _checks(env_file), redactor_of(env_file).known)
    try:
        write(path, parts, made)
    except OSError as error:
        end(EXIT_ERROR, f"cannot write {path} ({error.strerror}); choose another file with -o.")
    if as_json:
        inside = [{"name": part.name, "about": part.about, "bytes": len(part.text.encode())} for part in parts]
        click.echo(json.dumps({"file": str(path), "inside": inside}, indent=2))
        return
    click.echo(f"{path} contains no secrets, and these files:")
    for part in parts:
        click.echo(f"  {part.name:<20} {len(part.text.encode()):>9,} bytes  {part.about}")


COMMANDS = (status, commands, support_bundle)


def _directory(env_file: Path) -> Path:
    try:
        return state_directory(env_file)
    except ConfigurationError as error:
        end_invalid(error)


def _reader(env_file: Path) -> Reader:
    directory = _directory(env_file)
    return Reader(directory / JOURNAL, in_use=agent_runs(directory))


def _checks(env_file: Path) -> dict[str, Any]:
    from relay_agent.cli.checks.preflight import check_all
    from relay_agent.cli.checks.result import report

    return report(check_all(env_file))
