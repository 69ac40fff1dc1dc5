"""No code reads another's message to find out what happened: if every message is reworded, each diagnosis stays; none is searched.

Owns that rule (docs/design.md). Faults of real connections are reworded in `contract/test_reworded_faults.py`.
"""

from __future__ import annotations

import ast
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from relay_agent.agent.admin.status import AgentStatus, Logging, PlatformState, Reports, StorageState
from relay_agent.core.clock import Clock
from relay_agent.core.errors import (
    Call,
    CredentialsExpired,
    JournalError,
    NotThePlatform,
    PayloadFault,
    PayloadRefused,
    PlatformError,
    PlatformRefused,
    PlatformUnreachable,
    QueueUnavailable,
    RateLimited,
    Service,
    UnknownAgent,
)
from relay_agent.core.failures import Cause, Code, FaultFacts, Phase, StorageTrouble, TlsTrouble
from relay_agent.diagnostics.local_causes import STUCK, journal_cause
from relay_agent.diagnostics.loop_status import LoopStatus
from relay_agent.diagnostics.platform_causes import NO_ANSWERS, SQS_UNREACHABLE, UNREACHABLE, cause_of
from relay_agent.diagnostics.platform_status import PlatformStatus
from relay_agent.diagnostics.transfer_failures import DownloadFailures
from relay_agent.diagnostics.watchdog import Finding
from relay_agent.storage.disk_space import Disk
from relay_agent.storage.group_commit import Writer
from relay_agent.tdp.aws_clients import platform_error
from tests.rewording import NONSENSE, reword
from tests.simulated_agent import SimulatedAgent

ROOT = Path(__file__).resolve().parents[3]


# --- reworded ---


def facts() -> Iterator[FaultFacts]:
    """Each kind of network fault of a call to the platform."""
    for code, phase in product(Code, (Phase.CONNECT, Phase.FIRST_BYTE)):
        yield FaultFacts(code, "api.lab.example", 443, phase)
    for code, behind in product((Code.ECONNREFUSED, Code.ETIMEDOUT, Code.CERT_HAS_EXPIRED), (True, False)):
        yield FaultFacts(code, "api.lab.example", 443, proxy="http://p:1", behind=behind)
    for status in (403, 407, 502):
        yield FaultFacts(Code.EBADRESPONSE, "api.lab.example", 443, proxy="http://p:1", status=status)
    for trouble in TlsTrouble:
        yield FaultFacts(Code.EPROTO, "api.lab.example", 443, trouble=trouble)


