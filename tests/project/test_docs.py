"""README.md and docs/ say what the code says."""

from __future__ import annotations

import ast
import base64
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from relay_agent.agent import log_shipper, maintenance, shutdown
from relay_agent.cli.main import main
from relay_agent.cli.send import send
from relay_agent.cli.status import COMMANDS as WATCHERS
from relay_agent.config.settings import variables
from relay_agent.core import loop, urls
from relay_agent.core.clock import DAY_SECONDS, Clock
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTION_SECURE, ACTIONS_PLAIN, IDEMPOTENT, Command, Failure, HttpResponse, Status
from relay_agent.diagnostics import watchdog
from relay_agent.diagnostics.local_causes import TAKING_OVER
from relay_agent.diagnostics.transfer_failures import FALLBACK_LEAD_SECONDS
from relay_agent.protocol import json_bounds, jwe, media_types, messages, requests, responses
from relay_agent.protocol.jwe import open_command, seal_answer
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay import outbox, ownership, payload_reader, processing, uploader
from relay_agent.relay.outbox import Outbox
from relay_agent.relay.target import cookies, executor, redirects, response_reader
from relay_agent.sandbox.demo.rows import ROWS
from relay_agent.storage import disk_space, group_commit, retention
from relay_agent.tdp import aws_clients, platform_http, rest, sqs
from relay_agent.telemetry import stdout_writer
from relay_agent.transport import connection_pool, content_encoding, dialer, happy_eyeballs, proxy_connect, resolver, response_parser
from tests.pages import (
    DESIGN,
    LOGS,
    OPERATIONS,
    PACKAGE,
    PAGES,
    PROTOCOL,
    README,
    ROOT,
    SENDERS,
    blocks,
    inline,
    names,
    rows,
    section,
)

AGENT_ID = "9b9f275c-a60d-454f-8c6c-1ea094e3fd38"
WRITTEN = defaultdict(lambda: "another time", {0.001: "a millisecond", 60: "a minute", 3600: "an hour", 86_400: "one day"})
"""Seconds as the pages write them where they write no number."""
WORDS = {1: "one", 2: "two", 3: "three", 5: "five", 10: "ten", 12: "twelve"}
FRACTIONS = defaultdict(lambda: "another part", {3: "third", 5: "fifth"})
TIMES = defaultdict(lambda: "another multiple of", {2: "twice"})


# --- the configuration ---


def test_the_readme_lists_every_variable_in_order_with_its_default() -> None:
    reported = [(names(name)[0], default.strip("`")) for name, default, _ in rows(section(README, "Configuration"), "variable")]
    assert reported == [(variable.name, variable.default) for variable in variables()]


def test_every_variable_in_the_readme_s_table_has_a_meaning() -> None:
    assert [name for name, _, meaning in rows(section(README, "Configuration"), "variable") if not meaning] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_variable_that_the_agent_does_not_read(page: Path) -> None:
    of_scripts = set(re.findall(r"^  (RELAY_[A-Z_]+) ", (ROOT / "docker" / "run.sh").read_text(encoding="utf-8"), re.MULTILINE))
    known = {variable.name for variable in variables()} | of_scripts | {"RELAY_FAULT_POINT"}  # no setting: for the agent's own tests
    assert set(re.findall(r"\bRELAY_[A-Z_]+\b", page.read_text(encoding="utf-8"))) - known == set()


# --- error codes, actions, fields ---


@pytest.mark.parametrize("text", [README, PROTOCOL], ids=["README.md", "protocol.md"])
def test_every_error_code_has_its_row(text: str) -> None:
    table = rows(section(text, "Error codes"), "code")
    assert sorted(code for row in table for code in names(row[0])) == sorted(Code)
    assert [row for row in table if not all(row)] == []


def test_the_protocol_says_of_each_code_whether_the_command_is_a_failure_or_rejected() -> None:
    rejected = {names(code)[0] for code, status, _ in rows(section(PROTOCOL, "Error codes"), "code") if status == Status.REJECTED}
    assert rejected == {Code.EEXPIRED, Code.UNKNOWN_COMMAND}


