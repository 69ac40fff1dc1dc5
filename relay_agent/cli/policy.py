"""The commands about the policy file: `policy check`, `policy learn`, `policy test` (docs/policy.md).

Owns their options and output. What a rule decides is in `transport.policy`, what was called in `storage.call_history`. None of them uses
the network.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import click

from relay_agent.agent.admin.client import agent_runs
from relay_agent.cli.checks.route_trace import described_route, described_settings
from relay_agent.cli.checks.target_check import shown
from relay_agent.cli.checks.unreached_rules import unreached
from relay_agent.cli.learnt_policy import learnt_policy
from relay_agent.cli.options import end, env_file_option, json_option, listed
from relay_agent.config.loading import load_route_settings, load_usable_settings, state_directory
from relay_agent.config.network import load_rules, proxy_router
from relay_agent.config.policy_file import is_reserved
from relay_agent.config.settings import Settings
from relay_agent.core.clock import DAY_SECONDS
from relay_agent.core.errors import BadRequest, ConfigurationError, JournalError
from relay_agent.core.exit_codes import EXIT_CONFIGURATION, EXIT_ERROR, EXIT_OK
from relay_agent.core.files import check_regular
from relay_agent.core.models import Url
from relay_agent.core.urls import literal_address
from relay_agent.protocol.requests import decode_request
from relay_agent.storage.call_history import CalledTarget
from relay_agent.storage.journal_reader import Reader
from relay_agent.storage.state_directory import JOURNAL
from relay_agent.transport.policy import Policy, TargetCall, Verdict
from relay_agent.transport.proxy_routing import Leg, ProxyRouter, Route
from relay_agent.transport.target_settings import NO_SETTINGS, CallRules

CHECK_DAYS = 7
MAX_MATCHES = 5_000_000
"""Rules times targets that `policy check` tries: some seconds' work."""
_MOST_EXAMPLES = 3

_env_file = env_file_option()


@click.group()
def policy() -> None:
    """Check, draft or test a policy file.

    It says which targets may be called, and how.

    Example: relay-agent policy check policy.toml
    """


# --- check ---


@dataclass(slots=True)
class _Decided:
    """What one rule would have done with the recent commands."""

    rule: str
    action: str
    commands: int = 0
    perhaps: int = 0
    """Commands for which the journal does not know enough: their path, or the addresses of their host."""
    examples: tuple[str, ...] = ()

    def add(self, call: CalledTarget, *, sure: bool) -> None:
        """Count a target's commands."""
        if sure:
            self.commands += call.commands
        else:
            self.perhaps += call.commands
        where = f"{call.method} {call.scheme}://{call.host}:{call.port}"
        if where not in self.examples and len(self.examples) < _MOST_EXAMPLES:
            self.examples = (*self.examples, where)


@policy.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@json_option()
@_env_file
def check_file(file: Path, as_json: bool, env_file: Path) -> None:
    """Check a policy file against recent commands.

    Says what each rule would have done with the commands of the last seven days. Uses no network. Commands for which the journal does
    not know enough (paths, the addresses of names) are counted as "perhaps". Warns about rules and tables that are never reached. Exit
    codes: 0 the file is valid, 1 it has mistakes, 2 it cannot be read.

    Example: relay-agent policy check policy.toml
    """
    settings = _settings(env_file)
    rules = _load(file, settings, as_json)
    calls, problem = _recent_calls(env_file, CHECK_DAYS)
    calls, left_out = _bounded(calls, rules)
    decided = _decide(rules, proxy_router(settings), calls)
    if as_json:
        click.echo(json.dumps(_as_report(file, rules, decided, problem, left_out), indent=2))
        return
    counts = f"{_count(len(rules.policy.rules), 'rule')}, {_count(len(rules.targets), 'target table')}"
    click.echo(f"{file} is valid: mode {rules.policy.mode}, {counts}.")
    for warning in unreached(rules):
        click.echo(f"Warning: {warning}")
    click.echo()
    if problem:
        click.echo(f"{problem}, so there are no commands to test the rules with.")
        return
    click.echo(f"Commands of the last {CHECK_DAYS} days, by the rule that decides:")
    width = max(len(one.rule) for one in decided)
    for one in decided:
        perhaps = f" and perhaps {one.perhaps}" if one.perhaps else ""
        said = f"  e.g. {', '.join(one.examples)}" if one.examples else ""
        click.echo(f"  {one.rule:<{width}}  {one.action:<5}  {one.commands}{perhaps}{said}")
    if left_out:
        click.echo(
            f"Not tried, since there are too many rules and targets: {_count(left_out, 'command')} for the targets called least often."
        )


def _bounded(calls: list[CalledTarget], rules: CallRules) -> tuple[list[CalledTarget], int]:
    """Return the calls that are tried, the most often called first, and how many commands the others are."""
    most = MAX_MATCHES // (1 + len(rules.policy.rules) + len(rules.targets))
    return calls[:most], sum(call.commands for call in calls[most:])


