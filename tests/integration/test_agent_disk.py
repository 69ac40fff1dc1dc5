"""The disk under a running agent: full, read-only, another user's, with a damaged or newer journal, and a clock that jumps ("The disk").

With real processes on a small disk of their own. How a journal is salvaged is tested in tests/unit/storage/test_salvage.py.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay_agent.agent import startup
from relay_agent.agent.admin.client import ask
from relay_agent.agent.signals import Signals
from relay_agent.core.clock import Clock
from relay_agent.core.errors import JournalError
from relay_agent.diagnostics.local_causes import JOURNAL_FULL, JOURNAL_HANGS, JOURNAL_LOCKED, JOURNAL_READ_ONLY
from relay_agent.sandbox.faults import FOREVER, Fault
from relay_agent.sandbox.server import Sandbox
from relay_agent.storage.schema import SCHEMA_VERSION
from tests import agents
from tests.agents import RunningAgent, ThreadedAgent, agent_environment, body, finals, page, run_once, running, wait_until
from tests.programs import free_ports
from tests.target_server import Gate
from tests.targets import ByteTarget, reply, seen

MB = 1024 * 1024
NOBODY = 65534
BEATS = {"RELAY_HEARTBEAT_SECONDS": "1"}


@pytest.fixture
def target() -> Iterator[ByteTarget]:
    with ByteTarget() as running_target:
        running_target.on("/", reply(body="here"))
        yield running_target


class SmallDisk:
    """A file system of 16 MiB that a test may fill and make read-only."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state = place / "state"
        self._filler = place / "filler"

    @property
    def settings(self) -> dict[str, str | None]:
        # A receive that is broken off when the disk is full may have taken a message: it comes back after the lease.
        return {"RELAY_STATE_DIR": str(self.state), "RELAY_LEASE_SECONDS": "10", **BEATS}

    def fill(self, *, whole: bool = True) -> None:
        """Write until nothing more goes in; not `whole`: whatever is free just then, while others write too."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (MB, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
        assert not whole or shutil.disk_usage(self.place).free == 0

    def free(self) -> None:
        """Take away what filled it."""
        self._filler.unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    place = tmp_path / "disk"
    place.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True, text=True, check=False)
    if mounting.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounting.stderr.strip()}")
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def hold(target: ByteTarget, path: str, answer: bytes = b"held") -> Gate:
    """Let requests for a path wait at a gate."""
    gate = target.gate()
    target.on(path, lambda conn, _: (conn.wait(gate), conn.respond(200, [("Content-Type", "text/plain")], answer)))
    return gate


def receives(sandbox: Sandbox) -> int:
    return sum(call.operation == "ReceiveMessage" for call in sandbox.aws_calls)


def wait_beats(agent: RunningAgent | ThreadedAgent, count: int = 2) -> None:
    """Wait for so many further heartbeats: the agent is alive, and its time advances."""
    beats = len(agent.sandbox.heartbeats(agent.agent_id))
    wait_until(agent.sandbox, lambda: len(agent.sandbox.heartbeats(agent.agent_id)) >= beats + count)


def wait_full(agent: RunningAgent | ThreadedAgent) -> None:
    """Wait until the agent says that its disk is full: at once, whatever its open receive waits for."""
    line = agent.wait_log("disk-full", timeout=8)
    assert line["level"] in ("warning", "error")
    (cause,) = [cause for cause in (JOURNAL_FULL, JOURNAL_READ_ONLY) if cause.cause == line["cause"]]
    assert line["cure"] == cause.cure
    code, text = page(agent, "/readyz")
    assert (code, cause.cure in text) == (503, True)


# --- full ---


def test_on_a_full_disk_it_finishes_what_is_admitted_takes_nothing_in_and_resumes(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk
) -> None:
    gates = [hold(target, f"/held/{number}") for number in range(6)]
    target.on("/new", reply(body="new"))
    # The receive that is broken off may have taken a message, which comes back when its lease ends.
    with running(RunningAgent(sandbox, tmp_path, {**small_disk.settings, "RELAY_LEASE_SECONDS": "5"})) as agent:
        pid = agent.pid
        held = [agent.create({"method": "POST", "url": target.url(f"/held/{number}")}) for number in range(6)]
        for gate in gates:
            gate.wait_reached()
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        wait_until(sandbox, lambda: (small_disk.state / "reserve").exists())
        small_disk.fill()
        wait_full(agent)
        asked = receives(sandbox)
        new = agent.create({"method": "POST", "url": target.url("/new")})
        for gate in gates:
            gate.release()
        for command in held:
            assert sandbox.wait_final(command.id).status == "SUCCESS"
        wait_beats(agent, 3)
        assert receives(sandbox) == asked
        assert not new.final
        assert sum(sandbox.queue_depth(agent.agent_id)) >= 1
        small_disk.free()
        agent.wait_log("disk-freed")
        assert sandbox.wait_final(new.id).status == "SUCCESS"
        assert agent.pid == pid
        assert agent.stop() == 0
    assert [finals(command) for command in held] == [["SUCCESS"]] * 6
    assert max(seen(target).values()) == 1


def test_a_disk_that_was_full_twice_is_survived_twice(sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk) -> None:
    with running(RunningAgent(sandbox, tmp_path, small_disk.settings)) as agent:
        for round_number in range(2):
            gate = hold(target, f"/held/{round_number}")
            held = agent.create({"method": "POST", "url": target.url(f"/held/{round_number}")})
            gate.wait_reached()
            wait_until(sandbox, lambda: (small_disk.state / "reserve").exists())
            small_disk.fill()
            wait_full(agent)
            gate.release()
            assert sandbox.wait_final(held.id).status == "SUCCESS"
            small_disk.free()
            wait_until(sandbox, lambda: len(agent.events("disk-freed")) == round_number + 1)  # noqa: B023 - waited for within the round
            assert agent.get(target.url("/")).status == "SUCCESS"
            wait_until(sandbox, lambda: (small_disk.state / "reserve").exists())
            agent.lines.raw[:] = [line for line in agent.lines.raw if "disk-full" not in line]
        assert agent.stop() == 0


def test_a_start_on_a_full_disk_finishes_what_was_left_and_resumes(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk
) -> None:
    gates = {name: hold(target, f"/{name}") for name in ("get", "post")}
    target.on("/told", reply(body="told"))
    target.on("/new", reply(body="new"))
    agent = RunningAgent(sandbox, tmp_path, small_disk.settings)
    with (
        running(agent),
        sandbox.inject(Fault("sqs", "SendMessageBatch", contains=agent.agent_id, hang_seconds=FOREVER, count=None)) as hanging,
    ):
        reported = agent.create({"method": "POST", "url": target.url("/told")})
        agent.wait_log("command", status="SUCCESS")
        wait_until(sandbox, lambda: hanging.hits >= 1)
        get, post = agent.create({"url": target.url("/get")}), agent.create({"method": "POST", "url": target.url("/post")})
        for gate in gates.values():
            gate.wait_reached()
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        wait_until(sandbox, lambda: (small_disk.state / "reserve").exists())
        agent.kill()
    for gate in gates.values():
        gate.release()
    small_disk.fill()
    with running(agent):
        agent.wait_log("disk-full")
        new = agent.create({"method": "POST", "url": target.url("/new")})
        assert sandbox.wait_final(reported.id).status == "SUCCESS"
        assert sandbox.wait_final(get.id).status == "SUCCESS"
        assert body(sandbox.wait_final(post.id))["code"] == "EINTERRUPTED"
        wait_beats(agent)
        assert not new.final
        small_disk.free()
        agent.wait_log("disk-freed")
        assert sandbox.wait_final(new.id).status == "SUCCESS"
        assert agent.stop() == 0
    assert seen(target) == {"POST /told": 1, "GET /get": 2, "POST /post": 1, "POST /new": 1}


def test_a_large_answer_on_a_full_disk_is_an_honest_failure(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk
) -> None:
    answer = os.urandom(MB * 3 // 2).hex().encode()
    gate = hold(target, "/large", answer)
    with running(RunningAgent(sandbox, tmp_path, small_disk.settings)) as agent:
        large = agent.create({"method": "POST", "url": target.url("/large")})
        gate.wait_reached()
        wait_until(sandbox, lambda: (small_disk.state / "reserve").exists())
        small_disk.fill()
        wait_full(agent)
        gate.release()
        reported = body(sandbox.wait_final(large.id))
        assert (large.status, reported["code"]) == ("FAILURE", "ERESPONSETOOLARGE")
        assert "the agent's disk" in reported["message"]
        small_disk.free()
        agent.wait_log("disk-freed")
        assert body(agent.get(target.url("/large")))["body"] == answer.decode()
        assert agent.stop() == 0
    assert seen(target)["POST /large"] == 1


def test_an_answer_that_fits_the_reserve_is_sent_complete_on_a_full_disk(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk
) -> None:
    answer = os.urandom(200_000).hex().encode()
    gate = hold(target, "/large", answer)
    with running(RunningAgent(sandbox, tmp_path, small_disk.settings)) as agent:
        large = agent.create({"method": "POST", "url": target.url("/large")})
        gate.wait_reached()
        wait_until(sandbox, lambda: (small_disk.state / "reserve").exists())
        small_disk.fill()
        wait_full(agent)
        gate.release()
        assert body(sandbox.wait_final(large.id, 30))["body"] == answer.decode()
        assert agent.stop() == 0


def test_recorded_answers_are_sent_while_the_disk_stays_full(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk
) -> None:
    """Another program takes every free byte, the agent's reserve too: not even a delivery can be recorded."""
    agent = RunningAgent(sandbox, tmp_path, {**small_disk.settings, "RELAY_WORKERS": "4"})
    fault = Fault("sqs", "SendMessageBatch", contains=agent.agent_id, status=503, count=None)
    over = threading.Event()

    def hog() -> None:
        while not over.is_set():
            small_disk.fill(whole=False)
            over.wait(0.02)

    with running(agent):
        with sandbox.inject(fault):
            asked = [agent.create({"method": "POST", "url": target.url("/")}) for _ in range(40)]
            wait_until(sandbox, lambda: json.loads(page(agent, "/status.json")[1])["journal"].get("finished") == 40)
            hogging = threading.Thread(target=hog)
            hogging.start()
            wait_full(agent)
        try:
            wait_until(sandbox, lambda: all(command.final for command in asked), 30)
        finally:
            over.set()
            hogging.join()
        small_disk.free()
        assert agent.stop() == 0
    assert {finals(command)[0] for command in asked} == {"SUCCESS"}
    assert seen(target) == {"POST /": 40}


