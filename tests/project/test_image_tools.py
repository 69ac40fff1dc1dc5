"""What the tools that collect the image's files take, whose they say it is, and under which licences."""

from __future__ import annotations

import graphlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest
from botocore.loaders import Loader

import relay_agent
from relay_agent.cli.qualification.checksums import compare_with_manifest

ROOT = Path(__file__).resolve().parents[2]
STANZA = "Package: {0}\nStatus: {1}\nArchitecture: amd64\nVersion: 1.2-3+b1\nSource: {0}-source (1.2-3)\n"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules, which are in one directory inside the build."""
    monkeypatch.syspath_prepend(ROOT / "docker" / "tools")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1577836800")
    names = ("licences", "root", "packages", "install", "rootfs")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A system with usr-merge, one library with its link, and a program."""
    libraries = tmp_path / "system" / "usr" / "lib"
    libraries.mkdir(parents=True)
    (tmp_path / "system" / "lib").symlink_to("usr/lib")
    (libraries / "libx.so.1.2").write_bytes(b"\x7fELF of x")
    (libraries / "libx.so.1").symlink_to("libx.so.1.2")
    (tmp_path / "system" / "usr" / "bin").mkdir()
    (tmp_path / "system" / "usr" / "bin" / "ls").write_bytes(b"\x7fELF of ls")
    return tmp_path / "system"


@pytest.fixture
def admin(tmp_path: Path) -> Path:
    """Where dpkg keeps its lists."""
    (tmp_path / "dpkg" / "info").mkdir(parents=True)
    return tmp_path / "dpkg"


def lists(admin: Path, **packages: list[Path]) -> dict[str, dict[str, str]]:
    """Write the lists of some packages; what is known of each."""
    for name, paths in packages.items():
        (admin / "info" / f"{name}:amd64.list").write_text("/.\n" + "".join(f"{path}\n" for path in paths), encoding="utf-8")
    return {name: {"Package": name} for name in packages}


def test_what_is_taken_is_noted_with_what_its_links_lead_to(tools: dict[str, ModuleType], system: Path, tmp_path: Path) -> None:
    root = tools["root"].Root(tmp_path / "root")
    root.take(system / "lib" / "libx.so.1")
    libraries = system / "usr" / "lib"
    assert root.taken == {libraries / "libx.so.1", libraries / "libx.so.1.2"}
    assert root.at(libraries / "libx.so.1.2").read_bytes() == b"\x7fELF of x"
    assert root.at(libraries / "libx.so.1").is_symlink()


def test_what_is_made_in_the_root_is_not_taken_and_nothing_taken_is_replaced(
    tools: dict[str, ModuleType], system: Path, tmp_path: Path
) -> None:
    root = tools["root"].Root(tmp_path / "root")
    program = system / "usr" / "bin" / "ls"
    root.write(str(system / "usr" / "bin" / "made"), "text")
    root.link(str(program), "/usr/bin/busybox")
    root.take(program)
    assert root.taken == set()
    assert root.at(program).is_symlink()
    root.take(system / "usr" / "lib" / "libx.so.1.2")
    root.link(str(system / "usr" / "lib" / "libx.so.1.2"), "/usr/bin/busybox")
    assert not root.at(system / "usr" / "lib" / "libx.so.1.2").is_symlink()


