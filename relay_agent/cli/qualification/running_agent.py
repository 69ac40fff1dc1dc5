"""The running agent in a qualification: its state, and commands that it relays from the platform (OQ-15 to OQ-19).

Owns what is asked of it: pages, its journal as one more reader, and commands by the platform as `send` posts them. It must not receive
from the queue, signal the agent or touch its files.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_agent import AGENT_VERSION
from relay_agent.agent.admin.client import NoAgent, NoAnswer, ask_status
from relay_agent.cli.checks.target_check import shown
from relay_agent.cli.qualification.lines import Line, Result, judged, not_applicable, not_run, numbered
from relay_agent.cli.qualification.own_target import HOST, OwnTarget
from relay_agent.cli.qualification.second_agent import ANSWER_SECONDS, arrived_unchanged, digest, payload_for
from relay_agent.config.network import load_rules, proxy_router
from relay_agent.config.settings import Settings
from relay_agent.core.clock import Deadline
from relay_agent.core.errors import ConfigurationError, JournalError, PlatformRefused, RelayError
from relay_agent.core.urls import BadUrl, parse_url
from relay_agent.pipelines.client import CommandClient
from relay_agent.pipelines.session import platform_session
from relay_agent.storage.journal_reader import Reader
from relay_agent.storage.state_directory import JOURNAL
from relay_agent.telemetry.secret_patterns import MASK
from relay_agent.transport.policy import TargetCall
from relay_agent.transport.proxy_routing import Leg

ASK_SECONDS = 5.0
RECORD_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_RUNNING = "ready, version {version}, agent id {agent}"
_RELAYED = "status 200 for a POST; the target gets it once, with URL, field and body unchanged; the answer's body is unchanged"
_TARGET = "an HTTP status below 500 for a HEAD"
_RECORDED = "delivered"
_UNDISTURBED = "the same start as in OQ-15, and ready"
_DENIED = "Allow it, or name a target of the site with --target."
_ROLE = "The token may not post commands. Give its service user the role for it, or have someone else send one (relay-agent send)."


@dataclass(frozen=True, slots=True)
class Seen:
    """What the running agent says of itself: its `status.json`, or why there is none."""

    status: dict[str, Any] | None
    problem: str = ""

    @property
    def ready(self) -> bool:
        """Whether it says that it is ready."""
        return self.status is not None and self.status.get("state") == "ready"


def look(directory: Path) -> Seen:
    """Ask the agent of a state directory for its status."""
    try:
        return Seen(ask_status(directory, ASK_SECONDS))
    except NoAgent:
        return Seen(None, f"no agent runs on {directory}")
    except (NoAnswer, OSError) as error:
        return Seen(None, f"the agent on {directory} does not answer ({type(error).__name__})")


def running_agent_lines(settings: Settings | None, directory: Path, targets: Sequence[str]) -> list[Line]:
    """Return all lines of the running agent."""
    before = look(directory)
    state = state_line(before, settings)
    if settings is None or state.result is not Result.PASS:
        why = "the settings are invalid" if settings is None else "no command is posted: see OQ-15"
        rest = [("OQ-16", _RELAYED), *((number, _TARGET) for number in numbered("OQ-17", len(targets)))]
        rest += [("OQ-18", _RECORDED), ("OQ-19", _UNDISTURBED)]
        return [state, *(not_run(number, expected, why) for number, expected in rest)]
    relayed = Relayed(settings, directory, shared=bool((before.status or {}).get("queue", {}).get("shared")))
    lines = relayed.lines(targets)
    return [state, *lines, undisturbed_line(before, look(directory))]


def state_line(seen: Seen, settings: Settings | None) -> Line:
    """Return the line of the running agent's state and identity."""
    expected = _RUNNING.format(version=AGENT_VERSION, agent=settings.agent_id if settings else "as AGENT_ID")
    if seen.status is None:
        return judged("OQ-15", expected, seen.problem, good=False, remark="Start the agent, and run this command as its user.")
    agent = seen.status.get("agent") or {}
    version = str(seen.status.get("version"))
    observed = f"{seen.status.get('state')}, version {version}, agent id {agent.get('id')}, started {seen.status.get('started')}"
    same = settings is not None and agent.get("id") == settings.agent_id and version == AGENT_VERSION
    remark = "" if seen.ready else str(seen.status.get("sentence", ""))
    return judged("OQ-15", expected, observed, seen.ready and same, remark)


def undisturbed_line(before: Seen, after: Seen) -> Line:
    """Return the line that compares the running agent's state before and after."""
    if before.status is None or after.status is None:
        return judged("OQ-19", _UNDISTURBED, after.problem or before.problem, good=False)
    same = before.status.get("started") == after.status.get("started")
    observed = f"{after.status.get('state')}, started {after.status.get('started')}"
    return judged("OQ-19", _UNDISTURBED, observed, same and after.ready)