def test_a_start_on_a_full_disk_without_a_reserve_sends_recorded_answers_logs_it_and_can_be_stopped(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk
) -> None:
    """What a crash on a full disk leaves: an answer to send, and a running POST whose outcome cannot be recorded."""
    gate = hold(target, "/post")
    target.on("/told", reply(body="told"))
    agent = RunningAgent(sandbox, tmp_path, {**small_disk.settings, "RELAY_DRAIN_SECONDS": "5"})
    fault = Fault("sqs", "SendMessageBatch", contains=agent.agent_id, status=500, count=None)
    with running(agent), sandbox.inject(fault):
        reported = agent.create({"method": "POST", "url": target.url("/told")})
        agent.wait_log("command", status="SUCCESS")
        post = agent.create({"method": "POST", "url": target.url("/post")})
        gate.wait_reached()
        agent.kill()
    gate.release()
    (small_disk.state / "reserve").unlink()
    small_disk.fill()
    with agent:
        agent.wait_log("disk-full")
        assert sandbox.wait_final(reported.id).status == "SUCCESS"
        assert not post.final
        assert agent.stop(timeout=10) == 0
    small_disk.free()
    with running(agent):
        assert body(sandbox.wait_final(post.id))["code"] == "EINTERRUPTED"
        assert agent.stop() == 0
    assert seen(target) == {"POST /told": 1, "POST /post": 1}


