"""The command `retire`: the end of an agent whose machine goes away for good (docs/several-agents.md).

Owns its options, output and exit codes. What each command is answered is decided in `agent.retirement`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from relay_agent.agent.retirement import ANSWER_SECONDS, Retired, Retirement
from relay_agent.agent.signals import Signals
from relay_agent.cli.options import end, end_invalid, env_file_option, json_option, require_env_file
from relay_agent.config.loading import load_settings
from relay_agent.core.errors import ConfigurationError, JournalError, StateDirectoryBusy, TokenExpired
from relay_agent.core.exit_codes import EXIT_CONFIGURATION, EXIT_ERROR, EXIT_OK
from relay_agent.tdp.sqs import WAIT_SECONDS


@click.command("retire")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 86_400),
    default=None,
    help=f"How many seconds it may take; by default {ANSWER_SECONDS:g}, plus the longest lease and up to {WAIT_SECONDS} for a receive.",
)
@json_option()
@env_file_option()
@click.pass_context
def retire(context: click.Context, timeout: float | None, as_json: bool, env_file: Path) -> None:
    """Empty the journal of a machine that is to be removed.

    Answers everything that the stopped agent's journal holds. Finished commands get their own answer, commands that never started, or
    that ask for no change and have no answer, get ESHUTDOWN, and commands that may have changed something at their target get
    EINTERRUPTED. To stop an agent for a while, just stop it: it resumes from its journal at the next start.

    Exit codes: 0 every answer was sent, 1 some could not be sent (run it again) or the journal was damaged, 2 the agent or another
    `retire` runs, or the configuration is invalid or names no state directory.

    Example: relay-agent retire --timeout 900
    """
    signals = Signals()
    signals.install()
    try:
        require_env_file(context, env_file)
        settings = load_settings(env_file)
        if not settings.state_dir.is_dir():
            end(
                EXIT_CONFIGURATION,
                f"There is no state directory {settings.state_dir}: RELAY_STATE_DIR must name that of the stopped agent.",
            )
        retirement = Retirement(settings, signals=signals)
    except ConfigurationError as error:
        end_invalid(error)
    except StateDirectoryBusy as error:
        end(
            EXIT_CONFIGURATION,
            f"RELAY_STATE_DIR {error.path} is in use by the agent or by another `retire`. Stop the agent, or wait until the other `retire`"
            " has ended. `retire` is only for an agent that will not start again.",
        )
    except (TokenExpired, JournalError) as error:
        end(EXIT_ERROR, str(error))
    try:
        retired = retirement.run(timeout)
    except JournalError as error:
        end(EXIT_ERROR, str(error))
    if as_json:
        words = asdict(retired)
        words["cause"] = None if retired.cause is None else {"cause": retired.cause.cause, "cure": retired.cause.cure}
        click.echo(json.dumps(words, indent=2))
    else:
        _print(retired)
    sys.exit(EXIT_ERROR if retired.unsent or retired.undeleted or retired.problem or retired.damaged else EXIT_OK)


COMMANDS = (retire,)


def _print(retired: Retired) -> None:
    click.echo(f"{retired.ended:>6}  finished: sent with their own answer")
    click.echo(f"{retired.shutdown:>6}  never started: answered ESHUTDOWN")
    click.echo(f"{retired.interrupted:>6}  may have reached their target: answered EINTERRUPTED")
    if retired.ceded:
        click.echo(f"{retired.ceded:>6}  left to other agents on the same queue")
    if retired.damaged:
        text = "The journal was damaged: commands that could not be read stay unanswered. The log lines above say what is known."
        click.echo(text, err=True)
    if retired.problem is None:
        click.echo(f"Every answer {'that could be read ' if retired.damaged else ''}was sent, and the journal is empty.")
        return
    if retired.undeleted:
        click.echo(f"{retired.undeleted} messages may still be in the queue, where another agent would receive them.", err=True)
    if retired.unsent:
        click.echo(
            f"{retired.unsent} of the answers could not be sent: {retired.problem}. They stay in the journal: run `retire` again.", err=True
        )
    else:
        click.echo(f"{retired.problem}. Run `retire` again.", err=True)
    if retired.cause is not None:
        click.echo(f"  cause  {retired.cause.cause}\n  cure   {retired.cause.cure}", err=True)