def _decide(rules: CallRules, proxies: ProxyRouter, calls: Iterable[CalledTarget]) -> list[_Decided]:
    policy = rules.policy
    default = _Decided(policy.default.rule, "allow" if policy.default.allowed else "deny")
    found = {rule.name: _Decided(rule.name, "allow" if rule.allows else "deny") for rule in policy.rules} | {default.rule: default}
    denials: dict[str, _Decided] = {}
    for call in calls:
        asked = _as_called(rules, proxies, TargetCall(call.method, Url(call.scheme, call.host, call.port, "/"), call.secure))
        first, *others = policy.possible(asked.with_literal_address(), path_known=False)
        name = first.would_refuse or first.rule
        decided = denials.setdefault(name, _Decided(name, "deny")) if first.built_in else found[name]
        decided.add(call, sure=all(other == first for other in others))
    del found[default.rule]
    return [*found.values(), *denials.values(), default]


def _as_called(rules: CallRules, proxies: ProxyRouter, call: TargetCall) -> TargetCall:
    """Return the call as the agent would have it judged: a proxy resolves names itself, so that their addresses are never known."""
    route = rules.target(call.url.host).route or proxies.route(Leg.TARGET, call.url)
    return call if route.proxy is None else replace(call, addresses=())


def _as_report(file: Path, rules: CallRules, decided: list[_Decided], problem: str | None, left_out: int) -> dict[str, Any]:
    return {
        "file": str(file),
        "valid": True,
        "mode": rules.policy.mode,
        "default": "allow" if rules.policy.default.allowed else "deny",
        "targets": len(rules.targets),
        "warnings": unreached(rules),
        "days": CHECK_DAYS,
        "journal": problem,
        "notTried": left_out,
        "rules": [
            {"rule": one.rule, "action": one.action, "commands": one.commands, "perhaps": one.perhaps, "examples": list(one.examples)}
            for one in decided
        ],
    }


# --- learn ---


@policy.command("learn")
@click.option("--days", type=click.IntRange(1, 92), default=30, show_default=True, help="Use the commands of this many days.")
@_env_file
def learn(days: int, env_file: Path) -> None:
    """Print a policy file made from recent commands.

    It has rules only for the targets in the journal that answered. Its mode is "observe": it refuses nothing until you change that.
    Comments list the other targets: those that never answered, those that a policy refused (or would have refused, in the mode
    "observe"), and those to be reviewed first. Targets to which others redirect are not recorded: see docs/policy.md. Exit codes: 0
    printed, 1 the journal has no commands.

    Example: relay-agent policy learn --days 30 > policy.toml
    """
    calls, problem = _recent_calls(env_file, days)
    if problem or not calls:
        end(EXIT_ERROR, f"{problem}." if problem else f"The journal has no commands of the last {_count(days, 'day')}.")
    click.echo(learnt_policy(calls, _count(days, "day"), time.time(), _settings(env_file).admin_endpoint), nl=False)


# --- test ---


@policy.command("test")
@click.argument("url")
@click.option("-X", "--request", "method", metavar="METHOD", help="The method; GET by default.")
@click.option("--secure", is_flag=True, help="Test a secure command.")
@click.option("--file", type=click.Path(path_type=Path), help="Test this policy file, not the one that RELAY_POLICY_FILE names.")
@click.option("--address", "addresses", metavar="IP", multiple=True, help="An address to which the URL's host resolves; may be repeated.")
@json_option()
@_env_file
def test(url: str, method: str | None, secure: bool, file: Path | None, addresses: tuple[str, ...], as_json: bool, env_file: Path) -> None:
    """Say what the policy decides about a URL.

    Names the rule that decides. Uses no network. The host is not resolved: if its addresses decide, give them with --address.
    Exit codes: 0 allowed, 1 not allowed or undecided, 2 the policy file cannot be read or has mistakes, or --address has no effect.

    Example: relay-agent policy test https://lims.lab.example/api -X POST
    """
    settings, rules = _rules_in_force(env_file, file, as_json)
    try:
        request = decode_request({"url": url, "method": method})
    except BadRequest as error:
        end(EXIT_ERROR, f"The URL cannot be called: {error}")
    target = rules.target(request.url.host)
    route = target.route or proxy_router(settings).route(Leg.TARGET, request.url)
    call = TargetCall(request.method, request.url, secure, None if route.proxy is None else ())
    if addresses:
        _check_resolved_here(request.url.host, route)
    try:
        verdict = rules.policy.check_addresses(call, addresses) if addresses else rules.policy.check_url(call)
    except ValueError:
        end(EXIT_ERROR, "--address must be an IPv4 or IPv6 address.")
    possible = rules.policy.possible(call) if verdict.undecided else [verdict]
    word = _word(possible)
    if as_json:
        would_refuse = possible[0].would_refuse if all(one.would_refuse for one in possible) else None
        found = {"url": shown(request.url), "verdict": word, "rule": verdict.rule, "rules": _names(possible), "wouldRefuse": would_refuse}
        found |= {"proxy": route.proxy.masked if route.proxy else None, "proxyReason": route.reason}
        click.echo(json.dumps({**found, "target": None if target is NO_SETTINGS else described_settings(target)}, indent=2))
    else:
        click.echo(_said(possible, verdict.rule, rules.policy, request.url.host))
        if target is not NO_SETTINGS:
            click.echo(described_settings(target))
        click.echo(f"proxy: {described_route(route)}")
    sys.exit(EXIT_OK if word == "allow" else EXIT_ERROR)


