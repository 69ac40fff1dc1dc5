"""The policy in force while its files change: which changes are applied, which keep the old one, and what is logged (docs/policy.md)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from relay_agent.agent.current_policy import EMPTY_SECONDS, MAX_REMEMBERED, RETRY_SECONDS, CurrentPolicy
from relay_agent.config.policy_file import LoadedPolicy, load_policy
from relay_agent.core.errors import ConfigurationError
from relay_agent.core.urls import parse_url
from relay_agent.telemetry.logger import Logger
from relay_agent.telemetry.redaction import Redactor
from relay_agent.transport.policy import Policy, TargetCall
from relay_agent.transport.target_settings import CallRules, TargetSettings
from tests.overwriting import overwrite
from tests.target_certificates import ca_pem, client_certificate

OPEN = 'default = "allow"\n'
CLOSED = 'default = "deny"\n'
TARGET = '[[target]]\nhosts = ["lims.lab.example"]\n'


class World:
    """A policy whose files, clock and log are the test's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "policy.toml"
        self.time = 1000.0
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.registered: list[tuple[str, ...]] = []
        self.loads = 0
        self.load_seconds = 0.0
        self._writes = 0

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file in its place, at a time of its own."""
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self._writes += 1
        os.utime(path, ns=(self._writes, self._writes))

    def start(self, text: str) -> CurrentPolicy:
        self.write("policy.toml", text)
        self.policy = CurrentPolicy(self._load, lambda *secrets: self.registered.append(secrets), cast("Logger", self), lambda: self.time)
        return self.policy

    def _load(self) -> LoadedPolicy:
        self.loads += 1
        self.time += self.load_seconds
        return load_policy(self.file)

    def warning(self, event: str, **fields: Any) -> None:
        self.log.append((event, fields))

    info = warning

    def refresh(self, seconds: float = 1.0) -> list[str]:
        """Let time pass and look again; the events that are logged."""
        self.time += seconds
        before = len(self.log)
        self.policy.refresh()
        return [event for event, _ in self.log[before:]]

    @property
    def allows(self) -> bool:
        return self.policy.rules().policy.check_url(TargetCall("GET", parse_url("http://h/"))).allowed

    @property
    def target(self) -> TargetSettings:
        return self.policy.rules().target("lims.lab.example")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_file_that_does_not_change_is_not_read_again(world: World) -> None:
    world.start(OPEN)
    assert [world.refresh(3600) for _ in range(3)] == [[], [], []]
    assert world.loads == 1


def test_a_start_with_a_mistake_fails(world: World) -> None:
    with pytest.raises(ConfigurationError):
        world.start("mod = 1")


def test_a_valid_change_is_taken_over_and_logged_once(world: World) -> None:
    world.start(CLOSED)
    assert not world.allows
    world.write("policy.toml", OPEN + 'mode = "observe"\n' + TARGET + '[[rule]]\naction = "deny"\nports = [1]')
    assert [world.refresh() for _ in range(3)] == [["policy-loaded"], [], []]
    assert world.log == [("policy-loaded", {"mode": "observe", "rules": 1, "targets": 1})]
    assert world.allows
    assert world.policy.problem is None


def test_a_broken_change_keeps_the_old_policy_and_is_logged_once(world: World) -> None:
    world.start(OPEN)
    world.write("policy.toml", 'mod = "observe"')
    assert [world.refresh() for _ in range(20)] == [["policy-unusable"], *[[]] * 19]
    assert world.allows
    assert world.policy.problem == "RELAY_POLICY_FILE: policy.toml: unknown key 'mod'; did you mean 'mode'?"
    assert world.policy.problem in world.log[0][1]["cause"]
    assert "policy check" in world.log[0][1]["cure"]


def test_the_log_lists_each_mistake_and_what_is_masked_in_one_hides_no_other(world: World) -> None:
    world.start(OPEN)
    headers = "headers = { Authorization = { file = 'missing.txt' }, X-Api-Key = { file = 'gone.txt' } }\n"
    world.write("policy.toml", '[[rule]]\nname = "Authorization: x"\naction = "deny"\nports = [1]\nhosts = ["a b"]\n' + TARGET + headers)
    assert world.refresh() == ["policy-unusable"]
    (_, fields) = world.log[0]
    line = str(Redactor()(None, "warning", dict(fields)))
    assert "[redacted]" in line, "the name of the rule looks like a header field"
    for name in ("missing.txt", "gone.txt"):
        assert f"cannot read {world.directory / name} (No such file or directory)" in line
    assert str(world.policy.problem).endswith(" (and 2 more mistakes)")
    assert fields["withheld"] == "cause.mistakes", "the platform must not learn which files and targets there are"


def test_a_file_overwritten_in_place_with_its_size_and_time_put_back_is_read_again(world: World) -> None:
    world.start(OPEN)
    overwrite(world.file, OPEN.replace('"allow"', '"deny" '))
    assert (world.refresh(), world.allows) == (["policy-loaded"], False)


def test_the_summary_is_that_of_the_policy_in_force(world: World) -> None:
    world.start(OPEN + 'mode = "observe"\n' + TARGET)
    found = {"file": str(world.file), "mode": "observe", "default": "allow", "rules": 0, "targets": 1}
    assert world.policy.summary() == found
    world.write("policy.toml", "mod = 1")
    world.refresh()
    assert world.policy.summary() == found
    world.write("policy.toml", '[[rule]]\naction = "allow"\n')
    world.refresh()
    assert world.policy.summary() == found | {"mode": "enforce", "default": "deny", "rules": 1, "targets": 0}


def test_without_a_policy_file_there_is_no_summary(world: World) -> None:
    rules = CallRules(Policy())
    assert CurrentPolicy(lambda: LoadedPolicy(rules), lambda *_: None, cast("Logger", world), lambda: 0.0).summary() is None


def test_a_different_mistake_is_logged_again(world: World) -> None:
    world.start(OPEN)
    world.write("policy.toml", "mod = 1")
    assert world.refresh() == ["policy-unusable"]
    world.write("policy.toml", "defualt = 1")
    assert world.refresh() == ["policy-unusable"]
    assert "default" in str(world.policy.problem)


def test_a_broken_file_that_is_corrected_is_taken_over(world: World) -> None:
    world.start(OPEN)
    world.write("policy.toml", "mod = 1")
    world.refresh()
    world.write("policy.toml", CLOSED)
    assert world.refresh() == ["policy-loaded"]
    assert (world.allows, world.policy.problem) == (False, None)


def test_the_old_content_put_back_ends_the_problem(world: World) -> None:
    world.start(OPEN)
    world.write("policy.toml", "mod = 1")
    world.refresh()
    world.write("policy.toml", OPEN)
    assert world.refresh() == ["policy-loaded"]
    assert world.policy.problem is None


def test_a_file_that_is_gone_keeps_the_old_policy(world: World) -> None:
    world.start(OPEN)
    world.file.unlink()
    assert world.refresh() == ["policy-unusable"]
    assert world.allows
    assert "cannot read" in str(world.policy.problem)
    world.write("policy.toml", CLOSED)
    assert world.refresh() == ["policy-loaded"]
    assert not world.allows


def test_a_file_that_is_emptied_before_it_is_written_refuses_no_call_meanwhile(world: World) -> None:
    world.start(OPEN)
    world.write("policy.toml", "")
    assert [world.refresh() for _ in range(2)] == [[], []]
    assert world.allows
    world.write("policy.toml", OPEN + TARGET)
    assert (world.refresh(), world.allows, world.target.name) == (["policy-loaded"], True, "[[target]] 1 (lims.lab.example)")


def test_a_file_that_stays_empty_is_taken_over_and_refuses_every_call(world: World) -> None:
    world.start(OPEN)
    for _ in range(2):
        world.write("policy.toml", "")
        assert [world.refresh(), world.refresh(EMPTY_SECONDS)] == [[], ["policy-loaded"]]
        assert not world.allows
        world.write("policy.toml", OPEN)
        assert (world.refresh(), world.allows) == (["policy-loaded"], True)


def test_a_missing_file_that_appears_heals_the_policy_without_a_change_of_its_own(world: World) -> None:
    world.start(OPEN)
    world.write("policy.toml", CLOSED + TARGET + 'headers = { Authorization = { file = "token" } }')
    assert world.refresh() == ["policy-unusable"]
    world.write("token", "secret-1")
    assert world.refresh(RETRY_SECONDS) == ["policy-loaded"]
    assert world.target.headers == (("Authorization", "secret-1"),)


def test_the_time_to_the_next_read_of_a_broken_policy_counts_from_the_end_of_the_last_one(world: World) -> None:
    world.start(OPEN)
    world.load_seconds = RETRY_SECONDS * 2
    world.write("policy.toml", "mod = 1")
    for _ in range(10):
        world.refresh(RETRY_SECONDS / 2)
    assert world.loads - 1 == 5, "a load that takes longer than the time between two must not be due again at once"


def test_a_broken_policy_is_read_again_only_every_few_seconds(world: World) -> None:
    world.start(OPEN)
    world.write("policy.toml", "mod = 1")
    for _ in range(20):
        world.refresh()
    assert world.loads <= 2 + 20 / RETRY_SECONDS
    assert RETRY_SECONDS < 10


@pytest.mark.parametrize("name", ["ca.pem", "agent.pem", "agent.key", "password", "token"])
def test_each_named_file_alone_is_taken_over_when_it_changes(world: World, name: str) -> None:
    certificate, key = client_certificate()
    again, other_key = client_certificate()
    contents = {"ca.pem": ca_pem(), "agent.pem": certificate, "agent.key": key, "password": b"one", "token": b"secret-1"}
    changed = {"ca.pem": ca_pem() + ca_pem(), "agent.pem": again + other_key, "password": b"two", "token": b"secret-2"}
    for file, content in contents.items():
        world.write(file, content)
    client = 'client_cert = "agent.pem"\nclient_key = "agent.key"\nclient_key_password_file = "password"\n'
    world.start(TARGET + 'ca_file = "ca.pem"\nheaders = { A = { file = "token" } }\n' + client)
    before = world.target
    if name in ("agent.pem", "agent.key"):  # A new pair comes in two steps: between them the old pair stays in force.
        world.write("agent.pem", again)
        assert world.refresh() == ["policy-unusable"]
        assert world.target is before
        world.write("agent.key", other_key)
    else:
        world.write(name, changed[name])
    assert world.refresh() == ["policy-loaded"]
    assert world.target is not before
    assert world.target.tls is not before.tls, "connections with the old settings are not used any more"
    assert world.target.headers == (("A", "secret-2" if name == "token" else "secret-1"),)


@pytest.mark.parametrize(("name", "content"), [("ca.pem", "damaged"), ("token", ""), ("token", b"\xff")])
def test_a_named_file_that_becomes_unusable_keeps_the_old_policy(world: World, name: str, content: str | bytes) -> None:
    world.write("ca.pem", ca_pem())
    world.write("token", "secret-1")
    world.start(TARGET + 'ca_file = "ca.pem"\nheaders = { A = { file = "token" } }\n')
    before = world.policy.rules()
    world.write(name, content)
    assert world.refresh() == ["policy-unusable"]
    assert world.policy.rules() is before


@pytest.mark.parametrize("name", ["policy.toml", "token"])
def test_a_file_that_is_replaced_by_another_of_the_same_size_and_time_is_noticed(world: World, name: str) -> None:
    """As an editor or Kubernetes replaces one, and tools that copy times with it."""
    world.write("token", "secret-1")
    text = OPEN + TARGET + 'headers = { A = { file = "token" } }\n'
    world.start(text)
    path = world.directory / name
    times = path.stat().st_mtime_ns
    fresh = world.directory / "fresh"
    fresh.write_text(text.replace('"A"', '"B"').replace("{ A =", "{ B =") if name == "policy.toml" else "secret-2")
    os.utime(fresh, ns=(times, times))
    fresh.replace(path)
    assert world.refresh() == ["policy-loaded"]
    assert world.target.headers == ((("B", "secret-1"),) if name == "policy.toml" else (("A", "secret-2"),))


def test_a_symbolic_link_that_leads_elsewhere_is_noticed(world: World) -> None:
    """Kubernetes swaps a link for a whole directory of secrets."""
    for name in ("one", "two"):
        (world.directory / name).mkdir()
        (world.directory / name / "token").write_text(f"secret-{name}")
    data = world.directory / "data"
    data.symlink_to("one")
    world.start(TARGET + 'headers = { A = { file = "data/token" } }\n')
    data.unlink()
    data.symlink_to("two")
    assert world.refresh() == ["policy-loaded"]
    assert world.target.headers == (("A", "secret-two"),)


def test_a_change_between_the_reading_and_the_first_look_is_not_missed(world: World) -> None:
    """At a start, and for a file that a changed policy names for the first time."""
    world.write("token", "secret-1")

    def changing() -> LoadedPolicy:
        loaded = load_policy(world.file)
        world.write("token", f"secret-{world.loads + 2}")
        world.loads += 1
        return loaded

    world._load = changing  # type: ignore[method-assign]
    world.start(TARGET + 'headers = { A = { file = "token" } }\n')
    assert world.target.headers == (("A", "secret-1"),)
    assert world.refresh() == ["policy-loaded"]
    assert world.target.headers == (("A", "secret-2"),)
    assert world.refresh() == ["policy-loaded"]


def test_new_secrets_are_known_to_the_redactor_before_they_are_used(world: World) -> None:
    world.write("token", "secret-1")
    world.start(TARGET + 'headers = { A = { file = "token" } }\n')
    assert world.registered == [("secret-1",)]
    world.write("token", "secret-2")
    rules = world.policy.rules()
    world.registered.clear()
    world.policy._register = lambda *secrets: world.registered.append((*secrets, str(world.policy.rules() is rules)))
    world.refresh()
    assert world.registered == [("secret-2", "True")]


# --- the limits of lanes ---


def test_a_lane_is_limited_by_the_table_of_its_host_whatever_its_port(world: World) -> None:
    limits = '[[target]]\nhosts = ["a", "10.0.0.0/8", "::1"]\nmax_concurrency = 3\n[[target]]\nhosts = ["b"]\n'
    policy = world.start(limits)
    lanes = ["a:80", "a:443", "10.1.2.3:80", "::1:8080", "b:80", "c:80", "?"]
    table = ("10.0.0.0/8 ::1 a", 3)
    assert [policy.lane_limit(lane) for lane in lanes] == [table, table, table, table, None, None, None]
    assert [policy.lane_limit(lane) for lane in lanes] == [table, table, table, table, None, None, None], "remembered"


def test_without_tables_no_lane_is_limited(world: World) -> None:
    assert world.start(OPEN).lane_limit("a:80") is None


def test_the_limits_of_lanes_change_with_the_policy(world: World) -> None:
    policy = world.start('[[target]]\nhosts = ["a"]\nmax_concurrency = 3\n')
    assert policy.lane_limit("a:80") == ("a", 3)
    world.write("policy.toml", '[[target]]\nhosts = ["a"]\nmax_concurrency = 1\n')
    world.refresh()
    assert policy.lane_limit("a:80") == ("a", 1)


def test_a_lane_stays_in_its_group_if_its_table_moves_in_the_file(world: World) -> None:
    policy = world.start('[[target]]\nhosts = ["a", "b"]\nmax_concurrency = 3\n')
    before = policy.lane_limit("a:80")
    world.write("policy.toml", '[[target]]\nhosts = ["c"]\n[[target]]\nhosts = ["B", "a"]\nmax_concurrency = 3\n')
    world.refresh()
    assert policy.lane_limit("a:80") == before


def test_senders_cannot_make_the_agent_remember_any_number_of_lanes(world: World) -> None:
    policy = world.start('[[target]]\nhosts = ["a"]\nmax_concurrency = 3\n')
    for number in range(MAX_REMEMBERED + 50):
        policy.lane_limit(f"h{number}:80")
    assert len(policy._lane_limits) <= MAX_REMEMBERED
    assert policy.lane_limit("a:80") == ("a", 3)
