"""`relay-agent check` against a platform with one thing broken at a time: which check reports it, why, and the cure.

With the real command. Checks of this machine alone are in tests/unit/cli/checks/test_local_checks.py.
"""

from __future__ import annotations

import email.utils
import errno
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay_agent.cli.checks.preflight import CHECK_IDS, Bounds, check_all
from relay_agent.cli.checks.result import Status
from relay_agent.diagnostics import platform_causes
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from tests.agents import EXECUTABLE, RunningAgent, agent_environment, run_once, running
from tests.syslog_receiver import SyslogReceiver
from tests.target_certificates import ca_pem, server_context
from tests.target_proxies import HttpProxy, Refusal
from tests.targets import ByteTarget, FullBacklog, closed_port, play, raw, redirect, reply, seen

NOBODY = 65534
KEY = "7f" * 32
CANARY = "canary-0f3c1d"
PLATFORM_QUEUE = "command-service-inbound"
"""In the name of the queue that answers go to, as the platform sees it."""
Checks = dict[str, dict[str, Any]]


class World:
    """An agent's environment on the sandbox, and `check` in it."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self.sandbox = sandbox
        self.directory = directory
        self.agent_id = sandbox.add_agent()
        self.environment = agent_environment(sandbox, self.agent_id, directory, {"SECURE_COMMAND_KEY": KEY})
        self.code = -1
        self.output = ""

    def check(self, *arguments: str, **change: str | None) -> Checks:
        """Run `check --json`; the checks by id (the last, where there are several)."""
        merged: dict[str, str | None] = {**self.environment, **change}
        environment = {name: value for name, value in merged.items() if value is not None}
        done = run_once(["check", "--json", *arguments], self.directory, environment)
        assert done.stderr == b"", done.stderr.decode()
        self.code, self.output = done.returncode, done.stdout.decode()
        return {found["id"]: found for found in json.loads(self.output)["checks"]}

    def fails(self, check: str, *, says: str, cure: str, arguments: tuple[str, ...] = (), **change: str | None) -> Checks:
        """Run it; that check and no other is an error, its cause and cure say these, and what waits for it is skipped."""
        found = self.check(*arguments, **change)
        broken = [name for name, one in found.items() if one["status"] == "error"]
        assert broken == [check], self.output
        assert says in found[check]["cause"], found[check]
        assert cure in found[check]["cure"], found[check]
        for one in found.values():
            assert one["status"] != "skipped" or check in one["summary"], one
        assert self.code == (2 if check == "configuration" else 1)
        return found


@pytest.fixture
def world(sandbox: Sandbox, tmp_path: Path) -> World:
    return World(sandbox, tmp_path)


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(200))
        yield running_target


def skipped(found: Checks) -> set[str]:
    return {name for name, one in found.items() if one["status"] == "skipped"}


BEHIND_PLATFORM = {"clock", "access", "agent", "enabled", "queue", "credentials", "sqs", "cloudwatch"}
BEHIND_ACCESS = {"agent", "enabled", "queue", "credentials", "sqs", "cloudwatch"}


# --- all is well ---


def test_with_everything_right_every_check_is_ok_in_order_and_it_exits_0(world: World, target: ByteTarget) -> None:
    with SyslogReceiver("tcp") as receiver:
        found = world.check("--target", target.url("/"), RELAY_LOG_SYSLOG=receiver.url)
    assert tuple(found) == CHECK_IDS
    # The machine that runs the tests may have less than 1 GB free, or be a container.
    assert {name for name, one in found.items() if one["status"] != "ok"} <= {"state-dir"}, world.output
    assert all(one["cause"] is None and one["cure"] is None for one in found.values() if one["status"] == "ok")
    assert world.code == 0


def test_it_changes_nothing_on_the_platform_or_on_the_disk(world: World) -> None:
    world.sandbox.create_command(world.agent_id, {"url": "http://127.0.0.1:9/"})
    calls = len(world.sandbox.aws_calls)
    world.check()
    operations = {call.operation for call in list(world.sandbox.aws_calls)[calls:]}
    assert {"GetQueueAttributes", "DescribeLogStreams"} <= operations
    assert not {"ReceiveMessage", "DeleteMessage", "DeleteMessageBatch", "PutLogEvents", "CreateLogStream"} & operations
    assert world.sandbox.queue_depth(world.agent_id) == (1, 0)
    assert (world.sandbox.heartbeats(world.agent_id), world.sandbox.settings(world.agent_id)) == ([], [])
    assert world.sandbox.log_events(world.agent_id) == []
    assert list(world.directory.iterdir()) == []


def test_it_runs_beside_a_running_agent_without_disturbing_it(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        assert agent.get(target.url("/")).status == "SUCCESS"
        environment = agent_environment(sandbox, agent.agent_id, tmp_path)
        done = run_once(["check", "--json"], tmp_path, environment)
        found = {one["id"]: one for one in json.loads(done.stdout)["checks"]}
        assert done.returncode == 0, done.stdout
        assert found["state-dir"]["status"] in ("ok", "warning")
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.stop() == 0
        assert sandbox.settings(agent.agent_id) == ["STARTED", "STOPPED"]


def test_the_report_for_people_is_plain_when_piped_and_aligned(world: World) -> None:
    done = run_once(["check"], world.directory, {**world.environment, "SECURE_COMMAND_KEY": ""})
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert lines[0].startswith("ok        configuration  ")
    assert "          cause  no key is set, so secure commands (V2) fail with ENOKEY" in lines
    assert "warning" in lines[-1]


# --- configuration and token ---


def test_an_invalid_configuration_names_every_variable_and_exits_2(world: World) -> None:
    found = world.fails("configuration", says="RELAY_WORKERS: is not a number", cure=".env", RELAY_WORKERS="many", JWT="no-token")
    assert "JWT: is not a JSON Web Token" in found["configuration"]["cause"]


@pytest.mark.parametrize(
    ("wrong", "waiting"),
    [
        ({"RELAY_WORKERS": "many"}, set()),
        ({"RELAY_STATE_DIR": "<directory>"}, {"state-dir"}),
        ({"SECURE_COMMAND_KEY": "short"}, {"secure-key"}),
        ({"SECURE_COMMAND_KEY_FILE": "both-are-set"}, {"secure-key"}),
        ({"JWT": "no-token"}, {"token", "access"} | BEHIND_ACCESS),
        ({"ORG_SLUG": "your-org"}, {"access"} | BEHIND_ACCESS),
        ({"AGENT_ID": None}, BEHIND_ACCESS),
        ({"AWS_ENDPOINT_URL": "nowhere"}, {"sqs", "cloudwatch"}),
        ({"RELAY_TARGET_PROXY": "ftp://p"}, {"target"}),
        ({"RELAY_CONNECT_TIMEOUT_SECONDS": "long"}, {"target"}),
        ({"API_TARGET": "api.example", "RELAY_WORKERS": "many"}, {"platform"} | BEHIND_PLATFORM),
        ({"HTTP_PROXY": "ftp://p"}, {"platform", "target"} | BEHIND_PLATFORM),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_variable_hides_only_what_needs_it(
    world: World, target: ByteTarget, wrong: dict[str, str | None], waiting: set[str]
) -> None:
    arguments = ("--target", target.url("/"))
    found = world.fails("configuration", says=next(iter(wrong)), cure=".env", arguments=arguments, **wrong)
    assert skipped(found) == waiting
    assert all("configuration" in found[name]["summary"] for name in waiting)


def test_a_line_of_an_env_file_that_sets_nothing_hides_only_what_needs_its_variable(world: World) -> None:
    given = "".join(f"{name}={value}\n" for name, value in world.environment.items() if name not in ("PATH", "HOME", "LANG"))
    path = world.directory / "agent.env"
    path.write_text(f"{given}RELAY_STATE_DIR='/never closed\n")
    done = run_once(["check", "--json", "--env-file", str(path)], world.directory, {"PATH": os.environ["PATH"]})
    found = {one["id"]: one for one in json.loads(done.stdout)["checks"]}
    assert done.returncode == 2
    assert (found["configuration"]["status"], skipped(found), found["sqs"]["status"]) == ("error", {"state-dir"}, "ok")


def test_no_token_is_an_invalid_configuration(world: World) -> None:
    world.fails("configuration", says="JWT: is not set", cure=".env", JWT=None)


def test_a_misspelt_variable_is_a_warning_with_the_nearest_name(world: World) -> None:
    found = world.check(RELAY_CA_FIEL="/etc/ca.pem")
    assert found["configuration"]["status"] == "warning"
    assert "RELAY_CA_FILE" in found["configuration"]["cure"]
    assert world.code == 0


def test_an_env_file_that_was_asked_for_and_is_missing_exits_2(world: World) -> None:
    world.fails("configuration", says="missing.env", cure="", arguments=("--env-file", "missing.env"))


def test_an_env_file_is_read(world: World) -> None:
    path = world.directory / "agent.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in world.environment.items() if name not in ("PATH", "HOME", "LANG")))
    done = run_once(["check", "--env-file", str(path)], world.directory, {"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stdout


def test_an_expired_token_is_reported_by_the_local_check_and_by_the_platforms(world: World) -> None:
    found = world.check(JWT=world.sandbox.issue_jwt(-60))
    assert [name for name, one in found.items() if one["status"] == "error"] == ["token", "access"]
    assert found["access"]["cause"] == found["token"]["cause"]
    assert "expired on" in found["token"]["cause"]
    assert f"{datetime.now(UTC):%Y-%m}" in found["token"]["cause"]
    assert "create a new token" in found["token"]["cure"]
    assert skipped(found) == BEHIND_ACCESS
    assert world.code == 1


def test_a_token_that_ends_soon_is_a_warning_that_names_the_day(world: World) -> None:
    found = world.check(JWT=world.sandbox.issue_jwt(10 * 86_400 + 60))
    assert found["token"]["status"] == "warning"
    assert f"{datetime.now(UTC) + timedelta(days=10):%Y-%m-%d}" in found["token"]["cause"]
    assert world.code == 0


# --- what the platform answers ---


@pytest.mark.parametrize("change", [{"ORG_SLUG": "another-lab"}, {"JWT": "foreign"}], ids=["organisation", "token"])
def test_token_and_organisation_that_do_not_belong_together_are_refused(world: World, change: dict[str, str]) -> None:
    if "JWT" in change:
        change = {"JWT": world.sandbox.issue_jwt(86_400 * 90, org_slug="another-lab")}
    found = world.fails("access", says="ORG_SLUG and JWT do not match", cure="same organisation", **change)
    assert found["access"]["cause"] == platform_causes.REFUSED.cause  # the words of run's log
    assert skipped(found) == BEHIND_ACCESS


@pytest.mark.parametrize("agent_id", ["9b9f275c-a60d-454f-8c6c-1ea094e3fd38", "no-uuid"])
def test_an_unknown_agent_is_distinguished_from_a_refusal(world: World, agent_id: str) -> None:
    found = world.fails("agent", says="no agent with the id AGENT_ID", cure="copy AGENT_ID", AGENT_ID=agent_id)
    assert found["access"]["status"] == "ok"


def test_an_agent_of_another_type_is_named(world: World) -> None:
    body = json.dumps({"id": world.agent_id, "isEnabled": True, "type": "file-log", "queue": {"enabled": True}})
    with world.sandbox.inject(Fault("rest", f"GET /v1/agents/{world.agent_id}", status=200, body=body)):
        world.fails("agent", says="file-log", cure="user-defined agent")


def test_a_disabled_agent_is_reported_although_other_calls_are_refused(world: World) -> None:
    world.sandbox.enable_agent(world.agent_id, False)
    found = world.fails("enabled", says="the agent is disabled", cure="enable the agent's connection")
    assert found["queue"]["status"] == "ok"
    assert skipped(found) == {"credentials", "sqs", "cloudwatch"}


def test_a_disabled_queue_is_reported_and_the_rest_is_checked(world: World) -> None:
    world.sandbox.enable_queue(world.agent_id, False)
    found = world.fails("queue", says="queue is disabled", cure="enable the agent's queue")
    assert (found["credentials"]["status"], found["cloudwatch"]["status"], skipped(found)) == ("ok", "ok", {"sqs"})


@pytest.mark.parametrize(
    ("off", "status", "reported"),
    [(-400, "error", "400 s ahead of"), (400, "error", "400 s behind"), (120, "warning", "120 s behind"), (30, "ok", "agrees")],
)
def test_the_clock_is_held_against_the_platform_s_date(world: World, off: int, status: str, reported: str) -> None:
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=off, microseconds=500_000), usegmt=True)
    headers = {"Date": date, "Content-Type": "application/json"}
    body = json.dumps({"id": world.agent_id, "isEnabled": True, "type": "user-defined", "queue": {"enabled": True}})
    target = ByteTarget()
    with target:
        target.on("*", reply(200, list(headers.items()), body))
        found = world.check(API_TARGET=target.url(""))
    assert found["clock"]["status"] == status
    number = reported.partition(" ")[0]
    if number.isdigit():  # to the second, and the second may change meanwhile
        said = int(found["clock"]["summary"].partition(" ")[0])
        assert abs(said - int(number)) <= 3
        assert reported.partition(" ")[2] in found["clock"]["cause"]
        assert "NTP" in found["clock"]["cure"]


def test_no_credentials_from_the_platform_are_an_error_of_their_own(world: World) -> None:
    with world.sandbox.inject(Fault("rest", "agent/credentials", contains=world.agent_id, status=500, count=None)):
        found = world.fails("credentials", says="server error", cure="keeps trying")
    assert "agent/credentials" in found["credentials"]["summary"]


# --- the route to the platform ---


@pytest.mark.parametrize(
    ("address", "says", "stage"),
    [
        ("https://api.lab.invalid", "the name api.lab.invalid does not exist", "name: ENOTFOUND"),
        ("http://127.0.0.1:{closed}", "refuses connections on port {closed}", "connect: ECONNREFUSED"),
    ],
)
def test_a_platform_that_is_not_reached_says_at_what(world: World, address: str, says: str, stage: str) -> None:
    port = str(closed_port())
    found = world.fails(
        "platform", says=says.format(closed=port), cure="API_TARGET", API_TARGET=address.format(closed=port), RELAY_PLATFORM_PROXY="none"
    )
    assert stage in found["platform"]["summary"]
    assert skipped(found) == BEHIND_PLATFORM
    assert found["state-dir"]["status"] != "skipped"


@pytest.mark.parametrize(
    ("fault", "says", "cure"),
    [
        ("unknown_authority", "was issued by OU=Testing CA", "RELAY_CA_FILE"),
        ("unknown_root_sent", "was issued by OU=Testing CA", "REQUESTS_CA_BUNDLE"),
        ("self_signed", "is self-signed (CN=a device that signed itself)", "RELAY_CA_FILE"),
        ("expired", "has expired on 20", "API_TARGET"),
        ("wrong_host", "is valid for other names only: elsewhere.lab.example", "API_TARGET"),
    ],
)
def test_each_fault_of_the_platform_s_certificate_is_named(world: World, fault: Any, says: str, cure: str) -> None:
    bundle = world.directory / "ca.pem"
    bundle.write_bytes(ca_pem())
    with ByteTarget(server_context(fault)) as target:
        found = world.fails("platform", says=says, cure=cure, API_TARGET=target.url(""), REQUESTS_CA_BUNDLE=str(bundle))
        assert target.requests == []
    assert "TLS: " in found["platform"]["summary"]
    assert fault in ("expired", "wrong_host") or f"REQUESTS_CA_BUNDLE={bundle}" in found["platform"]["cause"]


def test_http_instead_of_tls_is_reported(world: World, target: ByteTarget) -> None:
    target.on_accept = play(lambda conn: conn.read_exactly(1), lambda conn: conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    world.fails("platform", says="does not speak TLS", cure="check scheme (http or https)", API_TARGET=target.url("", scheme="https"))


@pytest.mark.parametrize(
    ("refuse", "says", "cure"),
    [(Refusal(407), "answered 407", "user and password"), (Refusal(502), "answered 502", "ask the proxy's operator")],
)
def test_a_proxy_that_refuses_is_named_with_the_platform_behind_it(world: World, refuse: Refusal, says: str, cure: str) -> None:
    with HttpProxy(refuse=refuse) as proxy:
        found = world.fails(
            "platform",
            says=f"the proxy http://lab:***@127.0.0.1:{proxy.port}, not the platform, {says}",
            cure=cure,
            API_TARGET="https://api.lab.example",
            RELAY_PLATFORM_PROXY=proxy.url(("lab", CANARY)),
        )
    assert "proxy: " in found["platform"]["summary"]
    assert "(RELAY_PLATFORM_PROXY)" in found["platform"]["summary"]
    assert CANARY not in world.output


def test_a_proxy_that_wants_a_password_for_plain_http_is_named(world: World) -> None:
    with HttpProxy(auth=("lab", "right")) as proxy:
        world.fails(
            "platform",
            says=f"the proxy http://lab:***@127.0.0.1:{proxy.port}, not the platform, answered 407",
            cure="user and password",
            http_proxy=proxy.url(("lab", CANARY)),
            no_proxy=None,
        )
    assert CANARY not in world.output


def test_a_proxy_that_is_not_there_is_named(world: World) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    says = f"the proxy {url}, not the platform, fails: nothing listens"
    world.fails("platform", says=says, cure="check the proxy's", RELAY_PLATFORM_PROXY=url, no_proxy=None)


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, [("Content-Type", "text/html")], "<html>Log in</html>"),
        redirect(302, "https://login.lab.example/"),
        reply(200, [("Content-Type", "application/json")], "{}"),
        reply(404, body="no such page"),
        reply(403, [("Content-Type", "text/html")], "<html>Blocked</html>"),
    ],
    ids=["page", "redirect", "json", "404", "block page"],
)
def test_answers_that_are_not_the_platforms_are_distinguished(world: World, target: ByteTarget, answer: Any) -> None:
    target.on("*", answer)
    found = world.fails("platform", says="is not from the platform's API", cure="API_TARGET", API_TARGET=target.url(""))
    assert skipped(found) == BEHIND_PLATFORM


def test_a_failing_platform_is_reported(world: World) -> None:
    with world.sandbox.inject(Fault("rest", "GET /v1/agents/", contains=world.agent_id, status=503, count=None)):
        world.fails("platform", says="server error", cure="keeps trying")


# --- SQS and CloudWatch ---


def test_a_policy_that_denies_the_queue_is_distinguished_from_a_clock(world: World) -> None:
    with world.sandbox.inject(Fault("sqs", "", contains=world.agent_id, status=403, code="AccessDenied", count=None)):
        found = world.fails("sqs", says="AccessDenied: an AWS (IAM) policy", cure="policy")
    assert found["cloudwatch"]["status"] == "ok"


def test_a_policy_that_allows_no_more_than_the_agent_s_own_calls_is_enough(world: World) -> None:
    """It needs neither the queue's attributes nor the group's streams for its work."""
    denied = {"status": 403, "code": "AccessDeniedException", "count": None, "contains": world.agent_id}
    with (
        world.sandbox.inject(Fault("sqs", "GetQueueAttributes", **denied)),  # type: ignore[arg-type]
        world.sandbox.inject(Fault("logs", "DescribeLogStreams", **denied)),  # type: ignore[arg-type]
    ):
        found = world.check()
    assert (found["sqs"]["status"], found["cloudwatch"]["status"]) == ("ok", "ok")
    assert world.sandbox.log_events(world.agent_id) == []


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "RequestTimeTooSkewed"])
def test_a_clock_that_aws_rejects_is_distinguished_from_a_policy(world: World, code: str) -> None:
    with world.sandbox.inject(Fault("sqs", "GetQueueAttributes", contains=world.agent_id, status=403, code=code, count=None)):
        world.fails("sqs", says="refuses the signature", cure="clock")


def test_a_deleted_queue_is_reported(world: World) -> None:
    code = "AWS.SimpleQueueService.NonExistentQueue"
    with world.sandbox.inject(Fault("sqs", "GetQueueAttributes", contains=world.agent_id, status=400, code=code, count=None)):
        world.fails("sqs", says="the queue does not exist", cure="enable the agent's queue")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"status": 400, "code": "AWS.SimpleQueueService.NonExistentQueue"}, "the queue does not exist"),
        ({"status": 403, "code": "SignatureDoesNotMatch"}, "refuses the signature"),
        ({"status": 503, "body": "busy"}, ""),
    ],
)
def test_a_broken_queue_for_answers_is_distinguished_from_the_one_for_commands(world: World, fault: dict[str, Any], says: str) -> None:
    """Commands would run, and their answers would not arrive."""
    with world.sandbox.inject(Fault("sqs", "GetQueueAttributes", contains=PLATFORM_QUEUE, count=None, **fault)):
        found = world.fails("sqs", says=says, cure="")
    assert found["sqs"]["summary"].startswith("the queue for answers: ")
    assert "for commands" not in found["sqs"]["summary"]
    assert found["cloudwatch"]["status"] == "ok"


def test_a_queue_for_answers_that_the_role_may_only_send_to_is_fine_and_reported_as_unchecked(world: World) -> None:
    calls = len(world.sandbox.aws_calls)
    with world.sandbox.inject(
        Fault("sqs", "GetQueueAttributes", contains=PLATFORM_QUEUE, status=403, code="AccessDeniedException", count=None)
    ):
        found = world.check()
    assert (found["sqs"]["status"], world.code) == ("ok", 0)
    assert "the queue for answers cannot be checked" in found["sqs"]["summary"]
    assert not {"DeleteMessageBatch", "SendMessageBatch"} & {call.operation for call in list(world.sandbox.aws_calls)[calls:]}


def test_a_platform_without_a_queue_for_answers_is_reported(world: World) -> None:
    body = json.dumps({"agentName": "lab", "region": "us-east-1", "rpcSourceQueueUrl": "https://sqs/q", "rpcPlatformQueueUrl": None})
    with world.sandbox.inject(Fault("rest", "agent/config", contains=world.agent_id, status=200, body=body, count=None)):
        found = world.check()
    assert found["sqs"]["status"] == "error"
    assert "no queue for answers" in found["sqs"]["summary"]


def test_a_port_that_refuses_aws_s_calls_names_the_endpoint_that_was_left_standing(world: World) -> None:
    port = closed_port()
    found = world.fails(
        "sqs", says=f"refuses connections on port {port}", cure="AWS_ENDPOINT_URL", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}"
    )
    assert f"AWS_ENDPOINT_URL is set, so calls to AWS go to http://127.0.0.1:{port}" in found["sqs"]["cause"]
    assert found["cloudwatch"]["status"] == "warning"


@pytest.mark.parametrize("body", ["<html>Log in</html>", "", "{}"])
def test_something_else_in_aws_s_place_names_the_endpoint_that_was_left_standing(world: World, target: ByteTarget, body: str) -> None:
    target.on("/", reply(200, body=body))
    world.fails("sqs", says="AWS_ENDPOINT_URL is set", cure="remove AWS_ENDPOINT_URL", AWS_ENDPOINT_URL=target.url(""))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDeniedException", "an AWS (IAM) policy does not let"),
        ("ResourceNotFoundException", "does not exist"),
        ("ThrottlingException", "limits the rate of calls"),
    ],
)
def test_cloudwatch_that_refuses_is_a_warning_at_most_and_says_why(world: World, code: str, says: str) -> None:
    with world.sandbox.inject(Fault("logs", "", contains=world.agent_id, status=400, code=code, count=None)):
        found = world.check()
    assert found["cloudwatch"]["status"] == "warning"
    assert "are not delivered" in found["cloudwatch"]["cause"]
    assert says in found["cloudwatch"]["cause"]
    assert "firewall" not in found["cloudwatch"]["cure"]
    assert world.code == 0


def test_no_key_is_a_warning(world: World) -> None:
    found = world.check(SECURE_COMMAND_KEY=None)
    assert (found["secure-key"]["status"], world.code) == ("warning", 0)
    assert "keygen" in found["secure-key"]["cure"]


# --- calls that hang: fast, with time limits passed in ---

QUICK = Bounds(call=0.6, target=0.6, local=5.0, margin=0.4, whole=5.0)
PATIENT = Bounds(call=4.0, target=4.0, local=10.0, margin=4.0, whole=20.0)
"""Where only one call hangs: it is waited for, and the others, of which credentials have half a bound, get through on a busy machine."""


def quickly(world: World, monkeypatch: pytest.MonkeyPatch, *targets: str, bounds: Bounds = QUICK, **change: str) -> Checks:
    """The checks in this process, with bounds below those of the command."""
    for name, value in {**world.environment, **change}.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    found = check_all(world.directory / ".env", targets, bounds=bounds)
    assert time.monotonic() - began < bounds.whole + 10
    for check in found:
        assert check.seconds <= max(bounds.call, bounds.target, bounds.local) + bounds.margin + 10, check
    return {
        check.id: {
            "status": check.status,
            "cause": check.cause,
            "cure": check.cure,
            "summary": check.summary,
            "seconds": check.seconds,
        }
        for check in found
    }


def test_a_platform_that_accepts_the_connection_and_is_silent_ends_at_the_time_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.sandbox.inject(Fault("rest", "GET /v1/agents/", contains=world.agent_id, hang_seconds=FOREVER, count=None)):
        found = quickly(world, monkeypatch)
    assert found["platform"]["status"] is Status.ERROR
    assert "accepts the connection, but does not answer in time" in found["platform"]["cause"]
    assert "proxy" in found["platform"]["cure"]
    assert skipped(found) == BEHIND_PLATFORM


def test_a_firewall_that_drops_packets_ends_at_the_time_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with FullBacklog() as silent:
        found = quickly(world, monkeypatch, silent.url("/t"), API_TARGET=silent.url(""))
    for check in ("platform", "target"):
        assert found[check]["status"] is Status.ERROR
        assert f"does not answer on port {silent.port}: a firewall drops" in found[check]["cause"]
    assert "API_TARGET" in found["platform"]["cure"]


def test_a_proxy_that_drops_is_named_when_its_time_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with FullBacklog() as silent:
        proxy = silent.url("")
        found = quickly(world, monkeypatch, RELAY_PLATFORM_PROXY=proxy, API_TARGET="https://api.lab.example")
    assert f"the proxy {proxy}, not the platform, fails: it does not answer in time" in found["platform"]["cause"]


def test_an_sqs_that_hangs_ends_with_its_bound_and_hides_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.sandbox.inject(Fault("sqs", "GetQueueAttributes", contains=world.agent_id, hang_seconds=FOREVER, count=None)):
        found = quickly(world, monkeypatch, bounds=PATIENT)
    assert found["sqs"]["status"] is Status.ERROR
    assert "does not answer in time" in found["sqs"]["cause"]
    assert PATIENT.call <= found["sqs"]["seconds"] < PATIENT.call + PATIENT.margin, found["sqs"]
    assert found["cloudwatch"]["status"] is Status.OK


# --- the state directory ---


def test_a_full_disk_is_reported(world: World) -> None:
    place = world.directory / "disk"
    place.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True, text=True, check=False)
    if mounting.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounting.stderr.strip()}")
    try:
        (place / "state").mkdir()
        with (place / "filler").open("ab", buffering=0) as file, pytest.raises(OSError) as caught:
            while True:
                file.write(b"x" * 65536)
        assert caught.value.errno == errno.ENOSPC
        assert shutil.disk_usage(place).free < 65536
        world.fails("state-dir", says="is full: 0 MB are free", cure="free space", RELAY_STATE_DIR=str(place / "state"))
        (place / "filler").unlink()
        found = world.check(RELAY_STATE_DIR=str(place / "state"))
        assert found["state-dir"]["status"] == "warning"
        assert "MB are free" in found["state-dir"]["cause"]
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        world.fails("state-dir", says=f"cannot write its state directory: {place}", cure="read-only", RELAY_STATE_DIR=str(place / "state"))
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can give files away, and needs setpriv")
@pytest.mark.parametrize("what", ["", "journal.db", "spool"])
def test_a_state_directory_of_another_user_is_named_with_both_users(world: World, what: str) -> None:
    """As root without its privileges over files, which is what an agent in a container may be."""
    state = world.directory / "state"
    (state / "spool").mkdir(parents=True)
    (state / "journal.db").touch()
    theirs = state / what if what else state
    os.chown(theirs, NOBODY, NOBODY)
    theirs.chmod(0o700 if theirs.is_dir() else 0o600)
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", str(EXECUTABLE), "check", "--json"]
    done = subprocess.run(dropped, cwd=world.directory, env=world.environment, capture_output=True, text=True, timeout=30, check=False)
    (found,) = [one for one in json.loads(done.stdout)["checks"] if one["id"] == "state-dir"]
    assert found["status"] == "error"
    assert str(theirs) in found["cause"]
    assert f"belongs to user {NOBODY}" in found["cure"]
    assert done.returncode == 1


def test_a_damaged_journal_is_reported_and_not_changed(world: World) -> None:
    state = world.directory / "state"
    state.mkdir()
    (state / "journal.db").write_bytes(b"nothing that SQLite wrote" * 500)
    world.fails("state-dir", says="the journal is damaged", cure="SMART")
    assert [path.name for path in state.iterdir()] == ["journal.db"]


# --- targets ---


def test_each_target_is_checked_by_a_head_and_reported_by_name(world: World, target: ByteTarget) -> None:
    port = closed_port()
    target.on("/locked", reply(401))
    found = world.check("--target", target.url("/"), "--target", f"http://127.0.0.1:{port}/", "--target", target.url("/locked"))
    one, two, three = [check for check in json.loads(world.output)["checks"] if check["id"] == "target"]
    assert [check["status"] for check in (one, two, three)] == ["ok", "error", "ok"]
    assert two["cause"] == f"127.0.0.1 refuses connections on port {port}: nothing listens there, or a firewall rejects them"
    assert str(port) in two["cure"]
    assert seen(target) == {"HEAD /": 1, "HEAD /locked": 1}
    assert found["sqs"]["status"] == "ok"
    assert world.code == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://169.254.169.254/latest", "link-local and cloud metadata"),
        ("http://nothing.invalid/", "the name nothing.invalid does not exist"),
        ("no url", "the method or the URL is invalid"),
    ],
)
def test_a_target_that_cannot_be_called_says_at_what(world: World, url: str, says: str) -> None:
    world.fails("target", says=says, cure="", arguments=("--target", url))


def test_a_target_whose_certificate_ends_soon_is_a_warning(world: World) -> None:
    """The self-signed device's ends in 30 days less a moment, and is trusted here."""
    with ByteTarget(server_context("self_signed")) as device:
        device.on("/", reply(200))
        pem = world.directory / "device.pem"
        with socket.create_connection(("127.0.0.1", device.port)) as sock:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(sock) as tls:
                pem.write_text(ssl.DER_cert_to_PEM_cert(tls.getpeercert(True) or b""))
        found = world.check("--target", device.url("/"), RELAY_CA_FILE=str(pem))
    assert (found["target"]["status"], world.code) == ("warning", 0), found["target"]
    assert "expires on" in found["target"]["cause"]
    assert "renew" in found["target"]["cure"]