class Relayed:
    """The commands that the running agent relays for the report."""

    def __init__(self, settings: Settings, directory: Path, *, shared: bool) -> None:
        self._settings = settings
        self._directory = directory
        self._shared = shared
        self._ids: list[str] = []

    def lines(self, targets: Sequence[str]) -> list[Line]:
        """Post the commands and return their lines, OQ-16 to OQ-18."""
        settings = self._settings
        session = platform_session(settings)
        try:
            client = CommandClient(settings.api_target, settings.org_slug, settings.token.get(), settings.agent_id, session)
            own = self._own(client, bool(targets))
            of_site = [self._of_site(client, number, url) for number, url in zip(numbered("OQ-17", len(targets)), targets, strict=True)]
        finally:
            session.close()
        if not targets:
            of_site = [not_applicable("OQ-17", _TARGET, "no --target was given")]
        return [own, *of_site, self._recorded()]

    def _own(self, client: CommandClient, others: bool) -> Line:
        """Relay a command to a target of this command's own, if the running agent can and may call it."""
        with OwnTarget() as target:
            url, wanted = target.announce()
            obstacle = self.obstacle(url)
            if obstacle is not None:
                # A command to a target of the site takes its place, if there is one.
                return (not_applicable if others else not_run)("OQ-16", _RELAYED, obstacle if others else f"{obstacle}. {_DENIED}")
            try:
                answer = client.exchange(payload_for(url), timeout_seconds=ANSWER_SECONDS)
            except RelayError as error:
                return _no_answer("OQ-16", _RELAYED, error)
            self._ids.append(answer.command_id)
            wrong = arrived_unchanged(target.requests(url))
        if not answer.http or answer.content() != wanted or wrong:
            remark = f"command {answer.command_id}"
            return judged("OQ-16", _RELAYED, wrong or f"{answer.status_code or answer.code}, {answer.message}", good=False, remark=remark)
        observed = (
            f"{answer.status_code} after {answer.elapsed_ms} ms at the target; body of {len(wanted)} bytes, SHA-256 {digest(wanted)}…"
        )
        return judged("OQ-16", _RELAYED, f"{observed}; command {answer.command_id}", answer.status_code == 200)

    def obstacle(self, url: str) -> str | None:
        """Return why the running agent cannot or may not call a target on this machine's loopback; None if it can."""
        if self._shared:
            return "several agents share the queue, so another machine may run the command"
        parsed = parse_url(url)
        route = proxy_router(self._settings).route(Leg.TARGET, parsed)
        if route.proxy is not None:
            return f"the agent would call {HOST} through a proxy ({route.reason})"
        try:
            rules = load_rules(self._settings).rules
        except ConfigurationError:
            return "the policy file is invalid"
        target = rules.target(parsed.host)
        if target.route is not None and target.route.proxy is not None:
            return f"the policy file sets a proxy for {HOST}"
        verdict = rules.policy.check_url(TargetCall("POST", parsed))
        return None if verdict.allowed else f"the policy does not allow {HOST} ({verdict.rule})"

    def _of_site(self, client: CommandClient, number: str, url: str) -> Line:
        try:
            name = shown(parse_url(url))
        except BadUrl:
            return judged(number, _TARGET, f"{MASK}: not a URL", good=False)
        expected = f"{name}: {_TARGET}"
        try:
            answer = client.exchange(payload_for(url, "HEAD"), timeout_seconds=ANSWER_SECONDS)
        except RelayError as error:
            return _no_answer(number, expected, error)
        self._ids.append(answer.command_id)
        where = f"command {answer.command_id}"
        if not answer.http or answer.status_code is None:
            return judged(number, expected, f"{answer.code}: {answer.message}; {where}", good=False)
        return judged(
            number, expected, f"{answer.status_code} after {answer.elapsed_ms} ms at the target; {where}", answer.status_code < 500
        )

    def _recorded(self) -> Line:
        """Return the line of the journal's records: it marks an answer as delivered just after the platform has it."""
        if not self._ids:
            return not_run("OQ-18", _RECORDED, "the running agent answered no command of this report")
        if self._shared:
            return not_applicable("OQ-18", _RECORDED, "several agents share the queue, so another machine's journal may have the record")
        deadline, states = Deadline(RECORD_SECONDS), self._states()
        while set(states) != {"delivered"} and not deadline.passed:
            threading.Event().wait(_LOOK_SECONDS)
            states = self._states()
        observed = "; ".join(f"command {command_id}: {state}" for command_id, state in zip(self._ids, states, strict=True))
        return judged("OQ-18", _RECORDED, observed, set(states) == {"delivered"})

    def _states(self) -> list[str]:
        reader = Reader(self._directory / JOURNAL, in_use=True)
        try:
            return [row.state if (row := reader.one(command_id)) else "not in the journal" for command_id in self._ids]
        except JournalError as error:
            return [str(error)] * len(self._ids)


def _no_answer(number: str, expected: str, error: RelayError) -> Line:
    if isinstance(error, PlatformRefused):
        return not_run(number, expected, f"{error}. {_ROLE}")
    return judged(number, expected, str(error), good=False)