def platform_errors() -> Iterator[PlatformError]:
    """Each kind of error of each call."""
    for call, status in product(Call, (None, 200, 307, 400, 403, 404, 407, 408, 429, 500, 503)):
        for kind in (PlatformError, NotThePlatform, UnknownAgent, PlatformRefused, CredentialsExpired, QueueUnavailable):
            yield kind(call, "answered so", status)
        for why in PayloadFault:
            yield PayloadRefused(call, "S3 answered so", status, why=why)
    for call, found in product(Call, facts()):
        yield PlatformUnreachable(call, "no answer", found)
    yield from (RateLimited(call, 1.0) for call in Call)
    codes = (
        "ExpiredToken",
        "AccessDenied",
        "AccessDeniedException",
        "AWS.SimpleQueueService.NonExistentQueue",
        "ResourceNotFoundException",
    )
    for call, code in product(Call, (*codes, "SignatureDoesNotMatch", "ThrottlingException", "InternalError", "403")):
        error: Any = {"Error": {"Code": code, "Message": "so"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        yield platform_error(call, ClientError(error, "X"))


def diagnosed(error: PlatformError) -> Cause:
    """Its cause, without the error's own words."""
    cause = cause_of(error)
    return replace(cause, cause=cause.cause.replace(error.reason, ""))


def journal_errors(path: Path) -> Iterator[JournalError]:
    """The error that the journal's writer raises for each of SQLite's codes, however SQLite words it."""
    codes = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT)
    writer = Writer(sqlite3.connect(path, isolation_level=None), others=lambda: 1, monotonic=lambda: 0.0, make_room=lambda: False)
    for code in codes:

        def fail(_connection: sqlite3.Connection, code: int = code) -> None:
            error = sqlite3.OperationalError("database is locked" if code == sqlite3.SQLITE_FULL else NONSENSE)
            error.sqlite_errorcode = code
            raise error

        with pytest.raises(JournalError) as caught:
            writer.commit(fail)
        yield caught.value
        assert writer.unwritable is None or writer.unwritable.trouble == caught.value.trouble
    writer.close(1.0)


def test_a_reworded_platform_error_keeps_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = [diagnosed(error) for error in platform_errors()]
    reword(monkeypatch)
    assert [diagnosed(error) for error in platform_errors()] == reported
    assert len(set(reported)) > 60
    assert {error.service for error in platform_errors()} == set(Service)


def test_a_reworded_journal_error_keeps_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported = [(type(error), journal_cause(error.trouble)) for error in journal_errors(tmp_path / "a.db")]
    assert [error.trouble for error in journal_errors(tmp_path / "b.db")][:3] == [
        StorageTrouble.FULL,
        StorageTrouble.READ_ONLY,
        StorageTrouble.LOCKED,
    ]
    reword(monkeypatch)
    assert [(type(error), journal_cause(error.trouble)) for error in journal_errors(tmp_path / "c.db")] == reported


def test_a_reworded_disk_error_keeps_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reword(monkeypatch)
    monkeypatch.setattr("relay_agent.storage.disk_space.is_read_only", lambda _: True)
    disk = Disk(tmp_path, reserve_bytes=1000)
    disk.look()
    assert disk.obstacle is not None
    assert (disk.obstacle.reason, disk.obstacle.trouble) == (NONSENSE, StorageTrouble.READ_ONLY)


def test_a_body_that_is_too_large_is_the_senders_mistake_however_it_is_worded(monkeypatch: pytest.MonkeyPatch) -> None:
    reword(monkeypatch)
    trouble = DownloadFailures(SimulatedAgent().logs.logger, lambda: 0.0)
    trouble.note(PayloadRefused(Call.DOWNLOAD, "words", why=PayloadFault.TOO_LARGE))
    assert trouble.problem is None
    trouble.note(PayloadRefused(Call.DOWNLOAD, "words", 403))
    assert trouble.problem is not None


@pytest.mark.parametrize("words", ["the queue could not be read: no answer", NONSENSE])
def test_the_page_shows_each_cause_once_however_it_is_worded(words: str) -> None:
    clock = Clock()
    statuses = {name: LoopStatus(clock) for name in ("poller", "sender", "heartbeat", "config-refresh")}
    statuses["poller"].success()
    statuses["poller"].failure("no answer", SQS_UNREACHABLE)
    statuses["heartbeat"].failure("no answer", UNREACHABLE)
    stub: Any = SimpleNamespace(
        dead=list,
        internal_findings=lambda: [Finding("no commit ends", 100.0, STUCK)],
        platform_findings=lambda: [Finding(words, 100.0, SQS_UNREACHABLE), Finding("no answer could be sent", 1.0, NO_ANSWERS)],
        unwritable=None,
        obstacle=None,
        stuck_seconds=lambda: 0.0,
        inherited=lambda: 0,
    )
    threads: Any = SimpleNamespace(statuses=statuses, watchdog=stub, stopping=lambda: False, dead=list)
    page = AgentStatus(
        identity=stub,
        clock=clock,
        threads=threads,
        flow=stub,
        storage=StorageState(stub, stub, stub),
        platform=PlatformState(PlatformStatus(registered=True), lambda: None, lambda: None, lambda: None),
        reports=Reports(lambda: Logging(0, 0, None), list),
    )
    problems = page.ready()
    assert [problem.cause for problem in problems] == [STUCK, SQS_UNREACHABLE]
    assert [problem.cause for problem in page.warnings(problems)] == [UNREACHABLE]


def test_the_rewording_finds_a_diagnosis_that_reads_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_words(error: PlatformError) -> bool:
        return "AccessDenied" in error.reason  # the pattern that this file forbids

    denied: Callable[[], PlatformError] = lambda: PlatformError(Call.SQS_LOOK, "AWS says AccessDenied", 403)  # noqa: E731
    reported = by_words(denied())
    reword(monkeypatch)
    assert by_words(denied()) != reported


# --- searched ---

SEARCHES = {
    *("startswith", "endswith", "partition", "rpartition", "removeprefix", "removesuffix"),
    *("find", "rfind", "index", "rindex", "count", "replace", "isdigit", "isalpha"),
}
PATTERNS = {"search", "match", "fullmatch", "findall", "finditer", "sub"}
ERRORS = {"error", "fault", "problem", "failure", "refusal", "damage", "exc", "caught", "e"}
TEXTS = {"message", "reason", "call", "activity"}
ALLOWED = {
    ("storage/disk_faults.py", "text_of"): "SQLite's words repeat a value",
    ("pipelines/failures.py", "_kind"): "another machine's answer has code and message only (PROTOCOL §4)",
    ("config/error_messages.py", "value_problem"): "pydantic puts its own words before ours",
    ("config/policy_file.py", "_without_key"): "tomllib's words repeat a key",
    ("transport/fault_mapping.py", "_tls_text"): "OpenSSL's reasons are names (sslerr.h)",
    ("transport/handshake.py", "alert"): "OpenSSL's reasons are names (sslerr.h)",
}
"""Texts of libraries that are the only source of a fact; each is read at one place."""


def is_text(node: ast.expr) -> bool:
    """Whether an expression is an error's message: `str(error)`, `error.reason`, or a name for it."""
    if isinstance(node, ast.Call):
        inner = node.args[0] if node.args else node
        return isinstance(node.func, ast.Name) and node.func.id in ("str", "repr") and isinstance(inner, ast.Name) and inner.id in ERRORS
    if isinstance(node, ast.BoolOp):
        return any(is_text(value) for value in node.values)
    if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "args":
        return isinstance(node.value.value, ast.Name) and node.value.value.id in ERRORS
    if isinstance(node, ast.Attribute):
        return node.attr in TEXTS
    return isinstance(node, ast.Name) and node.id in TEXTS - {"call"}


def searched(tree: ast.AST) -> Iterator[ast.expr]:
    """Return the places where an error's message is compared or searched."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            nothing = any(isinstance(side, ast.Constant) and side.value is None for side in sides)
            if not all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops) and not nothing and any(map(is_text, sides)):
                yield node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            on_it = node.func.attr in SEARCHES and (is_text(of) or (isinstance(of, ast.Name) and of.id in ERRORS))
            if on_it or (node.func.attr in PATTERNS and any(map(is_text, node.args))):
                yield node
        elif isinstance(node, ast.Subscript) and is_text(node.slice):
            yield node


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Each statement of a module's top level and of its classes, by its name."""
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for part in inner:
            yield getattr(part, "name", ""), part


def test_no_message_is_compared_or_searched() -> None:
    found, used = [], set()
    for path in sorted((ROOT / "relay_agent").rglob("*.py")):
        name = path.relative_to(ROOT / "relay_agent").as_posix()
        for function, node in functions(ast.parse(path.read_text(encoding="utf-8"))):
            for place in searched(node):
                if (name, function) in ALLOWED:
                    used.add((name, function))
                else:
                    found.append(f"{name}:{place.lineno}: {ast.unparse(place)}")
    assert found == []
    assert used == set(ALLOWED)


@pytest.mark.parametrize(
    "line",
    [
        '"AccessDenied" in error.reason',
        "error.reason.startswith(_TOO_LARGE)",
        "_CONNECTED.search(error.reason)",
        'fault.message.partition("policy: ")[2]',
        '"IncompleteRead" in str(error)',
        "words in reason",
        "f.reason not in seen",
        "error.call.startswith(start)",
        'error.call == "agents"',
        'reason.removeprefix("AWS says ").isdigit()',
        '" to CONNECT" not in fault.message',
        "_AT_PROXY.match(self.message)",
        'str(error).partition(" with text ")',
        "_OF_JOURNAL[reason]",
        'error.args[0].startswith("x")',
        'problem.partition(":")[0]',
        'loop.status.activity == "receiving"',
    ],
)
def test_the_search_knows_the_patterns_that_were_once_here(line: str) -> None:
    assert list(searched(ast.parse(line))) != []
