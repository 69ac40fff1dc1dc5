"""Whether the image is complete and its bill of materials is correct."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from typing import Any

import pytest

import relay_agent
from tests.image.engine import DIST, MARK, ROOT, docker, image

Json = dict[str, Any]
SBOM = "usr/share/relay-agent/sbom.cdx.json"

# Prints which files of the image lack a library, and which extension modules cannot be imported.
LOADS = """
import ctypes, glob, importlib, json, os, subprocess, sys, warnings
warnings.simplefilter("ignore")
loader = glob.glob("/lib64/ld-linux*.so.*")[0]
programs, missing, modules, broken = [], [], [], []
for directory, names, files in os.walk("/"):
    names[:] = [name for name in names if os.path.join(directory, name) not in ("/proc", "/sys", "/dev")]
    for path in (os.path.join(directory, name) for name in files):
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            if file.read(4) != b"\\x7fELF":
                continue
        programs.append(path)
        done = subprocess.run([loader, "--list", path], capture_output=True, text=True)
        if "not found" in done.stdout + done.stderr:
            missing.append([path, done.stdout + done.stderr])
for place in [path for path in sys.path if os.path.isdir(path)]:
    for path in glob.glob(place + "/**/*.so", recursive=True):
        name = os.path.relpath(path, place).split(".")[0].replace("/", ".")
        if "-packages" in name or "lib-dynload" in name:
            continue
        modules.append(name)
        try:
            # PyCryptodome's are libraries that it opens by itself.
            ctypes.CDLL(path) if name.startswith("Crypto.") else importlib.import_module(name)
        except BaseException as error:
            broken.append([name, repr(error)])
json.dump({"programs": programs, "missing": missing, "modules": modules, "broken": broken}, sys.stdout)
"""


@pytest.fixture(scope="module")
def contents(files: tarfile.TarFile) -> dict[str, bytes]:
    """The image's files, links left out."""
    return {member.name: files.extractfile(member).read() for member in files if member.isfile()}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def bill() -> Json:
    """The bill of materials as it is handed out."""
    read: Json = json.loads(next(DIST.glob("*-v*.sbom.cdx.json")).read_text(encoding="utf-8"))
    return read


def debian(bill: Json) -> set[str]:
    """The names of its Debian packages."""
    return {part["name"] for part in bill["components"] if part["purl"].startswith("pkg:deb/")}


def inside(script: str, *arguments: str, kind: str = "", program: str = "sh") -> str:
    """What a script prints in a container of the image."""
    options = ["--rm", "--label", MARK, "--network", "none", "--read-only", "--tmpfs", "/tmp", "--entrypoint", program]
    return docker("run", *options, image(kind), "-c", script, *arguments).stdout


@pytest.mark.parametrize("kind", ["", "-sandbox"])
def test_no_library_is_missing_and_every_extension_module_can_be_imported(kind: str) -> None:
    found = json.loads(inside(LOADS, kind=kind, program="python3"))
    assert (found["missing"], found["broken"]) == ([], [])
    assert {"_ssl", "_sqlite3", "_ctypes", "pydantic_core._pydantic_core", "Crypto.Cipher._raw_aes"} <= set(found["modules"])
    names = {path.rpartition("/")[2] for path in found["programs"]}
    assert {"busybox", "tini", "ping", "libssl.so.3", "libcrypto.so.3", "libgcc_s.so.1"} <= names
    assert len(found["modules"]) > 70


def test_no_library_came_along_for_the_programs_that_busybox_stands_for(contents: dict[str, bytes]) -> None:
    libraries = {name.rpartition("/")[2].split(".so")[0] for name in contents if ".so" in name}
    assert "libssl" in libraries
    assert libraries & {"libselinux", "libpcre2-8", "libacl", "libattr", "libtinfo", "libreadline", "libncursesw"} == set()


def test_the_bill_names_every_version_of_the_lock_and_no_other(bill: Json) -> None:
    own = bill["metadata"]["component"]
    assert (own["type"], own["name"], own["version"]) == ("application", "tdp-relay-agent", relay_agent.__version__)
    lock = (ROOT / "docker" / "requirements.lock").read_text(encoding="utf-8")
    locked = {f"pkg:pypi/{name}@{version}" for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock, flags=re.MULTILINE)}
    assert {part["purl"] for part in bill["components"] if part["purl"].startswith("pkg:pypi/")} == locked


