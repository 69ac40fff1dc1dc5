"""`make demo`: commands from end to end on this machine, without a platform or configuration.

This module owns the order of the demo, its texts and its exit code. It must not know how an answer is judged (`rows`), how it is
shown (`table`) or what is started (`stage`). Everything here runs on the main thread.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from relay_agent.config.settings import Settings
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import RelayError
from relay_agent.core.models import ACTION_SECURE
from relay_agent.pipelines.client import ACTION_HTTP, CommandClient
from relay_agent.pipelines.encoding import read_answer, read_sealed_answer, sealed_payload
from relay_agent.pipelines.session import platform_session
from relay_agent.protocol.keyring import Keyring
from relay_agent.sandbox.demo.rows import ROWS, Completed, Row, Unexpected
from relay_agent.sandbox.demo.stage import AGENT, Stage, StageError
from relay_agent.sandbox.demo.table import FAILED, NOT_SENT, OK, UNDER_WAY, Board, Line

COMMANDS_SECONDS = 35.0
"""Limit for all commands together, so that the demo takes less than a minute."""
_COMMAND_SECONDS = 15.0
_TTL_SECONDS = 70.0
_ABOUT_TIMES = (
    "Times are the platform's, from a command's creation to its final status.",
    "",
)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Interrupted(BaseException):
    """A signal such as Ctrl-C: everything is stopped, and the exit code is 128 plus the signal's number."""


class _Interrupts:
    """Makes signals raise inside `interruptible` only: start and stop are not interrupted, so that nothing is left running."""

    def __init__(self) -> None:
        self.number = 0
        self._interruptible = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in _ENDING}
        mine = [number for number in _ENDING if before[number] is not signal.SIG_IGN]
        for number in mine:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number in mine:
                signal.signal(number, before[number])

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        self._interruptible = True
        try:
            if self.number:
                raise _Interrupted
            yield
        finally:
            self._interruptible = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number
        if self._interruptible:
            self._interruptible = False
            raise _Interrupted


class _Sender:
    """The sender: it posts commands, waits for them, and reads the answers."""

    def __init__(self, stage: Stage, client: CommandClient, board: Board) -> None:
        self._stage = stage
        self._client = client
        self._board = board
        self._keyring = Keyring.from_text(stage.key)
        self._deadline = Deadline(COMMANDS_SECONDS)
        self._sent: dict[str, str] = {}
        self._jtis: dict[str, str] = {}

    def send_all(self) -> None:
        """Send every command and wait for its answer; those with `background` are waited for last."""
        background = []
        for line in self._board.lines:
            if self._stage.over.is_set():
                self._board.done(line, NOT_SENT, self._stage.what_ended)
                continue
            line.start()
            if self._settled(line, self._post) and line.row.background:
                background.append(line)
            elif line.state == UNDER_WAY:
                self._settled(line, self._collect)
        for line in background:
            self._settled(line, self._collect)

    def _settled(self, line: Line, step: Any) -> bool:
        """Take one step with a command; return False if it failed, which ends its line."""
        try:
            step(line)
        except (RelayError, Unexpected) as error:
            self._board.done(line, FAILED, self._stage.what_ended if self._stage.over.is_set() else str(error))
            return False
        return True

    def _post(self, line: Line) -> None:
        payload: Mapping[str, Any] = line.row.payload(self._stage.addresses)
        action = ACTION_HTTP
        if line.row.secure:
            expires_at = datetime.now(UTC) + timedelta(seconds=_TTL_SECONDS)
            action = ACTION_SECURE
            jti = self._jtis[line.row.name] = str(uuid.uuid4())
            payload = sealed_payload(
                {**payload, "encrypt_response": True}, self._keyring, agent_id=self._client.agent_id, expires_at=expires_at, jti=jti
            )
        self._sent[line.row.name] = self._client.create(action, payload, ttl_seconds=_TTL_SECONDS, metadata={"demo": line.row.name})

    def _collect(self, line: Line) -> None:
        command_id = self._sent[line.row.name]
        command = self._client.wait(command_id, min(_COMMAND_SECONDS, self._deadline.remaining()))
        under_way = frozenset(name for name, sent in self._sent.items() if not self._stage.sandbox.command(sent).final)
        seconds = (datetime.fromisoformat(command["updatedAt"]) - datetime.fromisoformat(command["createdAt"])).total_seconds()
        jti = self._jtis.get(line.row.name)
        answer = read_answer(command) if jti is None else read_sealed_answer(command, self._keyring, jti)
        completed = Completed(answer, command, seconds, self._referenced(command_id), under_way)
        line.result, line.seconds = completed.summary, seconds
        self._board.done(line, OK, line.row.judge(completed, self._stage.addresses))

    def _referenced(self, command_id: str) -> bool:
        """Return whether the agent's last update for the command says that the answer is in S3 (PROTOCOL §2)."""
        updates = self._stage.sandbox.command(command_id).updates
        return bool(updates) and json.loads(updates[-1]).get("responseBodyDelivery") == "referenced"