def test_the_protocol_names_every_action() -> None:
    reported = [names(row[0])[0] for row in rows(section(PROTOCOL, "3. Commands and requests"), "action") if names(row[0])]
    assert set(reported) == {*ACTIONS_PLAIN, ACTION_SECURE}


@pytest.mark.parametrize(
    "text", [section(README, "Send a command"), section(PROTOCOL, "3. Commands and requests")], ids=["README.md", "protocol.md"]
)
def test_every_field_of_a_request_is_documented(text: str) -> None:
    assert {names(row[0])[0] for row in rows(text, "field")} == requests.REQUEST_FIELDS


def test_the_fields_of_a_response_body_are_those_that_are_sent() -> None:
    response = HttpResponse(200, (), NoContent(), None, True, "http://h/")
    sent = json.loads("".join(responses.response_body(response)))
    assert [names(row[0])[0] for row in rows(section(PROTOCOL, "4. The response body"), "field")] == list(sent)
    assert list(first_json(section(PROTOCOL, "4. The response body"))) == list(sent)
    answer = first_json(section(README, "Send a command"))
    assert list(answer) == list(sent)


def test_the_fields_of_a_failure_are_those_that_are_sent() -> None:
    sent = json.loads(responses.failure_body(Failure(Code.ECONNREFUSED, "text", "http://h/", 3)))
    for text in (section(README, "Send a command"), section(PROTOCOL, "4. The response body")):
        assert any(list(json.loads(block)) == list(sent) for block in blocks(text, "json"))


def test_the_fields_of_a_status_update_are_those_that_are_sent() -> None:
    sent = json.loads(messages.update_message("id", "agent", Status.SUCCESS, datetime(2026, 11, 23, tzinfo=UTC), "{}"))
    table = section(PROTOCOL, "2. Queues and payloads").partition("**Out**")[2]
    assert {name for row in rows(table, "field") for name in names(row[0])} == set(sent)


def test_the_fields_of_an_inbound_message_are_those_that_are_read() -> None:
    table = section(PROTOCOL, "2. Queues and payloads").partition("**Out**")[0]
    message = dict.fromkeys((name for row in rows(table, "field") for name in names(row[0])), "x")
    message |= {"createdAt": "2026-11-23T03:13:00Z", "expiresAt": "2026-11-23T03:14:00Z", "bodyDelivery": "referenced"}
    moment = datetime(2026, 11, 23, 3, 13, tzinfo=UTC)
    expected = Command("x", "x", "x", moment, moment.replace(minute=14), "x", "x", "x")
    assert messages.decode_message(json.dumps(message)) == expected


