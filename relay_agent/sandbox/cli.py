"""The command `relay-agent sandbox`.

This module owns the command's options, its output and the file it writes. It must not know how the sandbox works.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

import click

from relay_agent.sandbox.examples import DESCRIPTION, EXAMPLE
from relay_agent.sandbox.forms import is_uuid
from relay_agent.sandbox.server import Sandbox

DEFAULT_PORT = 8088
DEFAULT_AWS_PORT = 4566


def _agent_id(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_uuid(value):
        raise click.BadParameter("must be an id such as 9b9f275c-a60d-454f-8c6c-1ea094e3fd38")
    return value


@click.command("sandbox", epilog=EXAMPLE, help=DESCRIPTION)
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="Port of REST and the web page; 0: any free one."
)
@click.option(
    "--aws-port",
    default=DEFAULT_AWS_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of SQS, S3 and CloudWatch Logs; 0: any free one.",
)
@click.option(
    "--env-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the agent's environment to this file too (mode 0600)."
)
@click.option(
    "--credentials-lifetime",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="How long AWS credentials are valid.",
)
@click.option(
    "--visibility-timeout",
    default=600,
    show_default=True,
    type=click.IntRange(0, 43_200),
    metavar="SECONDS",
    help="How long a received message stays hidden.",
)
@click.option(
    "--min-ttl",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How far ahead a command's expiresAt must be.",
)
@click.option("--org-slug", default="sandbox", show_default=True, help="The organisation's short name.")
@click.option("--agent-id", callback=_agent_id, metavar="ID", help="The agent's id; a new one if none is given.")
def sandbox_command(
    port: int,
    aws_port: int,
    env_file: Path | None,
    credentials_lifetime: float,
    visibility_timeout: int,
    min_ttl: float,
    org_slug: str,
    agent_id: str | None,
) -> None:
    """Run the sandbox until Ctrl-C or SIGTERM."""
    sandbox = Sandbox(
        ports=(port, aws_port),
        credentials_lifetime=credentials_lifetime,
        visibility_timeout=visibility_timeout,
        min_ttl_seconds=min_ttl,
        org_slug=org_slug,
        agent_ids=(agent_id,) if agent_id else (),
    )
    try:
        sandbox.start()
    except OSError as error:
        option = "--port" if error.filename == str(port) else "--aws-port"
        raise click.ClickException(
            f"port {error.filename} cannot be used ({error.strerror}): choose another with {option}, 0 for any free one"
        ) from None
    try:
        _announce(sandbox, env_file)
        _wait_for_signal()
    finally:
        sandbox.stop()
        click.echo("The sandbox has stopped.", err=True)


def _announce(sandbox: Sandbox, env_file: Path | None) -> None:
    lines = [f"{name}={value}" for name, value in sandbox.environment().items()]
    if env_file is not None:
        try:
            _write_private(env_file, "\n".join(lines) + "\n")
        except OSError as error:
            raise click.ClickException(f"cannot write {env_file} ({error.strerror}): choose another file with --env-file") from None
    # Only the variables go to stdout, so that it can be used as an env file.
    click.echo(f"Sandbox: {sandbox.api_target}/  (Agents, Commands, send a command; Ctrl-C stops it)", err=True)
    if env_file is not None:
        click.echo(f"The agent's environment is in {env_file}.", err=True)
    click.echo("\n".join(lines))


def _write_private(path: Path, text: str) -> None:
    # The file holds a token, so others must not be able to read it even before the fchmod.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def _wait_for_signal() -> None:
    # No event: one that is set from a handler may deadlock with the thread that waits on it.
    received: SimpleQueue[int] = SimpleQueue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        received.put(number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        received.get()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