def test_it_has_the_form_of_cyclonedx(bill: Json) -> None:
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", bill["metadata"]["timestamp"])
    parts = [bill["metadata"]["component"], *bill["components"]]
    assert len({part["bom-ref"] for part in parts}) == len({part["purl"] for part in parts}) == len(parts)
    for part in parts:
        assert part.keys() - {"cpe"} == {"type", "bom-ref", "name", "version", "licenses", "purl"}, part
        assert re.fullmatch(r"pkg:[a-z]+/\S+@\S+", part["purl"])


def test_every_part_has_its_licence(bill: Json) -> None:
    parts = [bill["metadata"]["component"], *bill["components"]]
    for part in parts:
        # Several licences, or one expression: CycloneDX allows no mixture.
        assert part["licenses"] and ("expression" not in part["licenses"][0] or len(part["licenses"]) == 1), part
        for reported in part["licenses"]:
            words = [reported["expression"]] if "expression" in reported else list(reported["license"].values())
            assert len(words) == 1 and words[0].strip() and words[0] != "not stated", part
    licences = {part["name"]: part["licenses"] for part in parts}
    assert licences["tdp-relay-agent"] == [{"license": {"id": "Apache-2.0"}}]
    assert licences["requests"] == [{"license": {"id": "Apache-2.0"}}]
    assert licences["structlog"] == [{"expression": "MIT OR Apache-2.0"}]
    assert licences["tini"] == [{"license": {"id": "MIT"}}]
    assert licences["busybox"] == [{"license": {"name": "see /usr/share/doc/busybox/copyright"}}]


def test_what_debian_says_of_each_package_can_be_read_in_the_image(bill: Json) -> None:
    script = 'for name do cat "/usr/share/doc/$name/copyright" | wc -c; done'
    sizes = inside(script, "sh", *sorted(debian(bill))).split()
    assert len(sizes) == len(debian(bill)) and min(map(int, sizes)) > 100


def test_scanners_find_the_same_packages_in_the_image(bill: Json, contents: dict[str, bytes]) -> None:
    status = contents["var/lib/dpkg/status"].decode()
    listed = dict(re.findall(r"^Package: (\S+)$(?:\n.+)*?\nVersion: (\S+)$", status, flags=re.MULTILINE))
    assert listed == {part["name"]: part["version"] for part in bill["components"] if part["purl"].startswith("pkg:deb/")}
    assert json.loads(contents[SBOM]) == bill


@pytest.fixture(scope="module")
def sums() -> dict[str, set[str]]:
    """Of the base's packages, the checksums that Debian has of their files."""
    base = (ROOT / "build" / "base-image").read_text(encoding="utf-8").strip()
    script = "cd /var/lib/dpkg/info && grep -v usr/share/doc *.md5sums"
    listing = docker("run", "--rm", "--label", MARK, "--network", "none", "--entrypoint", "sh", base, "-c", script).stdout
    found: dict[str, set[str]] = {}
    for name, checksum in re.findall(r"^([^:\n]+?)(?::\w+)?\.md5sums:([0-9a-f]{32}) ", listing, flags=re.MULTILINE):
        found.setdefault(name, set()).add(checksum)
    return found


def test_of_every_package_it_names_a_file_is_in_the_image_and_of_every_file_the_package_is_named(
    bill: Json, contents: dict[str, bytes], sums: dict[str, set[str]]
) -> None:
    """Whatever is at the path of a package's file: busybox's links do at those of coreutils and dash."""
    held = {hashlib.md5(content).hexdigest() for content in contents.values() if content}
    # Debian has no checksum of links, of generated files and of files that the administrator may change.
    without_sum = {"python3-minimal", "ca-certificates", "media-types"}
    assert {name for name in debian(bill) & sums.keys() if not sums[name] & held} <= without_sum
    named = set().union(*(sums.get(name, set()) for name in debian(bill)))
    known = set().union(*sums.values())
    programs = {hashlib.md5(content).hexdigest(): name for name, content in contents.items() if content.startswith(b"\x7fELF")}
    assert {name for checksum, name in programs.items() if checksum in known - named} == set()
    assert {"busybox", "tini", "iputils-ping", "ca-certificates", "base-files", "libc6", "libgcc-s1"} <= debian(bill)
    assert debian(bill) & {"coreutils", "dash", "findutils", "grep", "gzip", "sed", "tar", "util-linux", "ncurses-bin", "hostname"} == set()
    python = {name for name in debian(bill) if name.startswith("python3")}
    assert bool(python) != ("python" in {part["name"] for part in bill["components"]})