class NoContent:
    """A response without bytes."""

    size = 0

    def chunks(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Nothing is held."""


def first_json(text: str) -> Any:
    """The first JSON example."""
    return json.loads(blocks(text, "json")[0])


def test_the_request_that_the_protocol_shows_is_one() -> None:
    block = next(block for block in blocks(PROTOCOL, "json") if '"method"' in block)
    request = requests.decode_request(json.loads(block))
    assert (request.warnings, request.method, len(request.headers)) == ((), "POST", 3)
    assert set(json.loads(block)) == requests.REQUEST_FIELDS


# --- numbers ---


def word(number: float) -> str:
    """A small number in words, as the pages write it."""
    return WORDS.get(number, f"{number:g}")


def kib(size: int) -> str:
    return f"{size / 1024:g} KiB"


def mib(size: int) -> str:
    return f"{size / 1024 / 1024:g} MiB"


def ms(seconds: float) -> str:
    return f"{seconds * 1000:g} ms"


def days(seconds: float) -> str:
    return f"{seconds / DAY_SECONDS:g} days"


CODINGS = f"{content_encoding.MAX_CODINGS}, of them {word(content_encoding.MAX_WINDOWED)}"
CALLS = f"may take {aws_clients.RECEIVE_SECONDS:g} s in all, any other call {platform_http.CALL_SECONDS:g} s"
TOKENS_KEPT = days(jwe.MAX_VALID_SECONDS)
IDS_KEPT = f"at least {retention.KEEP_IDS_SECONDS / 3600:g} h after delivery, at most {days(retention.KEEP_UNACKED_SECONDS)}"


LIMITS = {
    "protocol.md": [
        # §1
        f"has a time limit of {platform_http.CALL_SECONDS:g} s",
        f"once CloudWatch has failed for {log_shipper.UPLOAD_AFTER_SECONDS / 60:g} minutes",
        f"`Retry-After` says, at most {WRITTEN[rest.MOST_RETRY_SECONDS]}",
        f"double from half a second to {WRITTEN[loop.MAX_BACKOFF_SECONDS]}, with jitter",
        # §2
        f"for {word(payload_reader.DOWNLOAD_SECONDS / 60)} minutes, up to {payload_reader.DOWNLOAD_TRY_SECONDS:g} s a try",
        f"ends them at the second try, {payload_reader.MISSING_SECONDS:g} s later",
        f"still running {ms(outbox.PROCESSING_AFTER_SECONDS)} after a worker took it",
        f"A message is at most {kib(messages.MESSAGE_LIMIT)} ({messages.MESSAGE_LIMIT:,} bytes)",
        f"retried until {FALLBACK_LEAD_SECONDS:g} s before the command expires, for at most {WRITTEN[uploader.GIVE_UP_SECONDS]}",
        # §3
        f"required, at most {messages.MAX_ACTION} characters",
        f"| the URL, as given and as sent | {urls.MAX_URL:,} characters |",
        f"| its host; one label of it | {urls.MAX_HOST} characters; {urls.MAX_LABEL} |",
        f"| `method`; `action` | {requests.MAX_METHOD} characters; {messages.MAX_ACTION} |",
        f"| JSON values in the payload; their nesting | {json_bounds.MAX_VALUES:,}; {json_bounds.MAX_DEPTH} levels |",
        f"| a `Content-Type` whose boundary is used | {media_types.MAX_CHARACTERS:,} characters |",
        f"and by {WRITTEN[processing.MOST_SECONDS]}. Without",
        f"at least {word(processing.RECORD_SECONDS)} seconds are allowed",
        f"for at most {connection_pool.MAX_AGE_SECONDS:g} s, and only as long as the target allows",
        f"the next address is tried {ms(happy_eyeballs.NEXT_ADDRESS_SECONDS)} after the previous one",
        f"tried first for the next {word(dialer.WINNER_SECONDS / 60)} minutes",
        f"a probe after {happy_eyeballs.KEEP_ALIVE_SECONDS} s, then every {happy_eyeballs.KEEP_ALIVE_AGAIN_SECONDS} s",
        f"Followed up to {redirects.MAX_REDIRECTS} times",
        f"name and value longer than {cookies.MAX_PAIR:,} characters together; a field longer than {kib(cookies.MAX_FIELD)} or",
        f"Beyond {cookies.MAX_COOKIES} cookies",
        f"or of more than {urls.MAX_URL:,} bytes, is `EBADRESPONSE`",
        f"`Accept-Encoding: {executor.ACCEPT_ENCODING}`",
        # §4
        f"A `Content-Type` of more than {kib(media_types.MAX_CHARACTERS)} names no charset",
        f"up to {word(content_encoding.MAX_CODINGS)} on top of each other, of which {word(content_encoding.MAX_WINDOWED)} may be `br`",
        f"more than {redirects.MAX_REDIRECTS} redirects |",
        f"a head over {kib(response_parser.MAX_HEAD_BYTES)} or {response_parser.MAX_FIELDS:,} fields",
        f"but for at most {proxy_connect.REFUSAL_SECONDS:g} s if the proxy neither says where it ends",
        # Limits
        f"as received | {TIMES[response_reader.EARLY_FACTOR]} that of a response's body |",
        f"| a queue message, and a batch of them | {kib(messages.MESSAGE_LIMIT)} |",
        f"| a response's head | {kib(response_parser.MAX_HEAD_BYTES)}, {response_parser.MAX_FIELDS:,} fields |",
        f"| a proxy's refusal that is relayed | {kib(proxy_connect.MAX_PROXY_ANSWER)}, and at most what a response may have",
        f"| redirects | {redirects.MAX_REDIRECTS} |",
        f"| content codings that are decoded | {CODINGS} `br` or `zstd` |",
        f"| until {FALLBACK_LEAD_SECONDS:g} s before `expiresAt`, {uploader.GIVE_UP_SECONDS / 3600:g} hour at most |",
        f"{IDS_KEPT}; the newest {retention.KEEP_IDS:,} |",
        f"and so how long its `jti` is remembered | {TOKENS_KEPT} |",
        f"protected header; its `jti` | {jwe.MAX_HEADER_CHARACTERS:,} characters; {jwe.MAX_JTI_CHARACTERS:,} |",
        f"at most {jwe.MAX_HEADER_CHARACTERS:,} characters",
    ],
    "durability.md": [
        f"{IDS_KEPT}, and at most {retention.KEEP_IDS:,}",
        f"**Large answers** (over {kib(messages.MESSAGE_LIMIT)})",
        f"| `reserve` | {mib(disk_space.RESERVE_BYTES)} kept free",
        f"({group_commit.LOAD_CHANGES} changes within {ms(group_commit.LOAD_SECONDS)}, and more than one",
        f"A thread that commits waits up to {WRITTEN[group_commit.LINGER_SECONDS]} for others",
        f"The sender waits up to {ms(group_commit.FOLLOWER_WAIT_SECONDS)} for a commit",
        f"Undelivered answers: {Outbox(Clock(), lambda: 0).free():,}.",
        f"Remembered ids: {retention.KEEP_IDS:,} and {days(retention.KEEP_UNACKED_SECONDS)}; `jti`s of secure commands: {TOKENS_KEPT}",
        f"Everything that waits in the state directory: {disk_space.BACKLOG_BYTES / 1e9:g} GB, beyond which",
        f"Every {WRITTEN[maintenance.PRUNE_SECONDS].removeprefix('a ')} it deletes rows beyond the bounds, {retention.AT_ONCE} per commit",
        f"returns free pages, {retention.AT_ONCE} at a time",
        f"until {shutdown.DELIVERY_SECONDS:g} s (or a {FRACTIONS[shutdown.DELIVERY_FRACTION]}) of the time are left",
        f"makes no progress for {watchdog.RECENT_SECONDS:g} s, the heartbeat stops",
        f"frozen for more than {word(watchdog.STUCK_SECONDS / 60)} minutes, it ends itself when it continues",
        f"After {watchdog.STUCK_SECONDS:g} s the process ends with exit 1",
        f"The newest lines wait, up to {mib(stdout_writer.MAX_BYTES)}, and `stdout-blocked`",
    ],
    "design.md": [
        f"at most {resolver.MAX_LOOKUPS} at a time. Each domain has a bound ({resolver.ZONE_LOOKUPS} for the names directly in it)",
        f"its parents larger ones ({2 * resolver.ZONE_LOOKUPS}, then {resolver.MAX_LOOKUPS // 2})",
        f"A part of the {resolver.MAX_LOOKUPS} ({resolver.MAX_LOOKUPS - resolver.STRANGERS_LOOKUPS}) is kept for domains",
        f"and a part of that ({resolver.MAX_LOOKUPS - resolver.DOMAINS_LOOKUPS}) for hosts that were resolved recently",
        f"at most a {FRACTIONS[resolver.SHARE_LEFT]} of what is left",
        f"It waits up to {ms(outbox.LINGER_SECONDS)} for more",
        f"**PROCESSING** is sent {ms(outbox.PROCESSING_AFTER_SECONDS)} after a worker took",
        f"At {Outbox(Clock(), lambda: 0).free():,} answers the poller pauses",
        f"(a long poll of {sqs.WAIT_SECONDS} s) {CALLS}",
        f"none longer than {connection_pool.MAX_AGE_SECONDS:g} s",
        f"until {FALLBACK_LEAD_SECONDS:g} s before its command expires",
        f"after {watchdog.RECENT_SECONDS:g} s without progress it withholds the heartbeat, after {watchdog.STUCK_SECONDS:g} s it ends",
        f"until {shutdown.DELIVERY_SECONDS:g} s of the deadline are left, or a {FRACTIONS[shutdown.DELIVERY_FRACTION]} of it",
        f"at most once in {word(dialer.LOOK_AGAIN_SECONDS / 60)} minutes for each host",
    ],
}
"""What pages say of limits, by the page's name."""


@pytest.mark.parametrize(("page", "reported"), [(page, reported) for page, told in LIMITS.items() for reported in told])
def test_a_page_states_the_limits_that_are_in_force(page: str, reported: str) -> None:
    assert reported in (ROOT / "docs" / page).read_text(encoding="utf-8")


def test_how_long_messages_from_the_time_alone_are_waited_for_is_the_same_on_the_page_and_in_the_cure() -> None:
    # Besides the further leases: the one within which the receipt was tried, and the one for which a receive may have hidden the message.
    most, wait = word(ownership.SETTLE_LEASES + 2), f"{sqs.WAIT_SECONDS} s"
    page = (ROOT / "docs" / "several-agents.md").read_text(encoding="utf-8")
    assert f"RELAY_LEASE_SECONDS and {wait}, or up to {most} times RELAY_LEASE_SECONDS while new commands keep arriving" in TAKING_OVER.cure
    assert f"That takes a lease and {wait} (" in page and f"or up to {most} leases while new commands keep arriving" in page
    assert f"a lease and up to {wait}." in page and f"allow {most} leases with `--timeout`" in page


def test_a_default_that_a_page_states_beside_its_variable_is_the_one_that_is_used() -> None:
    defaults = {variable.name: variable.default.rpartition(":")[2].removesuffix(".0") for variable in variables()}
    told = [
        (page.name, name, number)
        for page in PAGES
        for name, number in re.findall(r"`(RELAY_[A-Z_]+)` \((\d+)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(told) >= 5
    assert [row for row in told if defaults[row[1]] != row[2]] == []


def test_the_methods_that_may_be_repeated_are_those_of_the_protocol() -> None:
    reported = re.search(r"its method is idempotent \(([A-Z, ]+)\)", PROTOCOL)
    assert reported is not None
    assert set(reported[1].split(", ")) == IDEMPOTENT


def test_the_fields_that_cross_to_another_origin_or_go_with_the_body_are_documented() -> None:
    text = section(PROTOCOL, "Redirects").lower()
    with_body = text.partition("the fields that describe it are dropped:")[2].partition(".\n")[0]
    crossing, _, with_body_again = text.partition("only these fields are sent:")[2].partition(". any other")[0].partition("and with a body")
    assert set(names(with_body)) == redirects.BODY_HEADERS
    assert set(names(crossing)) == redirects.ACROSS_ORIGINS
    assert set(names(with_body_again)) == redirects.ACROSS_WITH_BODY


# --- commands, events, rooms ---


def test_every_command_is_named_in_the_readme() -> None:
    assert isinstance(main, click.Group)
    commands = main.list_commands(click.Context(main))
    assert len(commands) >= 6
    assert [name for name in commands if not re.search(rf"(relay-agent {name}|`{name}`)", README)] == []


def test_no_page_names_a_command_that_does_not_exist() -> None:
    known = {*main.list_commands(click.Context(main)), "COMMAND"}
    used = {name for page in PAGES for name in re.findall(r"`(?:\.venv/bin/)?relay-agent ([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert used - known == set()


def test_the_readme_shows_every_row_of_the_demo() -> None:
    shown = section(README, "Try it")
    assert [row.name for row in ROWS if not re.search(rf"^ok +{re.escape(row.name)} ", shown, re.MULTILINE)] == []
    assert f"{len(ROWS)} of {len(ROWS)} commands" in shown


def test_every_option_of_send_is_named_in_the_readme() -> None:
    text = section(README, "Send a command")
    short = [min(parameter.opts, key=len) for parameter in send.params if isinstance(parameter, click.Option)]
    assert [option for option in short if f"`{option}`" not in text] == []


def test_every_exit_code_of_run_is_documented() -> None:
    assert [row[0] for row in rows(section(README, "When something fails"), "exit code")] == ["0", "1", "2", "3"]


def test_every_event_that_the_readme_names_is_logged() -> None:
    known = set(re.findall(r"^\| `([^`]+)` \|", LOGS, re.MULTILINE))
    reported = {name for row in rows(section(README, "When something fails"), "event") for name in names(row[0])}
    assert reported - known == set()


def test_the_design_names_every_module_in_its_package_and_no_other() -> None:
    without_notes = {
        names(row[0])[0]: re.sub(r"\([^()]*\)", "", row[1]) for row in rows(section(DESIGN, "The thirteen packages"), "package")
    }
    modules: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE and path.stem != "__init__":
            modules.setdefault(path.parent.relative_to(PACKAGE).as_posix(), []).append(path.stem)
    assert {package: sorted(names(text)) for package, text in without_notes.items()} == {
        name: sorted(found) for name, found in modules.items()
    }


def test_the_design_s_floors_are_those_that_lint_checks() -> None:
    drawn = next(text for text in re.findall(r"^```text\n(.*?)^```", section(DESIGN, "The thirteen packages"), re.MULTILINE | re.DOTALL))
    shown = [re.split(r"\s{2,}", line)[0] for line in drawn.splitlines()]
    contract = (ROOT / ".importlinter").read_text(encoding="utf-8").partition("layers =\n")[2].partition("\n\n")[0]
    assert shown == [line.strip() for line in contract.splitlines()]


def test_the_design_has_a_sentence_for_each_package() -> None:
    named = re.findall(r"^- `(\w+)`: ", section(DESIGN, "The thirteen packages"), re.MULTILINE)
    assert sorted(named) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert len(named) == 13


def test_every_file_and_member_that_the_design_names_exists() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    files = [name for name in inline(DESIGN) if name.split("/")[0] in packages and re.fullmatch(r"\w+(/\w+)+(\.\w+)?", name)]
    modules = [name.removesuffix(".py") for name in files if "." not in name.removesuffix(".py")]
    assert len(modules) > 40
    assert [name for name in modules if not (PACKAGE / f"{name}.py").exists() and not (PACKAGE / name / "__init__.py").exists()] == []
    named = {found for name in inline(DESIGN) if (found := re.fullmatch(r"([A-Z]\w+)\.(\w+)", name))}
    assert len(named) > 20
    inherited = {"FairQueue.put", "FairQueue.get"}  # queue.Queue's
    assert sorted({found[0] for found in named if found[2] not in members().get(found[1], set())} - inherited) == []


@cache
def members() -> dict[str, set[str]]:
    """The methods and fields of each class, by its name."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(
                    ast.unparse(each.target) if isinstance(each, ast.AnnAssign) else each.name
                    for each in node.body
                    if isinstance(each, ast.AnnAssign | ast.FunctionDef)
                )
    return found


# --- links and examples ---


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if link.startswith(("http://", "https://")):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_every_column_of_the_matrix_that_the_threat_model_names_exists() -> None:
    """That the tests it names exist is checked with the other indexes of rules."""
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    columns = {name for names_of in re.findall(r"columns? ((?:`\w+`(?:, )?)+)", text) for name in names(names_of)}
    (matrix,) = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_secure_matrix.py")]
    assert columns == {"other_agent", "same_id", "restarted", "pruned", "set_back", "after_exp"}
    assert [name for name in columns if f"def {name}(scene" not in matrix] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_json_example_is_json(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "json"):
        json.loads(block)


class Context:
    """What a pipeline's task script gets, as far as the example needs it: it keeps the command and answers it."""

    def __init__(self) -> None:
        self.command: dict[str, Any] = {}

    def run_cmd(self, **command: Any) -> dict[str, Any]:
        self.command = command
        return {"statusCode": 201, "body": "created"}


def example(marker: str, page: str = README) -> str:
    """The one Python example of a page with these words."""
    (found,) = [block for block in blocks(page, "python") if marker in block]
    return found


def test_every_python_example_of_the_readme_is_tested_here_or_with_the_page_about_sending() -> None:
    assert len(blocks(README, "python")) == 3


def test_the_example_for_a_pipeline_sends_a_request_that_the_agent_understands(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context()
    exec(example("run_cmd"), {"context": context})
    request = requests.decode_request(context.command["payload"])
    assert context.command["action"] in ACTIONS_PLAIN
    assert (request.method, request.body, request.timeout, request.warnings) == ("POST", b'{"id": 1}', 30.0, ())
    assert capsys.readouterr().out == "created\n"


@pytest.fixture
def jose(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Keyring]:
    """What the joserfc example of the page about sending defines, and the agent's keyring."""
    key = secrets.token_bytes(32)
    monkeypatch.setenv("SECURE_COMMAND_KEY", base64.urlsafe_b64encode(key).rstrip(b"=").decode())
    monkeypatch.setenv("AGENT_ID", AGENT_ID)
    scope: dict[str, Any] = {}
    exec(example("joserfc", SENDERS), scope)
    return scope, Keyring([key])


def test_the_agent_opens_what_the_joserfc_example_seals(jose: tuple[dict[str, Any], Keyring]) -> None:
    scope, keyring = jose
    opened = open_command(requests.take_envelope(scope["payload"]), keyring, agent_id=AGENT_ID, now=datetime.now(UTC))
    request = requests.decode_request(requests.decode_payload(opened.plaintext), secure=True)
    assert (str(request.url), request.encrypt_response, request.warnings) == ("https://lims.lab.example/api/samples", True, ())
    assert opened.jti == scope["jti"]


def test_the_joserfc_example_opens_what_the_agent_seals_however_large(jose: tuple[dict[str, Any], Keyring]) -> None:
    """What it must not take for an answer is in the matrix of secure commands."""
    scope, keyring = jose

    def opened(outside: dict[str, Any], inside: dict[str, Any]) -> Any:
        jwe = "".join(seal_answer([json.dumps(inside).encode()], keyring, cid="c-1", jti=scope["jti"]))
        return scope["open_answer"]({**outside, "jwe": jwe}, "c-1", scope["jti"])

    body = {"statusCode": 200, "body": "x" * 3_000_000}
    assert opened({"statusCode": 200}, body) == body
    assert opened({"code": "ECONNREFUSED"}, {"code": "ECONNREFUSED", "url": "http://h/"}) == {"code": "ECONNREFUSED", "url": "http://h/"}
    for nothing in ({"code": "ENOKEY"}, {"body": "forged"}, {}, None, "jwe", ["jwe"]):
        with pytest.raises(RuntimeError, match="no encrypted answer"):
            scope["open_answer"](nothing, "c-1", scope["jti"])


# --- the operations manual ---


def test_the_manual_s_events_are_those_of_the_log_s_page() -> None:
    """Which a test of its own compares with the source."""
    reported = [row[:3] for row in rows(section(OPERATIONS, "Log events"), "event")]
    assert reported == [row[:3] for row in rows(section(LOGS, "Events"), "event")]


def test_the_manual_s_metrics_are_those_of_the_monitoring_page() -> None:
    """Which a test of its own compares with a running agent."""
    page = (ROOT / "docs" / "monitoring" / "README.md").read_text(encoding="utf-8")
    assert [row[:2] for row in rows(section(OPERATIONS, "Metrics"), "metric")] == [
        row[:2] for row in rows(section(page, "Every metric"), "metric")
    ]


def test_the_manual_gives_the_exit_codes_of_every_command() -> None:
    reported = {name for row in rows(section(OPERATIONS, "Exit codes"), "command") for name in names(row[0])}
    assert reported == set(main.list_commands(click.Context(main)))


def test_the_manual_has_a_section_for_every_page_and_option() -> None:
    assert {names(row[0])[0] for row in rows(section(OPERATIONS, "Pages"), "page")} == {
        "/healthz",
        "/readyz",
        "/metrics",
        "/status.json",
        "/",
        "/log",
    }
    (listing,) = [command for command in WATCHERS if command.name == "commands"]
    options = {option for parameter in listing.params for option in parameter.opts if option != "--env-file"}
    assert {names(row[0])[0].partition(" ")[0] for row in rows(section(OPERATIONS, "Commands"), "option")} == options
