"""Files compared with an image's manifest, and with a package's RECORD."""

from __future__ import annotations

import hashlib
from pathlib import Path

from relay_agent.cli.qualification.checksums import compare_with_manifest, compare_with_record, is_editable
from tests.unit.cli.qualification.scenes import installed


def image(root: Path) -> Path:
    """The root of an image with three files, and its manifest."""
    files = {"usr/bin/python3": b"\x7fELF", "opt/relay-agent/lib/a.py": b"a", "opt/relay-agent/lib/b.py": b"b"}
    lines = []
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    (root / "manifest").write_text("".join(lines), encoding="utf-8")
    return root / "manifest"


def test_an_unchanged_image_is_the_same_as_its_manifest(tmp_path: Path) -> None:
    compared = compare_with_manifest(image(tmp_path), tmp_path)
    assert compared.same
    assert str(compared) == "3 files, all with the listed SHA-256"


def test_a_changed_a_missing_and_an_unlisted_file_of_the_image_are_found(tmp_path: Path) -> None:
    manifest = image(tmp_path)
    (tmp_path / "usr/bin/python3").write_bytes(b"\x7fELF of somebody else")
    (tmp_path / "opt/relay-agent/lib/a.py").unlink()
    (tmp_path / "opt/relay-agent/lib/more.py").write_bytes(b"more")
    compared = compare_with_manifest(manifest, tmp_path)
    assert not compared.same
    assert (compared.changed, compared.missing, compared.unlisted) == (
        ("usr/bin/python3",),
        ("opt/relay-agent/lib/a.py",),
        ("opt/relay-agent/lib/more.py",),
    )
    assert str(compared) == (
        "3 files compared; 1 changed: usr/bin/python3; 1 missing or unreadable: opt/relay-agent/lib/a.py;"
        " 1 not listed: opt/relay-agent/lib/more.py"
    )


def test_an_empty_manifest_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "manifest").write_text("", encoding="utf-8")
    assert not compare_with_manifest(tmp_path / "manifest", tmp_path).same


def test_an_unchanged_package_is_the_same_as_its_record(tmp_path: Path) -> None:
    compared = compare_with_record(installed(tmp_path))
    assert compared is not None and compared.same and compared.compared == 3


def test_a_changed_a_missing_and_an_unlisted_file_of_a_package_are_found(tmp_path: Path) -> None:
    package = installed(tmp_path)
    (tmp_path / "package_a/module.py").write_bytes(b"x = 2\n")
    (tmp_path / "package_a/__init__.py").unlink()
    (tmp_path / "package_a/more.py").write_bytes(b"")
    compared = compare_with_record(package)
    assert compared is not None and not compared.same
    assert (compared.changed, compared.missing, compared.unlisted) == (
        ("package_a/module.py",),
        ("package_a/__init__.py",),
        ("package_a/more.py",),
    )


def test_a_directory_of_sources_and_a_package_without_a_record_have_no_checksums(tmp_path: Path) -> None:
    sources = installed(tmp_path / "sources", editable=True)
    assert is_editable(sources) and compare_with_record(sources) is None
    bare = installed(tmp_path / "bare", record=False)
    assert not is_editable(bare) and compare_with_record(bare) is None
