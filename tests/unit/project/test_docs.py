"""README.md and docs/ say what the code says."""

from __future__ import annotations

import ast
import base64
import json
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from relay_agent.cli.main import main
from relay_agent.cli.send import send
from relay_agent.cli.status import COMMANDS as WATCHERS
from relay_agent.config.settings import variables
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTION_SECURE, ACTIONS_PLAIN, IDEMPOTENT, Command, Failure, HttpResponse, Status
from relay_agent.protocol import messages, requests, responses
from relay_agent.protocol.jwe import MAX_HEADER_CHARACTERS, open_command, seal_answer
from relay_agent.protocol.keyring import Keyring
from relay_agent.relay import outbox
from relay_agent.relay.outbox import PROCESSING_AFTER_SECONDS
from relay_agent.relay.target import executor, redirects
from relay_agent.sandbox.demo.rows import ROWS
from relay_agent.transport import content_encoding, resolver, response_parser
from tests.pages import DESIGN, LOGS, OPERATIONS, PACKAGE, PAGES, PROTOCOL, README, ROOT, blocks, inline, names, rows, section

AGENT_ID = "9b9f275c-a60d-454f-8c6c-1ea094e3fd38"


# --- the configuration ---


def test_the_readme_lists_every_variable_in_order_with_its_default() -> None:
    told = [(names(name)[0], default.strip("`")) for name, default, _ in rows(section(README, "Configuration"), "variable")]
    assert told == [(variable.name, variable.default) for variable in variables()]


def test_every_variable_in_the_readme_s_table_has_a_meaning() -> None:
    assert [name for name, _, meaning in rows(section(README, "Configuration"), "variable") if not meaning] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_variable_that_the_agent_does_not_read(page: Path) -> None:
    known = {variable.name for variable in variables()} | {"RELAY_FAULT_POINT"}  # no setting: for the agent's own tests
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
    told = [names(row[0])[0] for row in rows(section(PROTOCOL, "3. Commands and requests"), "action") if names(row[0])]
    assert set(told) == {*ACTIONS_PLAIN, ACTION_SECURE}


@pytest.mark.parametrize(
    "text", [section(README, "Send a command"), section(PROTOCOL, "3. Commands and requests")], ids=["README.md", "protocol.md"]
)
def test_every_field_of_a_request_is_told(text: str) -> None:
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


@pytest.mark.parametrize(
    "told",
    [
        f"({messages.MESSAGE_LIMIT:,} bytes)",
        f"{PROCESSING_AFTER_SECONDS * 1000:.0f} ms after",
        f"Followed up to {redirects.MAX_REDIRECTS} times",
        f"{response_parser.MAX_HEAD_BYTES // 1024} KiB, {response_parser.MAX_FIELDS:,} fields",
        f"| content codings that are undone | {content_encoding.MAX_CODINGS}, of them one `br` or `zstd` |",
        f"at most {MAX_HEADER_CHARACTERS:,} characters",
        f"`Accept-Encoding: {executor.ACCEPT_ENCODING}`",
    ],
)
def test_the_protocol_tells_the_limits_that_are_in_force(told: str) -> None:
    assert told in PROTOCOL


def test_the_design_tells_the_limits_that_are_in_force() -> None:
    assert f"at most {resolver.MAX_LOOKUPS} at a time" in DESIGN
    assert f"up to {outbox.LINGER_SECONDS * 1000:.0f} ms" in DESIGN


def test_the_methods_that_may_be_repeated_are_those_of_the_protocol() -> None:
    told = re.search(r"its method is idempotent \(([A-Z, ]+)\)", PROTOCOL)
    assert told is not None
    assert set(told[1].split(", ")) == IDEMPOTENT


def test_every_field_that_crosses_to_another_origin_is_told_and_every_one_that_goes_with_the_body() -> None:
    told = section(PROTOCOL, "Redirects").lower()
    named = {*redirects.ACROSS_ORIGINS, *redirects.ACROSS_WITH_BODY, *redirects.BODY_HEADERS}
    assert [name for name in sorted(named) if f"`{name}`" not in told] == []


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


def test_every_exit_code_of_run_is_told() -> None:
    assert [row[0] for row in rows(section(README, "When something fails"), "exit code")] == ["0", "1", "2", "3"]


def test_every_event_that_the_readme_names_is_logged() -> None:
    known = set(re.findall(r"^\| `([^`]+)` \|", LOGS, re.MULTILINE))
    told = {name for row in rows(section(README, "When something fails"), "event") for name in names(row[0])}
    assert told - known == set()


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


def example(marker: str) -> str:
    """The one Python example of the README with these words."""
    (found,) = [block for block in blocks(README, "python") if marker in block]
    return found


def test_every_python_example_of_the_readme_is_tested_here() -> None:
    assert len(blocks(README, "python")) == 2


def test_the_example_for_a_pipeline_sends_a_request_that_the_agent_understands(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context()
    exec(example("run_cmd"), {"context": context})
    request = requests.decode_request(context.command["payload"])
    assert context.command["action"] in ACTIONS_PLAIN
    assert (request.method, request.body, request.timeout, request.warnings) == ("POST", b'{"id": 1}', 30.0, ())
    assert capsys.readouterr().out == "created\n"


@pytest.fixture
def jose(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Keyring]:
    """What the README's joserfc example defines, and the agent's keyring."""
    key = secrets.token_bytes(32)
    monkeypatch.setenv("SECURE_COMMAND_KEY", base64.urlsafe_b64encode(key).rstrip(b"=").decode())
    monkeypatch.setenv("AGENT_ID", AGENT_ID)
    scope: dict[str, Any] = {}
    exec(example("joserfc"), scope)
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
        with pytest.raises(RuntimeError, match="no sealed answer"):
            scope["open_answer"](nothing, "c-1", scope["jti"])


# --- the operations manual ---


def test_the_manual_s_events_are_those_of_the_log_s_page() -> None:
    """Which a test of its own compares with the source."""
    told = [row[:3] for row in rows(section(OPERATIONS, "Log events"), "event")]
    assert told == [row[:3] for row in rows(section(LOGS, "Events"), "event")]


def test_the_manual_s_metrics_are_those_of_the_monitoring_page() -> None:
    """Which a test of its own compares with a running agent."""
    page = (ROOT / "docs" / "monitoring" / "README.md").read_text(encoding="utf-8")
    assert [row[:2] for row in rows(section(OPERATIONS, "Metrics"), "metric")] == [
        row[:2] for row in rows(section(page, "Every metric"), "metric")
    ]


def test_the_manual_gives_the_exit_codes_of_every_command() -> None:
    told = {name for row in rows(section(OPERATIONS, "Exit codes"), "command") for name in names(row[0])}
    assert told == set(main.list_commands(click.Context(main)))


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
