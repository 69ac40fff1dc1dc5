"""What run.sh mounts, and how, with a `docker` that notes its arguments. On a real engine: tests/image/test_scripts.py."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pages import ROOT

DOCKER = """#!/bin/sh
case "$*" in
"version "*) echo 24.0.0 ;;
"info "*) echo "[name=seccomp,profile=builtin$SELINUX]" ;;
"container inspect "*) exit 1 ;;
"run "*)
    printf '%s\\n' "$@" >"$NOTED"
    echo "$*" >>"$NOTED.all"
    while [ "$1" != --env-file ]; do shift; done
    cp "$2" "${NOTED%noted}env"
    ;;
"inspect "*) echo 0 true 0 ;;
"logs "*) echo '{"event":"agent-ready"}' ;;
esac
"""
NAME = f"relay-test-{os.getpid()}"
ENGINE = ",name=selinux"
Run = Callable[..., tuple[list[str], str]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Call run.sh with a file of the token; the arguments of `docker run`, and what it said."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    delivery = tmp_path / "delivery"
    delivery.mkdir()
    shutil.copy(ROOT / "docker" / "run.sh", delivery)

    def call(token: Path, engine: str = "", more: str = "", code: int = 0) -> tuple[list[str], str]:
        token.parent.mkdir(exist_ok=True)
        token.write_text("a.b.c\n", encoding="utf-8")
        settings = delivery / "agent.env"
        settings.write_text(f"API_TARGET=https://a.example\nORG_SLUG=o\nAGENT_ID=a\nJWT_FILE={token}\n{more}", encoding="utf-8")
        settings.chmod(0o600)
        environment = {
            "PATH": f"{docker.parent}:{os.environ['PATH']}",
            "NOTED": str(tmp_path / "noted"),
            "SELINUX": engine,
            "XDG_RUNTIME_DIR": str(tmp_path),
            "CONTAINER_NAME": NAME,
        }
        done = subprocess.run([delivery / "run.sh"], env=environment, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        if code:
            return [], done.stderr
        return (tmp_path / "noted").read_text(encoding="utf-8").splitlines(), done.stderr

    yield call
    for lock in Path("/run").glob(f"ts-agent-http-relay-*-{NAME}.lock"):
        lock.unlink()  # run.sh keeps it, since another run.sh may wait for it.


def test_with_selinux_the_agents_own_directory_gets_the_label_for_containers(run: Run, tmp_path: Path) -> None:
    secrets = tmp_path / "delivery" / "secrets"
    given, said = run(secrets / "jwt", engine=ENGINE)
    assert f"{secrets}:/run/host/JWT_FILE:ro,z" in given
    assert "SELinux" not in said


@pytest.mark.parametrize("name", ["others", "delivery/with:colon"])
def test_with_selinux_another_directory_keeps_its_label_and_is_remarked(run: Run, tmp_path: Path, name: str) -> None:
    given, said = run(tmp_path / name / "jwt", engine=ENGINE)
    assert f"type=bind,source={tmp_path / name},target=/run/host/JWT_FILE,readonly" in given
    assert f"SELinux may keep the container from reading {tmp_path / name} (JWT_FILE)" in said


def test_without_selinux_nothing_is_labelled_or_remarked(run: Run, tmp_path: Path) -> None:
    secrets = tmp_path / "delivery" / "secrets"
    given, said = run(secrets / "jwt")
    assert f"type=bind,source={secrets},target=/run/host/JWT_FILE,readonly" in given
    assert (said, [word for word in given if word.endswith((":z", ",z"))]) == ("", [])


# --- the log driver ---


def options(given: list[str], name: str) -> list[str]:
    """The values of an option of `docker run`."""
    return [value for option, value in itertools.pairwise(given) if option == name]


def test_the_log_goes_to_dockers_local_driver_unless_the_settings_name_another(run: Run, tmp_path: Path) -> None:
    given, _ = run(tmp_path / "jwt")
    assert (options(given, "--log-driver"), options(given, "--log-opt")) == (["local"], [])


@pytest.mark.parametrize(
    "more, driver, logged",
    [
        ("LOG_DRIVER=journald\n", "journald", []),
        ("LOG_DRIVER=json-file\n", "json-file", ["max-size=20m", "max-file=5"]),
        ("LOG_DRIVER=json-file\nDOCKER_OPTIONS=--log-opt max-size=50m\n", "json-file", ["max-size=50m"]),
        (
            "LOG_DRIVER=splunk\nDOCKER_OPTIONS= --log-opt splunk-url=https://s.example:8088  --log-opt splunk-token=a*b \n",
            "splunk",
            ["splunk-url=https://s.example:8088", "splunk-token=a*b"],
        ),
    ],
)
def test_a_log_driver_and_dockers_options_are_handed_to_docker_alone(
    run: Run, tmp_path: Path, more: str, driver: str, logged: list[str]
) -> None:
    given, _ = run(tmp_path / "jwt", more=more)
    assert (options(given, "--log-driver"), options(given, "--log-opt")) == ([driver], logged)
    assert given[-1] == "ts-agent-http-relay:latest"
    (file,) = options(given, "--env-file")
    assert file.endswith("/env")
    assert "LOG_DRIVER" not in (tmp_path / "env").read_text(encoding="utf-8")


def test_the_report_of_the_check_goes_to_no_log_driver_and_the_driver_is_tried_before(run: Run, tmp_path: Path) -> None:
    """A site's log system takes every line for one of the agent's."""
    run(tmp_path / "jwt", more="LOG_DRIVER=syslog\nDOCKER_OPTIONS=--log-opt tag=x\n")
    tried, checked, started = (tmp_path / "noted.all").read_text(encoding="utf-8").splitlines()
    drivers = [options(words.split(), "--log-driver")[-1] for words in (tried, checked, started)]
    assert drivers == ["syslog", "none", "syslog"]
    assert tried.endswith(" -c ") and checked.endswith(" check --ignore-running")


@pytest.mark.parametrize(
    "more, words",
    [
        ("DOCKER_OPTIONS=max-size=50m\n", "DOCKER_OPTIONS must begin with an option"),
        ("LOG_DRIVER=json file\n", "LOG_DRIVER is not the name"),
        ("DOCKER_OPTIONS=--log-driver=syslog\n", "use LOG_DRIVER"),
        ("DOCKER_OPTIONS=--label x=y --log-driver syslog\n", "use LOG_DRIVER"),
    ],
)
def test_what_docker_would_misunderstand_is_refused(run: Run, tmp_path: Path, more: str, words: str) -> None:
    _, said = run(tmp_path / "jwt", more=more, code=2)
    assert words in said