def test_only_what_was_taken_has_its_libraries_asked_for(
    tools: dict[str, ModuleType], system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build's own ls needs libselinux; a link to busybox at its path does not."""
    ldd = tmp_path / "bin" / "ldd"
    ldd.parent.mkdir()
    ldd.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\necho "	libx.so.1 => {system}/lib/libx.so.1 (0x0000)"\n', encoding="utf-8")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ldd.parent}:/usr/bin:/bin")
    other = system / "usr" / "bin" / "other"
    other.write_bytes(b"\x7fELF of other")
    root = tools["root"].Root(tmp_path / "root")
    root.link(str(system / "usr" / "bin" / "ls"), "/usr/bin/busybox")
    root.take(other)
    tools["rootfs"].libraries(root)
    assert (tmp_path / "asked").read_text(encoding="utf-8").split() == [str(other)]
    assert {system / "usr" / "lib" / "libx.so.1", system / "usr" / "lib" / "libx.so.1.2"} <= root.taken


def test_a_library_that_the_base_lacks_ends_the_build(
    tools: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '	libgone.so.1 => not found'\n", encoding="utf-8")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SystemExit, match=r"needs libgone\.so\.1"):
        tools["rootfs"].linked(tmp_path)


def test_a_file_is_its_packages_whichever_way_the_list_says_its_directory(tools: dict[str, ModuleType], system: Path, admin: Path) -> None:
    known = lists(admin, libx=[system / "lib" / "libx.so.1.2"], coreutils=[system / "usr" / "bin" / "ls"])
    library = system / "usr" / "lib" / "libx.so.1.2"
    assert tools["packages"].owners({library, system / "usr" / "bin" / "mine"}, known, admin) == {library: "libx"}


def test_a_diverted_file_is_found_where_it_lies_and_the_diverters_at_its_place(
    tools: dict[str, ModuleType], system: Path, admin: Path
) -> None:
    program = system / "usr" / "bin" / "ls"
    away = program.with_name("ls.real")
    known = lists(admin, coreutils=[program], wrapper=[program])
    (admin / "diversions").write_text(f"{program}\n{away}\nwrapper\n", encoding="utf-8")
    assert tools["packages"].owners({program, away}, known, admin) == {program: "wrapper", away: "coreutils"}


def test_a_package_that_was_removed_owns_nothing(tools: dict[str, ModuleType], admin: Path) -> None:
    stanzas = STANZA.format("here", "install ok installed") + "\n" + STANZA.format("gone", "deinstall ok config-files")
    (admin / "status").write_text(stanzas, encoding="utf-8")
    assert [fields["Package"] for fields in tools["packages"].installed(admin)] == ["here"]


def test_a_debian_package_is_named_as_scanners_look_it_up(tools: dict[str, ModuleType], admin: Path) -> None:
    (admin / "status").write_text(STANZA.format("libx", "install ok installed"), encoding="utf-8")
    (fields,) = tools["packages"].installed(admin)
    part = tools["packages"].debian_package(fields, {"ID": "debian", "VERSION_ID": "12"})
    assert part["purl"] == "pkg:deb/debian/libx@1.2-3%2Bb1?arch=amd64&distro=debian-12&upstream=libx-source%401.2-3"
    assert part["licenses"] == [{"license": {"name": "not stated"}}]


@pytest.mark.parametrize(
    "fields, reported",
    [
        ([("License-Expression", "MIT"), ("License", "else")], [{"license": {"id": "MIT"}}]),
        ([("License-Expression", "MIT OR Apache-2.0")], [{"expression": "MIT OR Apache-2.0"}]),
        ([("License", "MPL-2.0"), ("Classifier", "License :: OSI Approved :: MIT License")], [{"license": {"id": "MPL-2.0"}}]),
        ([("License", "Apache License 2.0")], [{"license": {"id": "Apache-2.0"}}]),
        ([("License", "MIT OR Apache-2.0")], [{"expression": "MIT OR Apache-2.0"}]),
        ([("License", "BSD")], [{"license": {"name": "BSD"}}]),
        ([("License", "BSD"), ("Classifier", "License :: OSI Approved :: ISC License (ISCL)")], [{"license": {"id": "ISC"}}]),
        (
            [("License", "The MIT License (MIT)\n\nCopyright X"), ("Classifier", "License :: OSI Approved :: MIT License")],
            [{"license": {"id": "MIT"}}],
        ),
        (
            [
                ("License", "Dual License"),
                ("Classifier", "Topic :: Software Development"),
                ("Classifier", "License :: OSI Approved :: BSD License"),
                ("Classifier", "License :: OSI Approved :: MIT License"),
            ],
            [{"license": {"name": "BSD License"}}, {"license": {"id": "MIT"}}],
        ),
        ([("License", "\n\nOur own terms\nof use")], [{"license": {"name": "Our own terms"}}]),
        ([], [{"license": {"name": "not stated"}}]),
    ],
)
def test_a_distributions_licence_is_what_its_metadata_plainly_says(
    tools: dict[str, ModuleType], fields: list[tuple[str, str]], reported: list[object]
) -> None:
    metadata = Message()
    for name, value in fields:
        metadata[name] = value
    assert tools["licences"].of_distribution(metadata) == reported


MACHINE_READABLE = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: x

Files: *
Copyright: somebody
License: Expat

Files: old/*
Copyright: somebody
License: GPL-2+ or MIT
 with a text below

Files: debian/*
Copyright: somebody
License: gpl-2+

License: GPL-2+
 The text.
 .
 License: is a word of it

License: never-used
 Another text.
"""


def test_a_packages_licences_are_those_of_its_files(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    file = tmp_path / "copyright"
    file.write_text(MACHINE_READABLE, encoding="utf-8")
    assert tools["licences"].of_debian(file) == [
        {"license": {"id": "GPL-2.0-or-later"}},
        {"license": {"id": "MIT"}},
        {"license": {"name": "GPL-2+ or MIT"}},
    ]


def test_debians_mit_may_be_any_of_several(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    file = tmp_path / "copyright"
    file.write_text(MACHINE_READABLE.replace("Expat", "MIT").partition("Files: old")[0], encoding="utf-8")
    assert tools["licences"].of_debian(file) == [{"license": {"name": "MIT"}}]


def test_what_no_machine_reads_is_pointed_at(tools: dict[str, ModuleType], tmp_path: Path) -> None:
    file = tmp_path / "copyright"
    file.write_text("This package was put together by somebody.\n\nLicense: MIT\n", encoding="utf-8")
    assert tools["licences"].of_debian(file) == [{"license": {"name": f"see {file}"}}]


def test_an_image_built_by_hand_has_the_version_of_the_package() -> None:
    recipe = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG VERSION=(.*)$", recipe, flags=re.MULTILINE) == [relay_agent.__version__] * 2
    assert "=unknown" not in recipe


@pytest.mark.parametrize("service", ["sqs", "logs"])
def test_a_services_model_loses_its_texts_for_people_and_nothing_else(tools: dict[str, ModuleType], service: str) -> None:
    model = Loader().load_service_model(service, "service-2")
    bare = tools["rootfs"].undocumented(model)
    assert '"documentation":' not in json.dumps(bare)
    assert len(json.dumps(bare)) < len(json.dumps(model)) / 2
    assert (bare["operations"].keys(), bare["shapes"].keys()) == (model["operations"].keys(), model["shapes"].keys())
    assert {name: {**shape, "documentation": ""}.keys() for name, shape in bare["shapes"].items()} == {
        name: {**shape, "documentation": ""}.keys() for name, shape in model["shapes"].items()
    }


def test_a_member_that_is_called_documentation_stays(tools: dict[str, ModuleType]) -> None:
    assert tools["rootfs"].undocumented({"members": {"documentation": {"shape": "S", "documentation": "text"}}}) == {
        "members": {"documentation": {"shape": "S"}}
    }


def test_the_tools_import_each_other_in_one_direction(tools: dict[str, ModuleType]) -> None:
    imports = {
        name: set(re.findall(r"^\s*(?:from|import) (\w+)", inspect.getsource(tool), re.MULTILINE)) & set(tools)
        for name, tool in tools.items()
    }
    order = list(graphlib.TopologicalSorter(imports).static_order())  # raises CycleError
    assert order.index("root") < order.index("packages") < order.index("rootfs")


def test_the_manifest_lists_every_file_but_itself_as_sha256sum_reads_it(tools: dict[str, ModuleType], system: Path, tmp_path: Path) -> None:
    root = tools["root"].Root(tmp_path / "root")
    root.take(system / "lib" / "libx.so.1")
    root.write("/etc/passwd", "root:x:0:0\n")
    tools["rootfs"].manifest(root)
    manifest = root.at(tools["rootfs"].MANIFEST)
    listed = [line.split("  ", 1)[1] for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert listed == sorted(["etc/passwd", str(system / "usr/lib/libx.so.1.2").lstrip("/")])
    compared = compare_with_manifest(manifest, root.path)
    assert compared.same
    root.at("/etc/passwd").chmod(0o644)
    root.at("/etc/passwd").write_text("changed", encoding="utf-8")
    assert compare_with_manifest(manifest, root.path).changed == ("etc/passwd",)
