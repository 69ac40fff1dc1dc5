"""The trial of a second agent: it starts, relays, refuses, is stopped, restarted, killed and restarted (OQ-20 to OQ-28).

Owns the steps and what is expected of each. The running agent has no part in it: program apart, nothing is shared.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from relay_agent.cli.qualification.lines import Line, Result, judged, not_run
from relay_agent.cli.qualification.own_agent import START_SECONDS, OwnAgent
from relay_agent.cli.qualification.own_platform import NoAnswerInTime, OwnPlatform
from relay_agent.cli.qualification.own_target import HOST, OwnTarget, Seen
from relay_agent.core.errors import JournalError, RelayError
from relay_agent.core.failures import Code
from relay_agent.pipelines.encoding import request_payload
from relay_agent.protocol.keyring import Keyring
from relay_agent.storage.journal_inspection import inspect
from relay_agent.storage.journal_reader import Reader
from relay_agent.storage.state_directory import JOURNAL

ANSWER_SECONDS = 30.0
FIELD = "X-Qualification"
SENT_BODY = '{"sent": "ä 漢 \U0001f9ea"}'.encode()
MARK = "qualification-mark-5d0c1e"
"""Stands in a header field and in a body: neither the log nor the platform of a secure command may show it."""

Step = tuple[str, str, Callable[[str, str], Line]]


def payload_for(url: str, method: str = "POST", mark: str = MARK) -> dict[str, Any]:
    """Return the request of a trial, with a field and, for POST, a body that must arrive unchanged."""
    body = SENT_BODY if method == "POST" else None
    fields = [(FIELD, mark), ("Authorization", f"Bearer {mark}")] if method == "POST" else []
    return request_payload(method, url, fields, body, ANSWER_SECONDS)


def arrived_unchanged(seen: list[Seen], mark: str = MARK) -> str | None:
    """Return what is wrong with the requests that arrived for one command; None if there is one, and it is as it was sent."""
    if len(seen) != 1:
        return f"the target got {len(seen)} requests"
    (one,) = seen
    if one.method != "POST" or one.value(FIELD) != mark or one.body != SENT_BODY:
        return f"the request that the target got differs from the one sent: {one.method}, {len(one.body)} bytes"
    return None


def digest(body: bytes) -> str:
    """Return the beginning of a body's SHA-256, for people."""
    return hashlib.sha256(body).hexdigest()[:16]


def second_agent_lines(directory: Path | None = None) -> list[Line]:
    """Run the trial in a temporary directory, below `directory` if one is given; return its lines."""
    with ExitStack() as stack:
        try:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-agent-qualify-", dir=directory)))
            target, platform = stack.enter_context(OwnTarget()), stack.enter_context(OwnPlatform())
            agent = OwnAgent(place, platform, target.port)
        except OSError as error:
            reason = f"the trial cannot be prepared ({error.strerror})"
            return [not_run(f"OQ-{number}", "", reason) for number in range(20, 29)]
        stack.callback(agent.kill)
        return Trial(agent, platform, target).lines()


