"""run.sh and verify.sh, run from the delivery as an administrator does."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from relay_agent.sandbox.server import Sandbox
from relay_agent.sandbox.target import DemoTarget
from tests.image.administrator import Administrator
from tests.image.engine import DIST, DOCKER, MARK, ROOT, docker, image, inspect
from tests.image.test_guide import guides_command


def test_run_sh_starts_the_agent_confined_and_it_relays(administrator: Administrator, demo_target: DemoTarget) -> None:
    administrator.run()
    container = administrator.container
    assert container.get(f"{demo_target.http_url}/json").status == "SUCCESS"
    found = inspect(container.name)
    host = found["HostConfig"]
    assert found["Config"]["Image"] == image()
    assert (host["NetworkMode"], host["RestartPolicy"]["Name"], host["ReadonlyRootfs"]) == ("host", "always", True)
    assert (host["CapDrop"], host["SecurityOpt"], host["Memory"]) == (["ALL"], ["no-new-privileges"], 1 << 30)
    assert host["LogConfig"]["Type"] == "local"
    assert host["Ulimits"] == [{"Name": "core", "Hard": 0, "Soft": 0}]
    assert found["Config"]["StopTimeout"] == 40
    assert [(mount["Name"], mount["Destination"]) for mount in found["Mounts"] if mount["Type"] == "volume"] == [
        (f"{container.name}-state", "/var/lib/relay-agent")
    ]


def test_run_sh_passes_only_what_is_set(administrator: Administrator) -> None:
    administrator.run()
    given = {entry.partition("=")[0] for entry in inspect(administrator.container.name)["Config"]["Env"]}
    own = {entry.partition("=")[0] for entry in inspect(image())["Config"]["Env"]}
    assert given - own == {"API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT", "AWS_ENDPOINT_URL", "no_proxy", "RELAY_ADMIN_ADDR"}


def test_a_second_run_replaces_the_container_and_keeps_the_state(administrator: Administrator, demo_target: DemoTarget) -> None:
    administrator.run()
    container = administrator.container
    command = container.get(f"{demo_target.http_url}/json")
    before = inspect(container.name)["Id"]
    administrator.run()
    assert inspect(container.name)["Id"] != before
    assert command.id in container.exec("relay-agent", "commands", "--json").stdout
    assert docker("ps", "-aq", "--filter", f"name={container.name}").stdout.count("\n") == 1


def test_run_sh_in_place_of_the_guides_command_goes_on_with_the_state_of_that_container(
    administrator: Administrator, settings: dict[str, str], demo_target: DemoTarget
) -> None:
    container = administrator.container
    docker(*guides_command(container.name, settings))
    container.ready()
    command = container.get(f"{demo_target.http_url}/json")
    (before,) = inspect(container.name)["Mounts"]
    done = administrator.call("run.sh")
    assert (done.returncode, before["Name"] in done.stdout) == (0, True), done.stderr
    administrator.run()  # And again: the next run does not leave it behind either.
    assert [mount["Name"] for mount in inspect(container.name)["Mounts"] if mount["Type"] == "volume"] == [before["Name"]]
    assert command.id in container.exec("relay-agent", "commands", "--json").stdout
    docker("rm", "--force", container.name)
    docker("volume", "rm", before["Name"])


def test_settings_that_cannot_work_are_found_before_the_running_agent_is_touched(
    administrator: Administrator, settings: dict[str, str], sandbox: Sandbox
) -> None:
    administrator.run()
    name = administrator.container.name
    before = inspect(name)
    for changes, said in (
        ({"RELAY_WORKERS": "many"}, ("cannot start with these settings", "configuration: invalid: RELAY_WORKERS", "cause", "cure")),
        ({"JWT": sandbox.issue_jwt(-60)}, ("cannot start with these settings", "token: ", "the JWT expired on", "create a new token")),
        ({"API_TARGET": "http://127.0.0.1:9"}, ("would not become ready", "platform: ", "ECONNREFUSED", f"docker stop -t 40 {name}")),
    ):
        administrator.fill_in({**settings, **changes})
        done = administrator.call("run.sh")
        assert (done.returncode, [text for text in said if text not in done.stderr]) == (2, []), done.stdout + done.stderr
        assert f"The container {name} still runs with its previous settings" in done.stderr
        assert done.stderr.count("cause") == done.stderr.count("cure")
        (kept,) = administrator.delivery.glob("failed-start-*.log")
        assert (str(kept) in done.stderr, kept.stat().st_mode & 0o777) == (True, 0o600)
        kept.unlink()
    after = inspect(name)
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert docker("ps", "-aq", "--filter", f"name={name}").stdout.count("\n") == 1


def test_a_first_start_that_cannot_work_leaves_neither_container_nor_volume_but_its_report(
    administrator: Administrator, settings: dict[str, str]
) -> None:
    name = administrator.container.name
    docker("volume", "rm", f"{name}-state")
    administrator.fill_in({**settings, "RELAY_WORKERS": "many"})
    done = administrator.call("run.sh")
    assert (done.returncode, "still runs with its previous settings" in done.stderr) == (2, False), done.stderr
    (kept,) = administrator.delivery.glob("failed-start-*.log")
    assert "RELAY_WORKERS" in kept.read_text(encoding="utf-8")
    assert docker("ps", "-aq", "--filter", f"name={name}").stdout == ""
    assert docker("volume", "inspect", f"{name}-state", check=False).returncode != 0


def test_a_certificate_that_the_agent_may_not_read_is_named_by_its_path_on_this_host(
    administrator: Administrator, settings: dict[str, str], tmp_path: Path
) -> None:
    directory = tmp_path / "certificates & more"
    directory.mkdir()
    file = directory / "lab-ca.pem"
    file.write_text(make_ca(), encoding="utf-8")
    file.chmod(0o600)
    administrator.fill_in({**settings, "RELAY_CA_FILE": str(file)})
    unreadable = administrator.call("run.sh")
    assert (unreadable.returncode, f"let user 10001 read it: chmod 0644 {file}" in unreadable.stderr) == (2, True), unreadable.stderr
    assert "/run/host" not in unreadable.stderr
    file.chmod(0o644)
    directory.chmod(0o700)
    closed = administrator.call("run.sh")
    assert (closed.returncode, f"let user 10001 enter its directory: chmod a+x {directory}" in closed.stderr) == (2, True), closed.stderr
    directory.chmod(0o755)
    administrator.run()
    remarked = administrator.call("verify.sh")
    assert f"in {file} (RELAY_CA_FILE) expires on" in remarked.stdout and "/run/host" not in remarked.stdout, remarked.stdout


def make_ca() -> str:
    """A CA that ends in five days."""
    done = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "/dev/null",
            "-subj",
            "/CN=Lab",
            "-days",
            "5",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_what_ends_soon_is_logged_at_once_and_remarked(administrator: Administrator, settings: dict[str, str], sandbox: Sandbox) -> None:
    administrator.fill_in({**settings, "JWT": sandbox.issue_jwt(5 * 86400)})
    administrator.run()
    assert administrator.container.wait_log("token-ends-soon")["days"] == 4
    done = administrator.call("verify.sh")
    assert done.returncode == 0 and re.search(r"^- +expiry +the JWT expires on .*, in 4 days", done.stdout, re.MULTILINE), done.stdout


def test_two_containers_with_one_agent_id_are_named(administrator: Administrator, settings: dict[str, str]) -> None:
    administrator.run()
    first = administrator.container.name
    second = f"{first}-twin"
    try:
        done = administrator.call("run.sh", RELAY_CONTAINER_NAME=second)
        assert done.returncode == 0, done.stderr
        assert f"the containers {second} and {first} have the same AGENT_ID" in done.stderr
        assert f"Container: {second} (RELAY_CONTAINER_NAME in the environment)" in done.stdout
        looked = administrator.call("verify.sh")
        assert re.search(rf"^- +agent-id +{first} and {second} have the same AGENT_ID", looked.stdout, re.MULTILINE), looked.stdout
    finally:
        docker("rm", "--force", second)
        docker("volume", "rm", f"{second}-state")
    assert "have the same AGENT_ID" not in administrator.call("verify.sh").stdout


def test_a_name_with_relay_takes_precedence_and_is_no_setting_of_the_agent(administrator: Administrator, settings: dict[str, str]) -> None:
    name = administrator.container.name
    administrator.fill_in({**settings, "RELAY_CONTAINER_NAME": name})
    done = administrator.call("run.sh", CONTAINER_NAME="left-over-in-this-shell")
    assert done.returncode == 0 and f"Container: {name} (RELAY_CONTAINER_NAME in {administrator.delivery}/agent.env)" in done.stdout, (
        done.stdout
    )
    given = [entry.partition("=")[0] for entry in inspect(name)["Config"]["Env"]]
    assert "RELAY_CONTAINER_NAME" not in given
    file = administrator.delivery / "agent.env"
    checked = docker("run", "--rm", "--label", MARK, "--net=host", "--env-file", str(file), image(), "check")
    assert "RELAY_CONTAINER_NAME" not in checked.stdout


def test_secrets_from_files_are_not_in_docker_inspect_and_a_changed_one_is_taken(
    administrator: Administrator, settings: dict[str, str], tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets: the lab's"
    secrets.mkdir()
    key = docker("run", "--rm", "--label", MARK, image(), "keygen").stdout.strip()
    for name, text in (("jwt", settings["JWT"]), ("key", key)):
        (secrets / name).write_text(text, encoding="utf-8")
        os.chown(secrets / name, 10001, 10001)
        (secrets / name).chmod(0o400)
    for directory in (tmp_path, *tmp_path.parents[:3]):
        if directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o055)
    plain = {name: value for name, value in settings.items() if name != "JWT"}
    administrator.fill_in({**plain, "JWT_FILE": str(secrets / "jwt"), "SECURE_COMMAND_KEY_FILE": str(secrets / "key")}, without=("JWT",))
    administrator.run()
    reported = json.dumps(inspect(administrator.container.name)) + administrator.container.output()
    assert settings["JWT"] not in reported and key not in reported
    assert administrator.call("verify.sh").returncode == 0
    fresh = secrets / "jwt.new"
    fresh.write_text("changed", encoding="utf-8")
    os.chown(fresh, 10001, 10001)
    fresh.rename(secrets / "jwt")
    assert administrator.container.exec("sh", "-c", "cat /run/host/JWT_FILE/jwt").stdout == "changed"


def test_a_secret_behind_a_link_that_leads_elsewhere_is_mounted_too(
    administrator: Administrator, settings: dict[str, str], tmp_path: Path
) -> None:
    real, link = tmp_path / "real" / "token", tmp_path / "links" / "jwt"
    for path in (real, link):
        path.parent.mkdir()
    real.write_text(settings["JWT"], encoding="utf-8")
    os.chown(real, 10001, 10001)
    link.symlink_to("../real/token")
    for directory in (real.parent, link.parent, tmp_path, *tmp_path.parents[:3]):
        if directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o055)
    administrator.fill_in({**{name: value for name, value in settings.items() if name != "JWT"}, "JWT_FILE": str(link)}, without=("JWT",))
    administrator.run()


def test_a_line_that_is_no_setting_is_named_by_its_number(administrator: Administrator, settings: dict[str, str]) -> None:
    administrator.fill_in(settings)
    file = administrator.delivery / "agent.env"
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}\nexport RELAY_WORKERS=8\ncanary-secret\n", encoding="utf-8")
    done = administrator.call("run.sh")
    count = len(text.splitlines())
    assert (done.returncode, f"line {count + 2} is not a setting" in done.stderr, f"line {count + 3} is not a setting" in done.stderr) == (
        2,
        True,
        True,
    )
    assert "canary" not in done.stderr + done.stdout


def test_run_sh_refuses_what_must_be_put_right_first_and_names_the_cure(administrator: Administrator, settings: dict[str, str]) -> None:
    shutil.copy2(DIST / "agent.env", administrator.delivery / "agent.env")
    untouched = administrator.call("run.sh")
    assert untouched.returncode == 2
    for name in ("API_TARGET", "ORG_SLUG", "AGENT_ID", "JWT"):
        assert f"{name} is still a placeholder" in untouched.stderr
    administrator.fill_in(settings)
    (administrator.delivery / "agent.env").chmod(0o644)
    assert "chmod 0600" in administrator.call("run.sh").stderr
    administrator.fill_in({**settings, "JWT_FILE": "/nowhere/jwt"})
    both = administrator.call("run.sh")
    assert (both.returncode, "both set" in both.stderr, "no file /nowhere/jwt" in both.stderr) == (2, True, True)
    administrator.fill_in(settings)
    comma = administrator.delivery / "with, comma"
    comma.mkdir()
    (comma / "ca.pem").touch()
    administrator.fill_in({**settings, "RELAY_CA_FILE": f"{comma}/ca.pem"})
    unmountable = administrator.call("run.sh")
    assert (unmountable.returncode, "RELAY_CA_FILE: Docker cannot mount a path with a comma" in unmountable.stderr) == (2, True)
    administrator.fill_in(settings)
    misnamed = administrator.call("run.sh", CONTAINER_NAME="../agent")
    assert (misnamed.returncode, "CONTAINER_NAME" in misnamed.stderr) == (2, True)
    absent = administrator.call("run.sh", IMAGE_NAME="ts-agent-http-relay:none")
    assert (absent.returncode, "docker load -i" in absent.stderr) == (2, True)
    lost = administrator.call("run.sh", ENV_FILE="/nowhere/agent.env")
    assert (lost.returncode, "there is no file /nowhere/agent.env" in lost.stderr) == (2, True)
    assert docker("ps", "-aq", "--filter", f"name={administrator.container.name}").stdout == ""


@pytest.mark.parametrize(
    ("version", "taken"), [("20.10.20", False), ("19.03.15", False), ("20.10.21", True), ("28.2.2", True), ("20.10.24+dfsg1", True)]
)
def test_run_sh_refuses_a_docker_that_is_too_old(administrator: Administrator, tmp_path: Path, version: str, taken: bool) -> None:
    shim = tmp_path / "bin" / "docker"
    shim.write_text(f'#!/bin/sh\n[ "$1" != version ] || {{ echo {version}; exit 0; }}\nexec {DOCKER} "$@"\n')
    done = administrator.call("run.sh", IMAGE_NAME="ts-agent-http-relay:none")
    assert done.returncode == 2
    assert ("too old" in done.stderr) is not taken


def test_env_file_and_names_are_honoured_in_the_file_too(administrator: Administrator, settings: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other.env"
    lines = [
        f"CONTAINER_NAME={administrator.container.name}",
        *(f"{name}={value}" for name, value in settings.items()),
        f"IMAGE_NAME={image()}",
    ]
    other.write_text("\r\n".join(lines) + "\r\n", encoding="utf-16")  # As Windows editors write it.
    other.chmod(0o600)
    refused = administrator.call("run.sh", ENV_FILE=str(other), CONTAINER_NAME="")
    assert (refused.returncode, "Save it as UTF-8" in refused.stderr) == (2, True)
    other.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
    done = administrator.call("run.sh", ENV_FILE=str(other), CONTAINER_NAME="")
    assert done.returncode == 0, done.stderr
    assert inspect(administrator.container.name)["State"]["Running"]
    looked = administrator.call("verify.sh", ENV_FILE=str(other), CONTAINER_NAME="")
    assert f"GOOD: {administrator.container.name}" in looked.stdout, looked.stdout


def test_verify_sh_ends_with_good_when_all_is_well_and_with_bad_when_it_is_stopped(administrator: Administrator) -> None:
    administrator.run()
    good = administrator.call("verify.sh")
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.splitlines()[-1].startswith("GOOD: ")
    assert (DIST / "IMAGE_ID").read_text(encoding="utf-8").strip() in good.stdout
    administrator.container.stop()
    bad = administrator.call("verify.sh")
    assert bad.returncode == 1
    assert bad.stdout.splitlines()[-1].startswith("BAD: running")
    assert bad.stdout.count("BAD: ") == 1


def test_verify_sh_says_when_the_platform_refuses_the_agent(
    administrator: Administrator, settings: dict[str, str], sandbox: Sandbox
) -> None:
    administrator.fill_in({**settings, "API_TARGET": "http://127.0.0.1:9"})
    done = administrator.call("run.sh")
    assert done.returncode == 0 and "has not answered yet" in done.stdout
    bad = administrator.call("verify.sh")
    assert bad.returncode == 1
    assert re.search(r"BAD +init", bad.stdout) and re.search(r"BAD +online", bad.stdout)


def test_docker_itself_reads_a_file_of_a_windows_editor(tmp_path: Path) -> None:
    """The unit leaves that to it."""
    file = tmp_path / "agent.env"
    file.write_text("API_TARGET=https://api.lab.example\r\nORG_SLUG=acme\r\n", encoding="utf-8-sig")
    reported = docker("run", "--rm", "--label", MARK, "--env-file", str(file), "--entrypoint", "env", image()).stdout.splitlines()
    assert {"API_TARGET=https://api.lab.example", "ORG_SLUG=acme"} <= set(reported)


def test_angle_brackets_within_a_value_are_part_of_it(administrator: Administrator, settings: dict[str, str]) -> None:
    proxy = "http://relay:p<a>ss@127.0.0.1:9"
    administrator.fill_in({**settings, "http_proxy": proxy})
    administrator.run()
    assert f"http_proxy={proxy}" in inspect(administrator.container.name)["Config"]["Env"]
    administrator.container.ready()


def test_verify_sh_does_not_ask_a_container_that_is_paused(administrator: Administrator) -> None:
    administrator.run()
    docker("pause", administrator.container.name)
    (administrator.delivery / "logs.md").unlink()  # Earlier output does not matter.
    done = administrator.call("verify.sh")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"BAD: running: {administrator.container.name} is paused"
    assert f"cure: docker unpause {administrator.container.name}" in done.stdout
    docker("unpause", administrator.container.name)
    assert administrator.call("verify.sh").returncode == 0


def test_verify_sh_compares_every_file_of_the_delivery_that_is_there(administrator: Administrator) -> None:
    administrator.run()
    sums = (administrator.delivery / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    tarballs = [line for line in sums if line.endswith(".tar.gz")]
    whole = administrator.call("verify.sh")
    assert whole.returncode == 0
    assert {"agent.env", ".env", "run.sh", "compose.yml", "ts-agent-http-relay.service"} <= {line.split()[1] for line in sums}
    assert re.search(rf"^ok +files +{len(sums) - len(tarballs) - 1} of", whole.stdout, re.MULTILINE), whole.stdout
    assert re.search(r"^- +files +changed since the delivery, as expected: agent.env$", whole.stdout, re.MULTILINE)
    assert re.search(r"^- +files +missing: ts-agent-http-relay-sandbox-v\S+ ts-agent-http-relay-v\S+$", whole.stdout, re.MULTILINE)
    (administrator.delivery / "SHA256SUMS").write_bytes("".join(f"{line}\r\n" for line in sums).encode())
    assert administrator.call("verify.sh").stdout.count("missing:") == whole.stdout.count("missing:") == 1
    assert administrator.call("verify.sh").returncode == 0
    for name in ("run.sh", "compose.yml", "troubleshooting.md"):
        file = administrator.delivery / name
        was = file.read_bytes()
        file.write_bytes(was + b"# changed\n")
        changed = administrator.call("verify.sh")
        assert (changed.returncode, f"BAD: checksum: {name} does not match SHA256SUMS" in changed.stdout) == (1, True), changed.stdout
        file.write_bytes(was)
    with (administrator.delivery / ".env").open("a") as text:  # The administrator may change it, but so may somebody else.
        text.write("# changed\n")
    edited = administrator.call("verify.sh")
    assert (edited.returncode, "since the delivery: .env, which decides what compose starts." in edited.stdout) == (0, True), edited.stdout


def test_verify_sh_checks_this_deliverys_tarball_and_ignores_others(administrator: Administrator) -> None:
    administrator.run()
    tarball = next(DIST.glob("ts-agent-http-relay-v*.tar.gz"))
    (administrator.delivery / tarball.name).symlink_to(tarball)
    others = [f"ts-agent-http-relay-v{version}.tar.gz" for version in ("0.0.9", "0.9.0", "0.10.0")]
    for name in others:
        (administrator.delivery / name).write_bytes(b"another delivery's")
    done = administrator.call("verify.sh")
    assert done.returncode == 0, done.stdout
    assert re.search(rf"^ok +checksum +{re.escape(tarball.name)}, sha256", done.stdout, re.MULTILINE)
    assert re.findall(r"^- +checksum +(\S+) is not part of this delivery", done.stdout, re.MULTILINE) == others
    (administrator.delivery / "SHA256SUMS").unlink()
    alone = administrator.call("verify.sh").stdout
    assert (
        re.findall(r"^BAD +checksum +there is no SHA256SUMS beside (\S+)$", alone, re.MULTILINE)
        == sorted([*others[:1], tarball.name]) + others[1:]
    )


def test_verify_sh_compares_the_image_with_the_delivered_one(administrator: Administrator) -> None:
    administrator.run()
    (administrator.delivery / "IMAGE_ID").write_text("sha256:" + "0" * 64 + "\n", encoding="utf-8")
    bad = administrator.call("verify.sh")
    assert bad.returncode == 1 and "is not the delivered" in bad.stdout


def test_verify_sh_refuses_a_tarball_that_was_tampered_with(administrator: Administrator) -> None:
    tarball = next(DIST.glob("ts-agent-http-relay-v*.tar.gz"))
    there = administrator.delivery / tarball.name
    shutil.copy2(tarball, there)
    assert re.search(r"^ok +checksum", administrator.call("verify.sh").stdout, flags=re.MULTILINE)
    with there.open("r+b") as file:
        file.seek(there.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    bad = administrator.call("verify.sh")
    assert bad.returncode == 1
    assert re.search(r"^BAD +checksum .*does not match SHA256SUMS", bad.stdout, flags=re.MULTILINE)
    there.write_bytes(gzip.compress(b"another image"))
    sums = administrator.delivery / "SHA256SUMS"
    digest = subprocess.run(["sha256sum", there], capture_output=True, text=True, check=True).stdout.split()[0]
    sums.write_text(
        re.sub(rf"^\w+(?=  {re.escape(tarball.name)}$)", digest, sums.read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8"
    )
    other = administrator.call("verify.sh")
    assert other.returncode == 1 and "not that of IMAGE_ID" in other.stdout
    sums.write_text(
        "".join(line for line in sums.read_text(encoding="utf-8").splitlines(True) if tarball.name not in line), encoding="utf-8"
    )
    unnamed = administrator.call("verify.sh")
    assert unnamed.returncode == 1 and "SHA256SUMS lists no tarball of the image" in unnamed.stdout


def test_the_tarball_loads_as_the_image_with_the_delivered_id() -> None:
    tarball = next(DIST.glob("ts-agent-http-relay-v*.tar.gz"))
    reported = docker("load", "-i", str(tarball)).stdout
    assert f"Loaded image: {image()}" in reported
    assert inspect(image())["Id"] == (DIST / "IMAGE_ID").read_text(encoding="utf-8").strip()


def test_the_delivery_is_complete_and_its_checksums_are_right() -> None:
    names = {file.relative_to(DIST).as_posix() for file in DIST.rglob("*") if file.is_file()}
    assert {"SHA256SUMS", "IMAGE_ID", "run.sh", "verify.sh", "agent.env", "compose.yml", "ts-agent-http-relay.service"} <= names
    assert {"podman/ts-agent-http-relay.container", "kubernetes/agent.yaml", "kubernetes/ts-agent-http-relay/Chart.yaml"} <= names
    summed = {line.split()[1] for line in (DIST / "SHA256SUMS").read_text(encoding="utf-8").splitlines()}
    assert summed == names - {"SHA256SUMS"}
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=DIST, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert (DIST / "agent.env").stat().st_mode & 0o777 == 0o600
    assert ":latest" not in "".join(
        (DIST / name).read_text(encoding="utf-8") for name in names if name.endswith((".sh", ".yml", ".yaml", ".service", ".container"))
    )


@pytest.mark.parametrize("script", ["run.sh", "verify.sh"])
def test_each_script_has_its_help_and_is_plain_sh(script: str) -> None:
    done = subprocess.run([DIST / script, "--help"], capture_output=True, text=True, check=True)
    assert "Exit codes:" in done.stdout
    assert subprocess.run(["sh", "-n", DIST / script], check=False).returncode == 0
    if checker := shutil.which("shellcheck"):
        found = subprocess.run([checker, ROOT / "docker" / script], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout


def test_every_setting_of_the_template_is_one_of_the_agents() -> None:
    template = set(re.findall(r"^#?([A-Za-z_]+)=", (ROOT / "docker" / "agent.env").read_text(encoding="utf-8"), flags=re.MULTILINE))
    example = set(re.findall(r"^#?([A-Za-z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), flags=re.MULTILINE))
    # The volume fixes the state directory, and an administrator has no emulator. Some are the scripts' alone.
    of_scripts = {"LOG_DRIVER", "DOCKER_OPTIONS", "RELAY_CONTAINER_NAME", "RELAY_IMAGE_NAME"}
    assert (example - template, template - example) == ({"RELAY_STATE_DIR", "AWS_ENDPOINT_URL"}, of_scripts)