@pytest.mark.parametrize(
    ("handler", "says"),
    [(reply(503), "server error (503)"), (raw(b"SSH-2.0-OpenSSH\r\n"), "not a valid HTTP response"), (raw(b"", then="close"), "closed by")],
)
def test_a_target_that_does_not_answer_as_http_should_says_so(world: World, target: ByteTarget, handler: Any, says: str) -> None:
    target.on("/", handler)
    found = world.fails("target", says=says, cure="log" if says != "closed by" else "port", arguments=("--target", target.url("/")))
    assert "http: " in found["target"]["summary"]


def test_a_target_behind_a_proxy_that_refuses_is_named_with_the_proxy(world: World) -> None:
    with HttpProxy(refuse=Refusal(407)) as proxy:
        found = world.fails(
            "target",
            says=f"the proxy http://lab:***@127.0.0.1:{proxy.port}, not the target, answered 407",
            cure="RELAY_TARGET_PROXY",
            arguments=("--target", "https://lims.lab.example/"),
            RELAY_TARGET_PROXY=proxy.url(("lab", CANARY)),
        )
    assert "(RELAY_TARGET_PROXY)" in found["target"]["summary"]


# --- secrets ---


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("broken", [{}, {"RELAY_WORKERS": "many"}, {"API_TARGET": "https://api.lab.invalid"}, {"ORG_SLUG": "another"}])
def test_no_secret_is_in_any_output(world: World, target: ByteTarget, how: list[str], broken: dict[str, str]) -> None:
    target.on("/in", lambda conn, _: conn.respond(302, [("Location", f"http://u:{CANARY}-loc@nothing.invalid/?k={CANARY}-q")]))
    with HttpProxy(auth=("lab", "right")) as proxy:
        environment = {
            **world.environment,
            "RELAY_TARGET_PROXY": proxy.url(("lab", f"{CANARY}-proxy/@:")),
            "no_proxy": "127.0.0.1",
            **broken,
        }
        arguments = [
            "check",
            *how,
            *("--target", f"https://user:{CANARY}-user@lims.lab.example/p?token={CANARY}-query"),
            *("--target", target.url(f"/in?{CANARY}-sent", userinfo=f"a:{CANARY}-basic")),
            *("--target", f"nonsense {CANARY}-nonsense"),
        ]
        done = run_once(arguments, world.directory, environment)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode in (1, 2)
    for secret in (CANARY, world.environment["JWT"], world.environment["JWT"].rpartition(".")[2], KEY):
        assert secret not in output
    assert "Traceback" not in output


