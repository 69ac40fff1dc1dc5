"""Files that an administrator names: what is no regular file is refused at once."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from relay_agent.core.files import check_regular, how_to_allow, read_regular


def test_a_regular_file_is_read_whole_or_in_part_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert (read_regular(tmp_path / "link"), read_regular(tmp_path / "file", 3)) == (b"content", b"con")
    check_regular(tmp_path / "link")


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "socket", "nothing"])
def test_anything_else_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = Path(os.devnull) if kind == "device" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    for ask in (read_regular, check_regular):
        with pytest.raises(OSError) as caught:
            ask(path)
        assert caught.value.strerror


def test_a_path_with_a_nul_character_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="null"):
        read_regular(tmp_path / "a\0b")


# --- a file that the agent's user may not read ---

DENIED = PermissionError(errno.EACCES, "Permission denied")


def test_a_certificate_may_be_read_by_all_and_a_secret_only_by_the_agent(tmp_path: Path) -> None:
    file, user = tmp_path / "ca.pem", os.getuid()
    assert how_to_allow(file, DENIED) == f"; let user {user} read it: chmod 0644 {file}"
    assert how_to_allow(file, DENIED, secret=True) == f"; let user {user} read it: chown {user} {file}; chmod 0400 {file}"


def test_a_directory_that_cannot_be_entered_is_named_instead_the_outermost_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    monkeypatch.setattr(os, "access", lambda path, _mode: not Path(path).is_relative_to(closed))
    assert how_to_allow(closed / "deeper" / "ca.pem", DENIED).endswith(f"enter its directory: chmod a+x {closed}")


def test_a_file_that_is_missing_has_no_such_cure(tmp_path: Path) -> None:
    assert how_to_allow(tmp_path / "ca.pem", FileNotFoundError(errno.ENOENT, "No such file or directory")) == ""
