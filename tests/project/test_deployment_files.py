"""docker/kubernetes, docker/podman and their pages: what they say agrees with the agent and with run.sh, and all of it is handed over.

With helm, Kubernetes' schemas and Quadlet: tests/e2e/test_kubernetes.py, test_podman.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import relay_agent
from relay_agent.config.settings import variables
from tests.pages import ROOT, parse
from tests.shell_blocks import shell_blocks

DOCKER = ROOT / "docker"
KUBERNETES = DOCKER / "kubernetes"
NAME = "ts-agent-http-relay"
CHART = KUBERNETES / NAME
RUN = (DOCKER / "run.sh").read_text(encoding="utf-8")
DEFAULTS = {variable.name: variable.default for variable in variables()}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = (CHART / "values.schema.json").read_text(encoding="utf-8")
NEW_PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("podman", "kubernetes")}
FAKE_DOCKER = """#!/bin/sh
case "$1" in
image) echo sha256:0 ;;
save) : >"$3" ;;
create) echo 0 ;;
cp) echo '{}' >"$3" ;;
esac
"""


def objects(name: str) -> dict[str, Any]:
    """The objects of a manifest, by their kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((KUBERNETES / f"{name}.yaml").read_text(encoding="utf-8"))}


PODS = {"agent": objects("agent")["StatefulSet"], "retire": objects("retire")["Job"]}


def test_chart_image_and_pages_are_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["name"], chart["version"], chart["appVersion"]) == (NAME, relay_agent.__version__, f"v{relay_agent.__version__}")
    for page in NEW_PAGES.values():
        assert set(re.findall(r"relay[:-]v(\d+\.\d+\.\d+)", page)) == {relay_agent.__version__}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_confined_as_run_sh_confines_the_container(name: str) -> None:
    pod = PODS[name]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == security
    outer = pod["securityContext"]
    assert (outer["runAsNonRoot"], outer["seccompProfile"]) == (True, {"type": "RuntimeDefault"})  # The standard "restricted".
    assert {outer[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert "--memory 1g" in RUN and container["resources"]["limits"] == {"memory": "1Gi"}
    temporary = next(volume for volume in pod["volumes"] if volume["name"] == "tmp")
    assert "size=320m" in RUN and temporary["emptyDir"] == {"medium": "Memory", "sizeLimit": "320Mi"}


def test_kubernetes_waits_15_s_longer_than_the_drain() -> None:
    drain = int(DEFAULTS["RELAY_DRAIN_SECONDS"])
    assert VALUES["drainSeconds"] == drain == int(objects("settings")["ConfigMap"]["data"]["RELAY_DRAIN_SECONDS"])
    assert PODS["agent"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == drain + 15


def test_nothing_may_connect_to_the_agent_and_it_may_not_reach_the_clouds_metadata() -> None:
    policy = objects("agent")["NetworkPolicy"]["spec"]
    assert (policy["policyTypes"], policy["ingress"]) == (["Ingress", "Egress"], [])
    assert [block["ipBlock"]["except"] for rule in policy["egress"] for block in rule.get("to", [])] == [["169.254.0.0/16"], ["fe80::/10"]]
    assert sorted({port["port"] for rule in policy["egress"] for port in rule["ports"]}) == [53, 443]


def test_every_variable_that_the_files_set_is_one_of_the_agents() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in [*KUBERNETES.rglob("*.*"), *(DOCKER / "podman").iterdir()])
    named = set(re.findall(r"\b(?:RELAY_[A-Z_]+|JWT(?:_FILE)?|SECURE_COMMAND_KEY(?:_FILE)?|API_TARGET|ORG_SLUG|AGENT_ID)\b", text))
    assert len(named) > 10
    assert named - {"RELAY_"} - set(DEFAULTS) == set()


def test_what_the_chart_sets_itself_cannot_be_set_twice() -> None:
    mine = set(re.findall(r"name: ([A-Z_]+),|^  ([A-Z_]+): ", templates(), re.MULTILINE))
    names = {name for pair in mine for name in pair if name}
    assert names >= {"RELAY_STATE_DIR", "JWT_FILE", "API_TARGET", "RELAY_CA_FILE"}
    assert [name for name in sorted({*names, "JWT", "SECURE_COMMAND_KEY"}) if f'"{name}"' not in SCHEMA] == []


def templates() -> str:
    """All templates of the chart."""
    return "".join(path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").iterdir()))


def test_every_value_is_used_and_in_the_schema() -> None:
    assert [name for name in VALUES if f".Values.{name}" not in templates()] == []
    assert [name for name in VALUES if f'"{name}"' not in SCHEMA] == []


@pytest.mark.parametrize("name", NEW_PAGES)
def test_every_command_of_the_agent_on_a_page_parses_and_every_section_is_linked(name: str) -> None:
    page = NEW_PAGES[name]
    lines = [line for block in shell_blocks(page) for line in block.lines]
    commands = [line.partition("relay-agent ")[2] for line in lines if re.search(r"(exec|--) .*\brelay-agent [a-z]", line)]
    commands += re.findall(r"(?:podman|kubectl) exec [^`|]*?relay-agent ([a-z][^`']*)`", page)
    assert commands
    for command in commands:
        parse(command.split())
    head = page.partition("\n## ")[0]
    titles = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.+)$", page, re.MULTILINE)]
    assert [title for title in titles if f"(#{title})" not in head] == []


def test_the_delivery_has_all_of_it_with_checksums_and_this_version(tmp_path: Path) -> None:
    for name in ("docker", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.whl", "images"))
    (tmp_path / "relay_agent").mkdir()
    shutil.copy(ROOT / "relay_agent" / "__init__.py", tmp_path / "relay_agent")
    for name in ("LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(FAKE_DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    environment = {"PATH": f"{docker.parent}:{os.environ['PATH']}", "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    script = tmp_path / "docker" / "tools" / "dist.sh"
    done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    dist = tmp_path / "dist"
    handed = {path.relative_to(dist).as_posix(): path for path in dist.rglob("*") if path.is_file()}
    ours = {
        path.relative_to(DOCKER).as_posix() for name in ("podman", "kubernetes") for path in (DOCKER / name).rglob("*") if path.is_file()
    }
    assert ours | {"podman.md", "kubernetes.md"} <= set(handed)
    summed = {line.split()[1] for line in (dist / "SHA256SUMS").read_text(encoding="utf-8").splitlines()}
    assert summed == set(handed) - {"SHA256SUMS"}
    assert [name for name in ours if ":latest" in handed[name].read_text(encoding="utf-8")] == []
    for name in ("podman/ts-agent-http-relay.container", "kubernetes/agent.yaml", "kubernetes/retire.yaml"):
        assert f"{NAME}:v{relay_agent.__version__}\n" in handed[name].read_text(encoding="utf-8")
    monitoring = {path.name for path in (ROOT / "docs" / "monitoring").iterdir()}
    assert {name.removeprefix("monitoring/") for name in handed if name.startswith("monitoring/")} == monitoring
    for name in ("monitoring/textfile.sh", "monitoring/check_relay_agent.sh"):
        assert handed[name].stat().st_mode & 0o777 == 0o755
    for name in [name for name in handed if name.endswith(".md")]:
        links = re.findall(r"\]\((?!https?:)([^)#\s]+)", handed[name].read_text(encoding="utf-8"))
        places = [os.path.normpath(Path(name).parent / link) for link in links]
        assert (name, [place for place in places if place not in handed]) == (name, [])
