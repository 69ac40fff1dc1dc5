"""`relay-agent policy`: check, learn and test, on a journal and files of their own (docs/policy.md)."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay_agent.cli import learnt_policy
from relay_agent.cli import policy as commands
from relay_agent.cli.policy import policy
from relay_agent.config.policy_file import load_policy
from relay_agent.core.clock import Clock
from relay_agent.core.failures import Code
from relay_agent.core.models import ACTION_SECURE, Status, Update
from relay_agent.core.urls import parse_url
from relay_agent.storage.journal import About, Journal
from relay_agent.transport.policy import Policy, TargetCall

PLAIN = "TetraScience.Connector.gdc.HttpRequest"
RULES = """
[[rule]]
name = "lims"
action = "allow"
hosts = ["lims"]
[[rule]]
name = "samples"
action = "allow"
hosts = ["eln"]
paths = ["/samples/*"]
[[rule]]
name = "instruments"
action = "deny"
hosts = ["10.20.0.0/16"]
[[target]]
hosts = ["lims"]
max_concurrency = 2
headers = { Authorization = "canary-secret" }
"""


class Site:
    """A directory with a journal and a policy file."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.file = directory / "policy.toml"
        self.file.write_text(RULES)
        self._count = 0
        monkeypatch.chdir(directory)
        monkeypatch.setenv("RELAY_STATE_DIR", str(directory))

    def saw(self, *calls: About, code: Code | None = None) -> None:
        """Let the journal have had commands."""
        journal = Journal(self.directory / "journal.db", Clock())
        for about in calls:
            self._count += 1
            journal.admit([(f"c-{self._count}", "x", "receipt")])
            journal.finish(Update(f"c-{self._count}", Status.SUCCESS, "y", code=code), about)
        journal.close()

    def run(self, *arguments: str) -> Result:
        """Run `relay-agent policy`; nothing it prints may hold a secret of the file."""
        done = CliRunner().invoke(policy, list(arguments), catch_exceptions=False)
        assert "canary-secret" not in done.output + done.stderr
        return done


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def called(
    host: str, method: str = "GET", status: int | None = 200, *, scheme: str = "https", port: int = 443, secure: bool = False
) -> About:
    return About(ACTION_SECURE if secure else PLAIN, method, host, port, status, scheme)


def learnt(site: Site) -> list[dict[str, Any]]:
    """The rules of what `policy learn` prints, which must be a valid file."""
    done = site.run("learn")
    assert done.exit_code == 0
    site.file.write_text(done.stdout)
    load_policy(site.file)
    return list(tomllib.loads(done.stdout).get("rule", []))


# --- check ---


def test_check_counts_what_each_rule_would_have_done(site: Site) -> None:
    site.saw(called("lims"), called("lims", "POST"), called("eln"), called("10.20.1.1"), called("other"))
    done = site.run("check", "policy.toml", "--json")
    assert done.exit_code == 0
    found = {rule["rule"]: (rule["action"], rule["commands"], rule["perhaps"]) for rule in json.loads(done.stdout)["rules"]}
    assert found == {
        "lims": ("allow", 2, 0),
        "samples": ("allow", 0, 1),
        "instruments": ("deny", 1, 1),
        "default: deny": ("deny", 0, 0),
    }, "the path of a call to eln is not known, nor the addresses of `other`"


def test_check_names_the_denial_that_no_rule_lifts(site: Site) -> None:
    site.file.write_text('default = "allow"')
    site.saw(called("169.254.169.254"), called("lims"))
    rules = json.loads(site.run("check", "policy.toml", "--json").stdout)["rules"]
    assert [(rule["rule"], rule["commands"]) for rule in rules] == [
        ("built-in: link-local and cloud metadata", 1),
        ("default: allow", 1),
    ]


