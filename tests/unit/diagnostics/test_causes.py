"""The tables of causes and cures: their words reach an administrator whole, and name variables that exist."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from relay_agent.config.settings import variables
from relay_agent.core.failures import Cause, Code, FaultFacts, Phase, TlsTrouble
from relay_agent.diagnostics import local_causes, network_causes, platform_causes
from relay_agent.diagnostics.causes import days_left
from relay_agent.telemetry.secret_patterns import MASK, redact_text


def filled_causes() -> Iterator[Cause]:
    """Every cause: the constants, and each cause of a network fault, filled in."""
    yield from every_row()
    for to in (to for to in vars(network_causes).values() if isinstance(to, network_causes.Destination)):
        for code in network_causes.ON_THE_WAY:
            for proxy, status in ((None, None), ("http://lab:***@proxy.lab.example:3128", None), ("http://p.lab.example:8080", 407)):
                facts = FaultFacts(code, "api.lab.example", 443, proxy=proxy, status=status, rule="default: allow")
                for phase in (Phase.CONNECT, Phase.FIRST_BYTE):
                    yield network_causes.on_the_way(replace(facts, phase=phase), to)
                for trouble in TlsTrouble if code is Code.EPROTO else ():
                    yield network_causes.on_the_way(replace(facts, trouble=trouble), to)


def test_no_cause_looks_like_a_secret_to_the_redactor() -> None:
    """A cure must reach its reader whole. The proxy's masked user is the one text that is masked again."""
    every = list(filled_causes())
    assert len(every) > 300
    for row in every:
        for text in (row.cause, row.cure):
            assert redact_text(text) == text.replace("lab:***@", f"{MASK}@")


def every_row() -> list[Cause]:
    tables = (local_causes, network_causes, platform_causes)
    return [value for table in tables for value in vars(table).values() if isinstance(value, Cause)]


def test_every_variable_named_in_a_cause_or_cure_exists() -> None:
    known = {variable.name for variable in variables()} | {"RELAY_FAULT_POINT"}
    text = " ".join(row.cause + row.cure for row in every_row()) + " ".join(a + b for a, b in network_causes.ON_THE_WAY.values())
    assert set(re.findall(r"\bRELAY_[A-Z_]+\b", text)) - known == set()


def test_every_cause_with_placeholders_is_filled_in_where_it_is_used() -> None:
    """An unfilled placeholder would reach an administrator."""
    assert len(every_row()) > 60
    filled = {row.id for row in every_row() if any(name for _, name, _, _ in string.Formatter().parse(row.cause + row.cure) if name)}
    assert filled <= {"configuration", "token", "clock", "state-dir", "agent", "platform", "sqs", "syslog", "target", ""}


def test_days_left_are_given_in_words() -> None:
    now = datetime(2026, 11, 23, 3, 13, tzinfo=UTC)
    assert [days_left(now + timedelta(days=n, hours=1), now) for n in (0, 1, 2)] == ["less than a day", "1 day", "2 days"]