def over_tcp(port: int, path: str) -> tuple[int, str]:
    """One of the pages, as a monitor asks for it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_a_start_on_a_disk_too_full_for_a_journal_is_shown_on_every_page_until_space_is_free(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk
) -> None:
    (port,) = free_ports(1)
    small_disk.fill()
    with RunningAgent(sandbox, tmp_path, {**small_disk.settings, "RELAY_ADMIN_ADDR": f"127.0.0.1:{port}"}) as agent:
        agent.wait_log("disk-full")
        wait_until(sandbox, lambda: (small_disk.state / "admin.sock").exists())
        for code, text in (page(agent, "/readyz"), over_tcp(port, "/readyz")):
            assert code == 503
            assert "journal.db" in text
            assert (JOURNAL_FULL.cause in text, JOURNAL_FULL.cure in text) == (True, True)
        assert page(agent, "/healthz")[0] == 200
        reported = run_once(["status"], tmp_path, agent.environment)
        assert reported.returncode == 1, reported
        assert JOURNAL_FULL.cure in reported.stdout.decode()
        early = json.loads(run_once(["status", "--json"], tmp_path, agent.environment).stdout)
        assert early["problems"][0]["cause"] == JOURNAL_FULL.cause
        assert JOURNAL_FULL.cure in over_tcp(port, "/")[1]
        assert "relay_agent_start_timestamp_seconds" in over_tcp(port, "/metrics")[1]
        assert "disk-full" in page(agent, "/log")[1]
        small_disk.free()
        agent.wait_log("disk-freed")
        agent.ready()
        wait_until(sandbox, lambda: over_tcp(port, "/readyz")[0] == 200)
        late = json.loads(page(agent, "/status.json")[1])
        assert late.keys() == {*early}
        assert late["started"] == early["started"]
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.stop() == 0


def test_a_disk_on_which_not_even_the_state_directory_can_be_made_is_called_full(
    sandbox: Sandbox, tmp_path: Path, small_disk: SmallDisk
) -> None:
    small_disk.remount("nr_inodes=4")
    with pytest.raises(OSError, match="No space left"):
        for number in range(4):
            (small_disk.place / f"filler-{number}").touch()
    with RunningAgent(sandbox, tmp_path, small_disk.settings) as agent:
        assert agent.wait() == 2
        problem = (
            f"RELAY_STATE_DIR: cannot write {small_disk.state} (No space left on device); free space on its disk, or set another directory"
        )
        assert agent.wait_log("start-failed")["problems"] == [problem]


def test_a_stop_ends_the_wait_for_a_journal_and_leaves_no_socket(sandbox: Sandbox, tmp_path: Path, small_disk: SmallDisk) -> None:
    small_disk.fill()
    with RunningAgent(sandbox, tmp_path, small_disk.settings) as agent:
        agent.wait_log("disk-full")
        assert agent.stop(timeout=10) == 0
    assert not (small_disk.state / "admin.sock").exists()


def test_a_disk_without_a_name_left_for_the_socket_leaves_the_port_and_the_socket_comes_with_the_room(
    sandbox: Sandbox, tmp_path: Path, small_disk: SmallDisk
) -> None:
    """A socket takes a name and no room; there are file systems that run out of those too."""
    (port,) = free_ports(1)
    small_disk.remount("nr_inodes=40")
    small_disk.state.mkdir()
    (small_disk.state / "agent.lock").touch()
    names = [small_disk.place / f"filler-{number}" for number in range(40)]
    with pytest.raises(OSError, match="No space left"):
        for name in names:
            name.touch()
    with RunningAgent(sandbox, tmp_path, {**small_disk.settings, "RELAY_ADMIN_ADDR": f"127.0.0.1:{port}"}) as agent:
        agent.wait_log("disk-full")
        assert agent.wait_log("admin-unavailable")["address"] == "admin.sock"
        code, text = over_tcp(port, "/readyz")
        assert (code, JOURNAL_FULL.cure in text) == (503, True)
        for name in names:
            name.unlink(missing_ok=True)
        agent.ready()
        wait_until(sandbox, lambda: (small_disk.state / "admin.sock").exists())
        wait_until(sandbox, lambda: page(agent, "/readyz")[0] == 200)
        assert len(agent.events("admin-unavailable")) == 1
        assert agent.stop() == 0


# --- hanging ---


def test_a_disk_that_hangs_at_the_start_is_logged_and_signals_still_work(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, lines, signals = threading.Event(), agents.LogLines(), Signals()
    monkeypatch.setattr(startup, "Journal", lambda *_, **__: over.wait(60))
    monkeypatch.setattr(startup, "SLOW_SECONDS", 0.2)
    raised: list[Exception] = []

    def start() -> None:
        try:
            agents.built(sandbox, tmp_path, lines, signals)
        except JournalError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    said = lines.wait("disk-full", 20)
    assert (said["cause"], said["cure"]) == (JOURNAL_HANGS.cause, JOURNAL_HANGS.cure)
    assert JOURNAL_HANGS.cause in ask(tmp_path / "state" / "admin.sock", "/readyz")[1].decode()
    signals.count = 1
    signals.wake()
    thread.join(20)
    over.set()
    assert len(raised) == 1


# --- locked ---


def test_a_journal_that_another_program_locks_is_named_so_and_the_agent_resumes_when_it_is_let_go(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget
) -> None:
    """What it had received meanwhile it still has: the queue would keep it, and all behind it, back for as long as it is invisible."""
    target.on("/", reply(body="here"))
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        agent.get(target.url("/"))
        with closing(sqlite3.connect(tmp_path / "state" / "journal.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = agent.create({"method": "POST", "url": target.url("/")})
            said = agent.wait_log("disk-full")
            assert "database is locked" in said["reason"]
            assert (said["cause"], said["cure"]) == (JOURNAL_LOCKED.cause, JOURNAL_LOCKED.cure)
            assert JOURNAL_LOCKED.cause in page(agent, "/readyz")[1]
            checks = json.loads(run_once(["check", "--json"], tmp_path, agent.environment).stdout)["checks"]
            assert [check["cause"] for check in checks if check["id"] == "state-dir"] == [JOURNAL_LOCKED.cause]
            other.execute("ROLLBACK")
        assert sandbox.wait_final(waiting.id).status == "SUCCESS"
        agent.wait_log("disk-freed")
        assert page(agent, "/readyz") == (200, "ready\n")
        assert agent.stop() == 0
    assert seen(target)["POST /"] == 1


# --- read-only ---


def test_a_read_only_state_directory_is_named_with_its_cure(sandbox: Sandbox, tmp_path: Path, small_disk: SmallDisk) -> None:
    small_disk.state.mkdir(mode=0o700)
    small_disk.remount("ro")
    try:
        with RunningAgent(sandbox, tmp_path, small_disk.settings) as agent:
            assert agent.wait() == 2
            (problem,) = agent.wait_log("start-failed")["problems"]
        assert problem.startswith(f"RELAY_STATE_DIR: cannot write {small_disk.state}")
        assert "read-only" in problem.lower()
        assert agent.errors == ""
    finally:
        small_disk.remount("rw")


def test_a_state_directory_that_ran_before_and_is_read_only_now_is_named_too(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, small_disk: SmallDisk
) -> None:
    agent = RunningAgent(sandbox, tmp_path, small_disk.settings)
    with running(agent):
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.stop() == 0
    small_disk.remount("ro")
    try:
        with agent:
            assert agent.wait() == 2
            (problem,) = agent.events("start-failed")[-1]["problems"]
        assert "RELAY_STATE_DIR" in problem
        assert "read-only" in problem.lower()
    finally:
        small_disk.remount("rw")
    with running(agent):
        assert agent.get(target.url("/")).status == "SUCCESS"


def test_a_journal_that_becomes_read_only_is_like_a_full_disk(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    """No disk in use can be made read-only from outside, so SQLite is made to report it as read-only."""
    gate = hold(target, "/held")
    target.on("/new", reply(body="new"))
    with running(ThreadedAgent(sandbox, tmp_path, dict(BEATS))) as agent:
        held = agent.create({"method": "POST", "url": target.url("/held")})
        gate.wait_reached()
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        writer = agent.agent.flow.journal.writer
        writer.use(lambda connection: connection.execute("PRAGMA query_only = ON"))
        new = agent.create({"method": "POST", "url": target.url("/new")})
        wait_full(agent)
        gate.release()
        wait_beats(agent)
        assert not held.final, "an answer was sent that is not in the journal"
        assert not new.final
        writer.use(lambda connection: connection.execute("PRAGMA query_only = OFF"))
        agent.wait_log("disk-freed")
        assert sandbox.wait_final(held.id).status == "SUCCESS"
        assert agent.stop() == 0
    assert seen(target)["POST /held"] == 1


# --- another user's ---


def run_without_privileges(directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the agent as a user like any other: root's own files it may read, those of others only as their modes allow."""
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.getuid() != 0:
        pytest.skip("needs root and setpriv (util-linux), to be a user that does not own the directory")
    return subprocess.run(
        [setpriv, "--bounding-set=-all", "--inh-caps=-all", str(agents.EXECUTABLE), "run"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "what",
    [
        "journal.db",
        "spool",
        ".",
        "agent.lock",
        "journal.db-wal",
    ],
)
def test_what_belongs_to_another_user_is_named_with_its_owner(sandbox: Sandbox, tmp_path: Path, target: ByteTarget, what: str) -> None:
    with running(RunningAgent(sandbox, tmp_path)) as agent:
        assert agent.get(target.url("/")).status == "SUCCESS"
        agent.kill()
    state = tmp_path / "state"
    theirs = state / what
    assert theirs.exists()
    os.chown(theirs, NOBODY, NOBODY)
    theirs.chmod(0o700 if theirs.is_dir() else 0o600)
    done = run_without_privileges(tmp_path, agent_environment(sandbox, agent.agent_id, tmp_path))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = json.loads(done.stdout)["problems"]
    assert line.startswith("RELAY_STATE_DIR: ")
    assert str(theirs) in line
    assert f"belongs to user {NOBODY}" in line
    assert "Traceback" not in done.stderr


# --- damaged, newer ---


def checkpoint(journal: Path) -> None:
    """Bring everything from the log into the file."""
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def spoil(journal: Path, name: str) -> None:
    """Overwrite the page on which a small table or an index stands."""
    with closing(sqlite3.connect(journal)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with journal.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


@pytest.mark.parametrize("name", ["commands_old", "commands"])
def test_a_damaged_journal_is_set_aside_and_its_readable_commands_are_answered(
    sandbox: Sandbox, tmp_path: Path, target: ByteTarget, name: str
) -> None:
    gates = [hold(target, "/get"), hold(target, "/post")]
    target.on("/waiting", reply(body="waited"))
    agent = RunningAgent(sandbox, tmp_path, {"RELAY_WORKERS": "3"})
    with running(agent):
        get, post = agent.create({"url": target.url("/get")}), agent.create({"method": "POST", "url": target.url("/post")})
        for gate in gates:
            gate.wait_reached()
        waiting = agent.create({"method": "POST", "url": target.url("/waiting")})
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        agent.kill()
    for gate in gates:
        gate.release()
    checkpoint(tmp_path / "state" / "journal.db")
    spoil(tmp_path / "state" / "journal.db", name)
    with running(agent):
        line = agent.wait_log("journal-damaged")
        for command in (get, post, waiting):
            sandbox.wait_final(command.id)
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.stop() == 0
    aside = tmp_path / "state" / line["aside"]
    assert aside.name.startswith("journal.db.damaged-2")
    assert aside.stat().st_mode & 0o777 == 0o600
    assert line["cause"]
    assert line["cure"]
    codes = {command.id: body(command).get("code") for command in (get, post, waiting)}
    assert codes[post.id] == "EINTERRUPTED"
    if name == "commands":
        assert sorted(line["unreadable"]) == sorted(codes)
        assert set(codes.values()) == {"EINTERRUPTED"}
    else:
        assert (line["unreadable"], line["complete"]) == ([], True)
        assert (codes[get.id], codes[waiting.id]) == (None, None)
    assert seen(target)["POST /post"] == 1
    assert [len(finals(command)) for command in (get, post, waiting)] == [1, 1, 1]


def test_a_journal_damaged_at_run_time_ends_the_agent_and_the_next_start_recovers(tmp_path: Path, target: ByteTarget) -> None:
    """Messages that were received but could not be admitted arrive again, and are answered then."""
    with Sandbox(visibility_timeout=2) as sandbox:
        agent = RunningAgent(sandbox, tmp_path, {"RELAY_DRAIN_SECONDS": "3"})
        with running(agent):
            assert agent.get(target.url("/")).status == "SUCCESS"
            with closing(sqlite3.connect(tmp_path / "state" / "journal.db", isolation_level=None)) as other:
                (version,) = other.execute("PRAGMA schema_version").fetchone()
                other.execute("PRAGMA writable_schema = ON")
                other.execute("UPDATE sqlite_master SET sql = 'CREATE INDEX nonsense' WHERE name = 'commands_old'")
                other.execute(f"PRAGMA schema_version = {version + 1}")
            command = agent.create({"url": target.url("/")})
            assert agent.wait() == 1
            assert "Traceback" not in agent.errors
        with running(agent):
            agent.wait_log("journal-damaged")
            assert sandbox.wait_final(command.id, 20).status == "SUCCESS"
            assert agent.stop() == 0


def test_a_newer_agents_journal_is_refused_by_name_and_keeps_its_rows(sandbox: Sandbox, tmp_path: Path, target: ByteTarget) -> None:
    agent = RunningAgent(sandbox, tmp_path)
    with running(agent):
        assert agent.get(target.url("/")).status == "SUCCESS"
        assert agent.stop() == 0
    journal = tmp_path / "state" / "journal.db"
    with closing(sqlite3.connect(journal)) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with agent:
        assert agent.wait() == 1
        failed = agent.wait_log("start-failed")
    assert failed["reason"] == (
        f"the journal was written by a newer agent (schema {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION});"
        " run that version or a later one"
    )
    assert agent.errors == ""
    with closing(sqlite3.connect(journal)) as left:
        assert left.execute("SELECT state FROM commands").fetchall() == [("delivered",)]
        assert left.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    assert not list(journal.parent.glob("*.damaged-*"))


# --- the clock ---


class Wall:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def clock(self) -> Clock:
        return Clock(now=lambda: datetime.now(UTC) + self.offset)


@pytest.mark.parametrize("restart", [False, True], ids=["at work", "between two starts"])
@pytest.mark.parametrize("days", [-1, 1])
def test_with_a_clock_set_by_a_day_nothing_runs_twice(tmp_path: Path, target: ByteTarget, restart: bool, days: int) -> None:
    """SQS hands a message out again that was answered, and never acknowledged."""
    wall = Wall()
    target.on("/post", reply(body="done"))
    with Sandbox(visibility_timeout=2) as sandbox, contextlib.ExitStack() as lives:
        agent = lives.enter_context(ThreadedAgent(sandbox, tmp_path, clock=wall.clock())).ready()
        refused = Fault("sqs", "DeleteMessageBatch", contains=agent.agent_id, status=500, count=None)
        with sandbox.inject(refused):
            command = agent.ask({"method": "POST", "url": target.url("/post")}, expires_in=3 * 86_400)
            agent.wait_log("ack-failed")
        wall.offset = timedelta(days=days)
        if restart:
            assert agent.stop() == 0
            lives.close()
            agent = lives.enter_context(ThreadedAgent(sandbox, tmp_path, agent_id=agent.agent_id, clock=wall.clock())).ready()
        agent.agent.flow.journal.retention.prune()
        wait_until(sandbox, lambda: sandbox.queue_depth(agent.agent_id) == (0, 0))
        assert agent.ask({"url": target.url("/")}, expires_in=3 * 86_400).status == "SUCCESS"
        if days < 0:  # After a jump of a day an acknowledged command may be forgotten.
            wait_until(sandbox, lambda: agent.agent.flow.journal.counts()["delivered"] == 2)
        assert agent.stop() == 0
        assert finals(command) == ["SUCCESS"]
        assert seen(target) == {"POST /post": 1, "GET /": 1}