class Demo:
    """One run of the demo.

    `agent_overrides` replace variables of the agent's environment.
    """

    def __init__(self, rows: Sequence[Row] = ROWS, *, agent_overrides: Mapping[str, str] | None = None) -> None:
        self._console = Console()
        self._board = Board(rows, self._console)
        self._stage = Stage(agent_overrides)
        self._interrupts = _Interrupts()
        self._took = Deadline(0.0)  # Used as a stopwatch only.
        self._problem = ""

    def run(self) -> int:
        """Run the demo; return 0 if every answer was as expected, 1 if not, 130 after Ctrl-C."""
        threads = set(threading.enumerate())
        with self._interrupts.caught():
            try:
                self._play()
            except _Interrupted:
                self._say("", "Interrupted: stopping everything ...")
            except StageError as error:
                self._problem = f"starting: {error}"
            finally:
                self._stage.stop()
        if self._interrupts.number:
            self._say("Everything is stopped.")
            return 128 + self._interrupts.number
        left = sorted(thread.name for thread in set(threading.enumerate()) - threads)
        return self._conclude(left)

    def _play(self) -> None:
        stage = self._stage
        self._say("Starting a platform, a target and the agent on this machine ...")
        stage.start()
        self._introduce()
        settings = Settings.model_construct(api_target=stage.sandbox.api_target)  # Without this machine's environment.
        session = platform_session(settings)
        sandbox = stage.sandbox
        client = CommandClient(sandbox.api_target, sandbox.org_slug, sandbox.jwt, sandbox.agent_id, session, stage.over)
        try:
            with self._interrupts.interruptible():
                stage.wait_ready()
                self._say(f"The agent is polling for commands, {self._took.elapsed():.1f} s after the start.", *_ABOUT_TIMES)
                with self._board.shown():
                    _Sender(stage, client, self._board).send_all()
        finally:
            session.close()

    def _introduce(self) -> None:
        stage = self._stage
        assert stage.agent is not None
        self._say(
            "",
            f"  platform  {stage.sandbox.api_target}/  (REST and its web page), {stage.sandbox.aws_endpoint}  (SQS, S3, CloudWatch Logs)",
            f"  target    {stage.target.http_url}  and  {stage.target.https_url}",
            f"  agent     relay-agent run, process {stage.agent.pid}; outbound connections only",
            "  sender    this program: POST /v1/commands to the platform, then GET until the command is finished",
            "",
        )

    def _conclude(self, left: list[str]) -> int:
        lines, stage = self._board.lines, self._stage
        good = sum(line.state == OK for line in lines)
        problems = [self._problem] if self._problem else []
        problems += [f"{line.row.name}: {line.note}" for line in lines if line.state == FAILED]
        problems += [line.note for line in lines if line.state == NOT_SENT][:1]
        problems += [f"stopping: the agent's exit code is {stage.agent_code}"] if stage.agent_code and not problems else []
        problems += [f"stopping: threads are left: {', '.join(left)}"] if left else []
        self._say("", f"{good} of {len(lines)} commands returned the expected answer. {self._stopped()}")
        if problems:
            self._say(
                "", *(f"FAILED  {problem}" for problem in problems), "", "The agent's last log lines:", *(f"  {line}" for line in stage.log)
            )
            return 1
        self._say("", *_next_steps())
        return 0

    def _stopped(self) -> str:
        code = self._stage.agent_code
        agent = "" if code is None else f"The agent stopped with exit code {code}; "
        return f"{agent}{'p' if agent else 'P'}latform and target are stopped, their files removed. {self._took.elapsed():.1f} s in all."

    def _say(self, *lines: str) -> None:
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _next_steps() -> list[str]:
    agent = os.path.relpath(AGENT) if AGENT.is_relative_to(Path.cwd()) else str(AGENT)
    return [
        "What to try next, in three terminals:",
        f"  {agent} sandbox --env-file .env",
        "      a platform that keeps running, with a web page at http://127.0.0.1:8088/ (overwrites .env)",
        "  make run",
        "      the agent, with the settings of .env",
        f"  {agent} send -i http://127.0.0.1:8088/",
        "      sends a command and prints its answer: here the sandbox's own page; any URL that the agent can reach works",
    ]


def main() -> int:
    """Run the demo, and return its exit code."""
    return Demo().run()


if __name__ == "__main__":
    sys.exit(main())