def test_no_secret_of_a_malformed_setting_is_shown(world: World) -> None:
    done = run_once(["check", "--json"], world.directory, {**world.environment, "JWT": CANARY, "https_proxy": f"ftp://u:{CANARY}@h"})
    assert done.returncode == 2
    assert CANARY.encode() not in done.stdout + done.stderr


# --- beside a running agent ---


def test_a_queue_that_may_be_described_but_not_read_is_reported_in_the_words_of_the_running_agent(sandbox: Sandbox, tmp_path: Path) -> None:
    agent = RunningAgent(sandbox, tmp_path)
    refused = Fault("sqs", "ReceiveMessage", contains=agent.agent_id, status=403, code="AccessDenied", count=None)
    with sandbox.inject(refused), running(agent):
        line = agent.wait_log("poll-failed")
        done = run_once(["check", "--json"], tmp_path, agent.environment)
        (sqs,) = [check for check in json.loads(done.stdout)["checks"] if check["id"] == "sqs"]
        assert (done.returncode, sqs["status"], sqs["cause"], sqs["cure"]) == (1, "error", line["cause"], line["cure"])
        assert "the running agent reports" in sqs["summary"]


def test_an_s3_that_refuses_answers_is_reported_by_the_running_agent_until_it_accepts_one(sandbox: Sandbox, tmp_path: Path) -> None:
    with ByteTarget() as target, running(RunningAgent(sandbox, tmp_path)) as agent:
        target.on("/", reply(body="x" * 400_000))

        def platform() -> Any:
            done = run_once(["check", "--json"], tmp_path, agent.environment)
            (found,) = [check for check in json.loads(done.stdout)["checks"] if check["id"] == "platform"]
            return done.returncode, found["status"], found["cause"]

        with sandbox.inject(Fault("s3", "PutObject", status=403, code="AccessDenied", count=1)):
            agent.ask_until_logged({"url": target.url("/")})
            line = agent.wait_log("upload-refused")
        assert platform() == (0, "warning", line["cause"])
        assert agent.ask_until_logged({"url": target.url("/")}).status == "SUCCESS"
        assert platform() == (0, "ok", None)