@pytest.mark.parametrize("head", ['mode = "observe"\n', 'default = "allow"\n', ""])
def test_check_counts_as_sure_only_what_no_path_changes(site: Site, head: str) -> None:
    meta = '[[rule]]\nname = "meta"\naction = "allow"\nhosts = ["169.254.10.20"]\npaths = ["/api/*"]\n'
    anything = '[[rule]]\nname = "any"\naction = "allow"\nhosts = ["*"]\npaths = ["/*"]\n'
    site.file.write_text(head + meta + anything)
    site.saw(called("169.254.10.20"), called("169.254.10.20"), called("169.254.169.254"), called("192.0.2.1"))
    rules = json.loads(site.run("check", "policy.toml", "--json").stdout)["rules"]
    assert {rule["rule"]: (rule["commands"], rule["perhaps"]) for rule in rules if rule["examples"]} == {
        "meta": (0, 2),
        "built-in: link-local and cloud metadata": (1, 0),
        "any": (1, 0),
    }


def test_check_judges_names_behind_a_proxy_by_their_name_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = '[[rule]]\nname = "net"\naction = "deny"\nhosts = ["127.0.0.0/8"]\n'
    rules += '[[rule]]\nname = "local"\naction = "allow"\nhosts = ["*.localhost"]\n'
    site.saw(called("lims.localhost"))

    def counted(text: str) -> dict[str, tuple[int, int]]:
        site.file.write_text(text)
        found = json.loads(site.run("check", "policy.toml", "--json").stdout)["rules"]
        return {rule["rule"]: (rule["commands"], rule["perhaps"]) for rule in found if rule["examples"]}

    table = '[[target]]\nhosts = ["*"]\nproxy = "{}"\n'
    assert counted(rules) == {"net": (0, 1)}
    assert counted(rules + table.format("http://proxy.lab.example:3128")) == {"local": (1, 0)}
    monkeypatch.setenv("https_proxy", "http://proxy.lab.example:3128")
    assert counted(rules) == {"local": (1, 0)}
    assert counted(rules + table.format("none")) == {"net": (0, 1)}