class Trial:
    """One trial; its steps run in order, and one that fails ends it."""

    def __init__(self, agent: OwnAgent, platform: OwnPlatform, target: OwnTarget) -> None:
        self._agent = agent
        self._platform = platform
        self._target = target
        self._answered: list[str] = []
        """The URLs that the target has answered: none may be called again."""
        self._commands = 0

    def lines(self) -> list[Line]:
        """Run all steps."""
        found: list[Line] = []
        for number, expected, run in self._steps():
            failed = next((line.number for line in found if line.result is not Result.PASS), None)
            if failed is not None:
                found.append(not_run(number, expected, f"not run because {failed} did not pass"))
                continue
            try:
                found.append(run(number, expected))
            except (RelayError, OSError) as error:
                found.append(judged(number, expected, str(error), good=False, remark=self._last_line()))
            except Exception as error:  # noqa: BLE001 - the top of a step: whatever is broken, the report must be written
                found.append(judged(number, expected, f"unexpected {type(error).__name__}", good=False, remark=self._last_line()))
        return found

    def _steps(self) -> list[Step]:
        return [
            ("OQ-20", "it asks its queue for commands", self._start),
            (
                "OQ-21",
                "status 200 for a POST; the target gets it once, with URL, field and body unchanged; the answer's body is unchanged",
                self._relay,
            ),
            ("OQ-22", "status 200 for a POST; nothing that the platform gets contains the request or the answer", self._secure),
            ("OQ-23", f"{Code.EPOLICY} for a target that the policy does not allow", self._policy),
            ("OQ-24", "SIGTERM during a POST: its answer arrives, the agent reports STOPPED, exit code 0", self._stop),
            ("OQ-25", "a command sent while the agent was stopped: status 200, once; no earlier request is repeated", self._restart),
            ("OQ-26", f"SIGKILL during a POST, then a start: {Code.EINTERRUPTED}, and the target got it once", self._kill),
            ("OQ-27", "after a stop: every command delivered, one final answer each; every page and row as written", self._journal),
            ("OQ-28", "no token, key, AWS secret, header value, body or query in any line", self._log),
        ]

    def _start(self, number: str, expected: str) -> Line:
        seconds = self._agent.start()
        if seconds is None:
            return judged(number, expected, f"it did not ask within {START_SECONDS:g} s", good=False, remark=self._last_line())
        return judged(number, expected, f"it asked {seconds:.1f} s after its start", good=True)

    def _relay(self, number: str, expected: str) -> Line:
        return self._posted(number, expected, None)

    def _secure(self, number: str, expected: str) -> Line:
        line = self._posted(number, expected, Keyring.from_text(self._agent.key), before := len(self._platform.bytes_seen))
        sent = [body for body in self._platform.bytes_seen[before:] if MARK.encode() in body or SENT_BODY in body]
        return line if not sent else judged(number, expected, "the platform can read it", good=False)

    def _posted(self, number: str, expected: str, keyring: Keyring | None, before: int | None = None) -> Line:
        url, wanted = self._target.announce()
        answer = self._platform.exchange(payload_for(url), ANSWER_SECONDS, keyring)
        self._commands += 1
        wrong = arrived_unchanged(self._target.requests(url))
        if not answer.http or answer.content() != wanted or wrong:
            return judged(number, expected, wrong or f"{answer.status_code or answer.code}, {answer.message}", good=False)
        self._answered.append(url)
        if before is not None and any(wanted in body for body in self._platform.bytes_seen[before:]):
            return judged(number, expected, "the platform can read the answer", good=False)
        observed = (
            f"{answer.status_code} after {answer.elapsed_ms} ms at the target; body of {len(wanted)} bytes, SHA-256 {digest(wanted)}…"
        )
        return judged(number, expected, observed, answer.status_code == 200)

    def _policy(self, number: str, expected: str) -> Line:
        answer = self._platform.exchange(payload_for(f"http://{HOST}:{self._target.port ^ 1}/", "GET"), ANSWER_SECONDS)
        self._commands += 1
        return judged(number, expected, answer.code if not answer.http else str(answer.status_code), answer.code == Code.EPOLICY)

    def _stop(self, number: str, expected: str) -> Line:
        url, wanted = self._target.announce(hold=True)
        command_id = self._platform.post(payload_for(url), ANSWER_SECONDS)
        self._commands += 1
        if not self._target.wait_for(url, ANSWER_SECONDS):
            raise NoAnswerInTime("the request did not reach the target")
        self._agent.ask_to_stop()
        # Not before the agent is stopping: the request must still run then.
        self._platform.wait(lambda: self._agent.has_logged("agent-stopping"), ANSWER_SECONDS)
        self._target.release()
        answer = self._platform.answer(command_id, ANSWER_SECONDS)
        code = self._agent.wait()
        self._answered.append(url)
        good = code == 0 and answer.http and answer.content() == wanted and self._platform.settings[-1:] == ["STOPPED"]
        reported = ", ".join(self._platform.settings) or "nothing"
        return judged(number, expected, f"answer {answer.status_code or answer.code}; reported {reported}; exit code {code}", good)

    def _restart(self, number: str, expected: str) -> Line:
        url, wanted = self._target.announce()
        command_id = self._platform.post(payload_for(url), ANSWER_SECONDS)
        self._commands += 1
        if self._agent.start() is None:
            return judged(number, expected, "it does not start again", good=False, remark=self._last_line())
        answer = self._platform.answer(command_id, ANSWER_SECONDS)
        self._answered.append(url)
        again = sum(len(self._target.requests(one)) - 1 for one in self._answered)
        good = answer.http and answer.content() == wanted and again == 0
        return judged(number, expected, f"answer {answer.status_code or answer.code}; {again} requests were repeated", good)

    def _kill(self, number: str, expected: str) -> Line:
        url, _ = self._target.announce(hold=True)
        command_id = self._platform.post(payload_for(url), ANSWER_SECONDS)
        self._commands += 1
        if not self._target.wait_for(url, ANSWER_SECONDS):
            raise NoAnswerInTime("the request did not reach the target")
        self._agent.kill()
        self._target.release()
        if self._agent.start() is None:
            return judged(number, expected, "it does not start again", good=False, remark=self._last_line())
        answer = self._platform.answer(command_id, ANSWER_SECONDS)
        count = len(self._target.requests(url))
        good = answer.code == Code.EINTERRUPTED and count == 1
        return judged(number, expected, f"{answer.code}; the target got the request {count} time(s)", good)

    def _journal(self, number: str, expected: str) -> Line:
        self._agent.ask_to_stop()
        code = self._agent.wait()
        journal = self._agent.state / JOURNAL
        try:
            found, counts = inspect(journal, in_use=False), Reader(journal, in_use=False).counts()
        except JournalError as error:
            return judged(number, expected, str(error), good=False)
        once = self._platform.one_final_each()
        observed = (
            f"exit code {code}; {counts['delivered']} of {self._commands} delivered; {'sound' if found.complete else 'not fully read'}"
        )
        good = code == 0 and found.complete and counts["delivered"] == self._commands == sum(counts.values()) and once
        return judged(number, expected, observed if once else f"{observed}; a command got two final answers", good)

    def _log(self, number: str, expected: str) -> Line:
        text = self._agent.log()
        secrets = {"token": self._platform.token, "key": self._agent.key, "header value": MARK, "query": "a=1&b=", "body": '"sent"'}
        secrets |= {"AWS secret": self._platform.issued[0], "AWS session token": self._platform.issued[1]}
        shown = [name for name, value in secrets.items() if value in text]
        lines = len(text.splitlines())
        return judged(number, expected, f"{lines} lines; {', '.join(shown) or 'none'} found", not shown and lines > 0)

    def _last_line(self) -> str:
        """Return the last line of its log, for the remark of a failure."""
        lines = self._agent.log().splitlines()
        return f"The agent's last line: {lines[-1][:500]}" if lines else "The agent wrote no line."