def _check_resolved_here(host: str, route: Route) -> None:
    """Refuse --address for a host that the agent does not resolve: it would judge the call without these addresses."""
    if literal_address(host) is not None:
        raise click.UsageError("--address is for names; the URL's host is an address itself.")
    if route.proxy is not None:
        raise click.UsageError(f"--address has no effect: the call goes through a proxy ({route.reason}), which resolves the name itself.")


def _word(possible: Sequence[Verdict]) -> str:
    """Return the verdict in one word: `undecided` only if the call is allowed by some of the possible ones and refused by others."""
    return "undecided" if len({one.allowed for one in possible}) > 1 else "allow" if possible[0].allowed else "deny"


def _names(possible: Sequence[Verdict]) -> list[str]:
    return list(dict.fromkeys(one.would_refuse or one.rule for one in possible))


def _said(possible: Sequence[Verdict], first: str, policy: Policy, host: str) -> str:
    """Return the verdict for people, with the rule that decides; `possible` are several if that depends on addresses.

    `first` is the first rule that may decide. A built-in denial may stand in its place among the possible verdicts.
    """
    word, names = _word(possible), " or ".join(_names(possible))
    if word == "undecided":
        return f"undecided: {_dependence(first, policy, host)}"
    refusing = [one for one in possible if one.would_refuse]
    if len(refusing) == len(possible):
        return f"allow (mode observe; the mode enforce would deny it: {names})"
    if refusing:
        return f"allow (mode observe; in the mode enforce it {_dependence(first, policy, host)})"
    return f"{word}: {names}"


def _dependence(name: str, policy: Policy, host: str) -> str:
    """Say which addresses of a host decide, by the name of the rule that may match them."""
    rule = next(rule for rule in policy.rules if rule.name == name)
    which = f"all addresses of {host} are" if rule.allows else f"an address of {host} is"
    subnets = rule.hosts is not None and rule.hosts.networks
    named = name if is_reserved(name) else f"rule {name}"  # A rule without a name is called `rule 2`.
    where = f"the subnets of {named}" if subnets else f"the loopback range, which {named} denies"
    return f"depends on whether {which} in {where}; give the addresses with --address IP"


COMMANDS = (policy,)


# --- what they share ---


def _settings(env_file: Path) -> Settings:
    """Return the valid part of the settings: whether the others are valid is not what these commands are about."""
    try:
        return load_usable_settings(env_file)[0]
    except ConfigurationError as error:
        end(EXIT_CONFIGURATION, listed("The configuration cannot be read:", error.problems))


def _load(file: Path, settings: Settings, as_json: bool) -> CallRules:
    """Load a file to be checked, or end: 2 if it cannot be read, 1 if it has mistakes."""
    try:
        check_regular(file)
    except OSError as error:
        end(EXIT_CONFIGURATION, f"cannot read {file} ({error.strerror})")
    try:
        return load_rules(settings, file).rules
    except ConfigurationError as error:
        _end_invalid(EXIT_ERROR, file, [mistake.text for mistake in error.mistakes], as_json)


def _end_invalid(code: int, file: Path | None, mistakes: list[str], as_json: bool) -> NoReturn:
    """End with the mistakes of a file, or with those of the policy that the settings name."""
    if as_json:
        click.echo(json.dumps({"file": None if file is None else str(file), "valid": False, "mistakes": mistakes}, indent=2))
        sys.exit(code)
    end(code, listed(f"{file} is not valid:" if file else "The policy cannot be used:", mistakes))


def _rules_in_force(env_file: Path, file: Path | None, as_json: bool) -> tuple[Settings, CallRules]:
    """Load the policy that the agent would use, or another file; end with 2 if it has mistakes."""
    try:
        settings = load_route_settings(env_file) if file is None else _settings(env_file)
        return settings, load_rules(settings, file).rules
    except ConfigurationError as error:
        mistakes = error.problems if file is None else [mistake.text for mistake in error.mistakes]
        _end_invalid(EXIT_CONFIGURATION, file, mistakes, as_json)


def _recent_calls(env_file: Path, days: int) -> tuple[list[CalledTarget], str | None]:
    """Return what the journal saw, and why that is nothing if it cannot be read."""
    try:
        directory = state_directory(env_file)
        return Reader(directory / JOURNAL, in_use=agent_runs(directory)).calls(time.time() - days * DAY_SECONDS), None
    except ConfigurationError as error:
        return [], "; ".join(error.problems)
    except JournalError as error:
        return [], str(error)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