def test_check_says_how_many_commands_it_did_not_try(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MAX_MATCHES", 10)  # Three rules, a table and the default: two targets.
    site.saw(called("lims"), called("lims"), called("other"), called("other"), called("eln"))
    report = json.loads(site.run("check", "policy.toml", "--json").stdout)
    assert (report["notTried"], sum(rule["commands"] + rule["perhaps"] for rule in report["rules"])) == (1, 4)
    assert "Not tried, since there are too many rules and targets: 1 command for the targets" in site.run("check", "policy.toml").stdout


def test_check_of_a_valid_file_needs_no_journal(site: Site) -> None:
    done = site.run("check", "policy.toml")
    assert done.exit_code == 0
    assert "is valid: mode enforce, 3 rules, 1 target table" in done.stdout
    assert "there is no journal" in done.stdout


def test_check_warns_of_what_is_never_reached_and_ends_with_0(site: Site) -> None:
    site.file.write_text('default = "allow"\n[[target]]\nhosts = ["*"]\n[[target]]\nhosts = ["eln"]\n')
    warning = "[[target]] 2 (eln) is never reached, because [[target]] 1 (*) comes first and matches everything that it matches"
    done = site.run("check", "policy.toml")
    assert (done.exit_code, f"Warning: {warning}\n" in done.stdout) == (0, True)
    assert json.loads(site.run("check", "policy.toml", "--json").stdout)["warnings"] == [warning]


def test_check_lists_every_mistake_and_ends_with_1(site: Site) -> None:
    site.file.write_text('[[rule]]\nname = "lims"\naction = "alow"\nhost = ["lims"]\n')
    done = site.run("check", "policy.toml")
    assert done.exit_code == 1
    assert "[[rule]] 1 (lims): unknown key 'host'; did you mean 'hosts'?" in done.stderr
    assert "[[rule]] 1 (lims): action: input should be 'allow' or 'deny'" in done.stderr
    assert len(json.loads(site.run("check", "policy.toml", "--json").stdout)["mistakes"]) == 2


def test_check_of_a_file_that_cannot_be_read_ends_with_2(site: Site) -> None:
    done = site.run("check", "nowhere.toml")
    assert (done.exit_code, "cannot read nowhere.toml" in done.stderr) == (2, True)


# --- learn ---


def test_learn_writes_a_valid_file_that_allows_what_was_called_and_nothing_else(site: Site) -> None:
    site.saw(
        called("lims"),
        called("lims", "POST", port=9005),
        called("vault", secure=True),
        called("both"),
        called("both", "PUT", secure=True),
        called("typo", status=None),
    )
    done = site.run("learn")
    assert done.exit_code == 0
    assert tomllib.loads(done.stdout)["mode"] == "observe"
    site.file.write_text(done.stdout)
    rules = load_policy(site.file).rules.policy

    def allowed(url: str, method: str = "GET", *, secure: bool = False) -> bool:
        return rules.check_url(TargetCall(method, parse_url(url), secure)).would_refuse is None

    assert allowed("https://lims/any/path")
    assert allowed("https://lims:9005/", "POST")
    assert allowed("https://vault/", secure=True)
    assert allowed("https://both/", "PUT", secure=True)
    assert not allowed("https://both/", "PUT"), "only secure commands called it by PUT"
    assert not allowed("http://lims/")
    assert not allowed("https://lims/", "DELETE")
    assert not allowed("https://vault/"), "only secure commands called it"
    assert not allowed("https://typo/")
    assert "#   GET https://typo:443\n" in done.stdout


def test_learn_allows_nothing_that_the_policy_refused_or_would_have(site: Site) -> None:
    site.saw(called("lims"), called("eln"), replace(called("mis"), would_refuse="instruments"))
    site.saw(called("lims", status=None), code=Code.EPOLICY)
    assert [rule["hosts"] for rule in learnt(site)] == [["eln"]]
    assert "#   GET https://lims:443\n#   GET https://mis:443\n" in site.file.read_text()
    assert "# 1 answered command\n" in site.file.read_text()


def test_learn_allows_what_only_the_default_would_have_refused_while_rules_were_observed(site: Site) -> None:
    name = Policy(default_allows=False).default.rule
    site.saw(replace(called("lims"), would_refuse=name), replace(called("eln"), would_refuse=f"{name} (redirect to https://files)"))
    site.saw(replace(called("mis"), would_refuse="no vault (redirect to https://vault)"))
    assert [rule["hosts"] for rule in learnt(site)] == [["eln"], ["lims"]]


def test_learn_without_commands_says_so_and_ends_with_1(site: Site) -> None:
    site.saw()
    done = site.run("learn", "--days", "1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "has no commands of the last 1 day." in done.stderr


@pytest.mark.parametrize(
    "host",
    ["*", "*.wild.lab.example", "a*b", 'a"]\n[[rule]]\naction = "allow"', "10.0.0.0/8", "a\x7fb", "\U0001f600", ""],
)
def test_learn_makes_no_rule_from_a_host_that_is_no_plain_name_or_address(site: Site, host: str) -> None:
    site.saw(called(host), called("lims"))
    assert [rule["hosts"] for rule in learnt(site)] == [["lims"]]


def test_learn_makes_no_rule_from_what_was_answered_by_a_proxy(site: Site) -> None:
    site.saw(replace(called("nowhere", status=503), from_proxy=True))
    assert learnt(site) == []
    assert "#   GET https://nowhere:443\n" in site.file.read_text()


def test_learn_makes_no_rule_from_ports_and_methods_that_did_not_answer(site: Site) -> None:
    site.saw(called("lims"), called("lims", port=22, status=None), called("lims", "DELETE", status=None))
    assert [(rule["ports"], rule["methods"]) for rule in learnt(site)] == [([443], ["GET"])]


def test_learn_allows_no_pair_of_port_and_method_that_was_not_called(site: Site) -> None:
    site.saw(called("lims"), called("lims", port=8443), called("lims", "POST", port=9005), called("lims", scheme="http", port=80))
    found = [(rule["name"], rule["schemes"], rule["ports"], rule["methods"]) for rule in learnt(site)]
    assert found == [
        ("lims", ["http"], [80], ["GET"]),
        ("lims 2", ["https"], [443, 8443], ["GET"]),
        ("lims 3", ["https"], [9005], ["POST"]),
    ]


@pytest.mark.parametrize("method", ["*", "A" * 20])
def test_learn_makes_no_rule_from_a_method_that_no_rule_can_name(site: Site, method: str) -> None:
    site.saw(called("lims", method), called("lims"))
    assert [rule["methods"] for rule in learnt(site)] == [["GET"]]


@pytest.mark.parametrize("host, port", [("169.254.169.254", 80), ("2130706433", 9090), ("0.0.0.0", 80), ("localhost", 9090)])
def test_learn_makes_no_rule_that_lifts_a_built_in_denial(site: Site, host: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_ADMIN_ADDR", "127.0.0.1:9090")
    site.saw(called(host, port=port, scheme="http"))
    assert learnt(site) == []


def test_learn_gives_hosts_with_the_same_beginning_valid_names_of_their_own(site: Site) -> None:
    long = ".".join(["a" * 60] * 3)
    site.saw(called(f"{long}.b"), called(f"{long}.c"))
    names = [rule["name"] for rule in learnt(site)]
    assert (len(set(names)), max(map(len, names))) == (2, 100)


def test_learn_prints_no_file_that_is_not_valid(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learnt_policy, "_unique", lambda host, names: "")
    site.saw(called("lims"))
    with pytest.raises(RuntimeError, match="name"):
        site.run("learn")


# --- test ---


@pytest.mark.parametrize(
    "arguments, exit_code, verdict, rule",
    [
        (["https://lims/"], 0, "allow", "lims"),
        (["https://eln/samples/1"], 0, "allow", "samples"),
        (["https://eln/other"], 1, "deny", "instruments"),
        (["https://eln/other", "--address", "192.0.2.1"], 1, "deny", "default: deny"),
        (["https://eln/other", "--address", "10.20.1.1"], 1, "deny", "instruments"),
        (["http://10.20.1.1/"], 1, "deny", "instruments"),
        (["http://169.254.169.254/"], 1, "deny", "default: deny"),
    ],
)
def test_test_says_verdict_and_rule(site: Site, arguments: list[str], exit_code: int, verdict: str, rule: str) -> None:
    done = site.run("test", *arguments, "--file", "policy.toml", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["verdict"], found["rule"]) == (exit_code, verdict, rule)


def test_test_uses_the_policy_of_the_settings_and_shows_the_target_s_settings(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_POLICY_FILE", str(site.file))
    done = site.run("test", "https://lims/")
    assert done.exit_code == 0
    assert "allow: lims" in done.stdout
    assert "at most 2 at a time; the agent adds Authorization" in done.stdout


def test_test_shows_a_table_s_proxy_and_the_one_that_applies(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:canary-secret@proxy:3128")
    site.file.write_text('default = "allow"\n[[target]]\nhosts = ["lims"]\nproxy = "none"\n')
    done = site.run("test", "https://lims/", "--file", "policy.toml")
    assert "[[target]] 1 (lims): proxy none\nproxy: directly: [[target]] 1 (lims)\n" in done.stdout
    done = site.run("test", "https://eln/", "--file", "policy.toml")
    assert "proxy: http://user:***@proxy:3128: https_proxy" in done.stdout
    found = json.loads(site.run("test", "https://eln/", "--file", "policy.toml", "--json").stdout)
    assert (found["proxy"], found["proxyReason"]) == ("http://user:***@proxy:3128", "https_proxy")


@pytest.mark.parametrize(
    "rules, says",
    [
        (
            'default = "allow"\n[[rule]]\nname = "d"\naction = "deny"\nhosts = ["10.0.0.0/8"]',
            "undecided: depends on whether an address of eln is in the subnets of rule d; give the addresses with --address IP\n",
        ),
        (
            'default = "allow"\n[[rule]]\nname = "d"\naction = "deny"\nhosts = ["localhost"]',
            "undecided: depends on whether an address of eln is in the loopback range, which rule d denies; give the addresses",
        ),
        ('[[rule]]\nname = "d"\naction = "deny"\nhosts = ["10.0.0.0/8"]', "deny: d or default: deny\n"),
        ('default = "allow"\n[[rule]]\nname = "d"\naction = "allow"\nhosts = ["10.0.0.0/8"]', "allow: d or default: allow\n"),
        (
            'mode = "observe"\n[[rule]]\nname = "d"\naction = "allow"\nhosts = ["10.0.0.0/8"]',
            "allow (mode observe; in the mode enforce it depends on whether all addresses of eln are in the subnets of rule d",
        ),
        (
            'mode = "observe"\n[[rule]]\nname = "d"\naction = "deny"\nhosts = ["10.0.0.0/8"]',
            "allow (mode observe; the mode enforce would deny it: d or default: deny)\n",
        ),
        (
            '[[rule]]\nname = "d"\naction = "allow"\nhosts = ["10.0.0.0/8"]',
            "undecided: depends on whether all addresses of eln are in the subnets of rule d; give the addresses with --address IP\n",
        ),
        ('mode = "observe"', "allow (mode observe; the mode enforce would deny it: default: deny)\n"),
    ],
)
def test_test_says_what_a_verdict_depends_on(site: Site, rules: str, says: str) -> None:
    site.file.write_text(rules)
    done = site.run("test", "https://eln/", "--file", "policy.toml")
    assert done.stdout.startswith(says)
    word = says.partition(":")[0].partition(" ")[0]
    assert done.exit_code == (0 if word == "allow" else 1)
    assert json.loads(site.run("test", "https://eln/", "--file", "policy.toml", "--json").stdout)["verdict"] == word


def test_test_says_what_a_verdict_depends_on_if_the_built_in_denial_of_the_admin_pages_is_one_of_the_possible(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_ADMIN_ADDR", "127.0.0.1:9464")
    opened = '[[rule]]\naction = "allow"\nhosts = ["localhost"]\nports = [9464]\n'
    site.file.write_text('[[rule]]\naction = "allow"\nhosts = ["10.0.0.0/8"]\n' + opened)
    done = site.run("test", "http://localhost:9464/", "--file", "policy.toml")
    assert done.stdout.startswith("undecided: depends on whether all addresses of localhost are in the subnets of rule 1; ")
    assert (done.exit_code, done.stderr) == (1, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8089/", "http://2130706433:8089/", "http://[::1]/"])
def test_test_refuses_addresses_for_a_host_that_is_one(site: Site, url: str) -> None:
    done = site.run("test", url, "--address", "192.0.2.1", "--file", "policy.toml")
    assert (done.exit_code, done.stdout, "the URL's host is an address itself" in done.stderr) == (2, "", True)


def test_test_refuses_addresses_for_a_name_that_a_proxy_resolves(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.lab.example:3128")
    done = site.run("test", "https://eln/", "--address", "10.20.1.1", "--file", "policy.toml")
    assert (done.exit_code, "goes through a proxy (https_proxy)" in done.stderr) == (2, True)


def test_test_of_a_file_with_mistakes_names_that_file(site: Site) -> None:
    (site.directory / "bad.toml").write_text("mode = 1")
    done = site.run("test", "https://lims/", "--file", "bad.toml")
    assert (done.exit_code, done.stderr.startswith("bad.toml is not valid:\n  bad.toml: mode: ")) == (2, True)
    assert "RELAY_POLICY_FILE" not in done.stderr
    done = site.run("test", "https://lims/", "--file", "bad.toml", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["valid"], len(found["mistakes"])) == (2, False, 1)


def test_test_asks_for_a_secure_command(site: Site) -> None:
    site.file.write_text('[[rule]]\naction = "allow"\nsecure_only = true\n')
    assert site.run("test", "https://lims/", "--file", "policy.toml").exit_code == 1
    assert site.run("test", "https://lims/", "--file", "policy.toml", "--secure").exit_code == 0


def test_test_of_a_name_behind_a_proxy_is_decided_without_addresses(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.lab.example:3128")
    done = site.run("test", "https://eln/other", "--file", "policy.toml", "--json")
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (1, "deny")


def test_test_with_a_broken_policy_ends_with_2(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_POLICY_FILE", str(site.file))
    site.file.write_text("mode = 1")
    done = site.run("test", "https://lims/")
    assert (done.exit_code, "mode: input should be 'enforce' or 'observe'" in done.stderr) == (2, True)


def test_test_of_what_is_no_url_ends_with_1(site: Site) -> None:
    assert site.run("test", "lims", "--file", "policy.toml").exit_code == 1