# --- as a plugin ---


def test_as_a_plugin_it_is_ok_while_the_agent_is_ready_and_critical_once_it_has_ended(world: World) -> None:
    def plugin() -> tuple[int, str]:
        environment = {name: value for name, value in world.environment.items() if value is not None}
        done = run_once(["check", "--nagios"], world.directory, environment)
        return done.returncode, done.stdout.decode()

    with running(RunningAgent(world.sandbox, world.directory, {"SECURE_COMMAND_KEY": KEY}, world.agent_id)) as agent:
        agent.ask({"url": "http://127.0.0.1:1/"})
        code, line = plugin()
        assert (code, line.count("\n")) == (0, 1), line
        assert line.startswith("RELAY AGENT OK - the agent is ready, ")
        assert " waiting=0;;;0;1000 busy=0;;;0;16 " in line
    code, line = plugin()
    assert (code, line.startswith("RELAY AGENT CRITICAL - no agent runs on ")) == (2, True)


# --- the log receiver ---


def test_a_log_receiver_is_checked_without_a_line_to_it(world: World) -> None:
    with SyslogReceiver("tcp") as receiver:
        found = world.check(RELAY_LOG_SYSLOG=receiver.url)["syslog"]
        assert (found["status"], receiver.messages) == ("ok", [])


def test_without_a_log_receiver_there_is_no_such_check(world: World) -> None:
    assert "syslog" not in world.check()
