"""Collects the files of the final image: Python, the environment, the libraries they need, busybox, and little else.

Runs inside the build, with the standard library only. Usage: rootfs.py ROOT [PLACE]…; each PLACE is a directory of
the agent's user. What it writes depends on what it finds and on SOURCE_DATE_EPOCH, never on when it runs: every file has that
time, and bytecode is checked by neither time nor hash.
"""

from __future__ import annotations

import compileall
import gzip
import hashlib
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import packages
from install import VENV
from root import Root

EXECUTABLE = Path(sys.executable).resolve()
USER = 10001
MANIFEST = "/usr/share/relay-agent/manifest.sha256"
"""The name is also in relay_agent/cli/qualification/checksums.py."""
EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])

# Of the standard library: what is for developing, or for a desktop.
STDLIB_WITHOUT = {"test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data", "site-packages", "dist-packages"}
# Extension modules that nothing here imports; they would bring Kerberos, Berkeley DB, curses and readline.
EXTENSIONS_WITHOUT = re.compile(
    r"(_?curses|_curses_panel|_dbm|_gdbm|nis|ossaudiodev|_tkinter|readline|spwd|audioop|_xxtestfuzz|_test\w*|_ctypes_test|xxlimited\w*|_xx\w*)\."
)
# Of botocore's data: what the agent's clients are made from.
BOTOCORE_DATA = {"sqs", "s3", "logs", "sts", "endpoints.json", "partitions.json", "_retry.json", "sdk-default-configuration.json"}
BOTOCORE_SERVICES = {"sqs", "s3", "logs", "sts"}
PACKAGE_WITHOUT = {"SelfTest", "tests"}
APPLETS = [
    "sh",
    "ash",
    "cat",
    "ls",
    "cp",
    "mv",
    "rm",
    "mkdir",
    "rmdir",
    "ln",
    "touch",
    "chmod",
    "pwd",
    "echo",
    "printf",
    "env",
    "printenv",
    "date",
    "sleep",
    "id",
    "whoami",
    "uname",
    "hostname",
    "true",
    "false",
    "test",
    "[",
    "head",
    "tail",
    "less",
    "more",
    "grep",
    "egrep",
    "sed",
    "awk",
    "tr",
    "cut",
    "sort",
    "uniq",
    "wc",
    "find",
    "xargs",
    "which",
    "clear",
    "ps",
    "top",
    "free",
    "df",
    "du",
    "stat",
    "kill",
    "killall",
    "pidof",
    "uptime",
    "wget",
    "nc",
    "ping",
    "ping6",
    "nslookup",
    "telnet",
    "traceroute",
    "ifconfig",
    "ip",
    "route",
    "netstat",
    "arp",
    "vi",
    "tar",
    "gzip",
    "gunzip",
    "zcat",
    "unzip",
    "base64",
    "od",
    "hexdump",
    "md5sum",
    "sha256sum",
    "tee",
    "yes",
    "seq",
    "dirname",
    "basename",
    "readlink",
    "realpath",
    "timeout",
    "watch",
]
PLAIN = [
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/debian_version",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/ld.so.cache",
    "/etc/ssl/certs/ca-certificates.crt",
]


def python(root: Root) -> list[Path]:
    """Take the interpreter and its library; the places that hold modules."""
    root.take(EXECUTABLE)
    for name in ("python3", EXECUTABLE.name):
        for directory in ("/usr/bin", "/usr/local/bin"):
            # A base may hold another Python besides, Debian's own.
            if Path(directory, name).resolve() == EXECUTABLE:
                root.take(Path(directory, name))
    places = sorted({Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")})
    for place in places:
        for directory, names, files in os.walk(place):
            here = Path(directory)
            top = here == place
            names[:] = sorted(n for n in names if n != "__pycache__" and not (top and (n in STDLIB_WITHOUT or n.startswith("config-"))))
            for name in files:
                if not (here.name == "lib-dynload" and EXTENSIONS_WITHOUT.match(name)):
                    root.take(here / name)
    return places


def environment(root: Root) -> None:
    """Take the virtual environment without what only pip, developers and tests need."""
    site = next(VENV.glob("lib/python3.*/site-packages"))
    for directory, names, files in os.walk(VENV):
        here = Path(directory)
        inside = here.relative_to(VENV)
        names[:] = sorted(n for n in names if not left_out(site, here, n))
        for name in files:
            script = here == VENV / "bin" and name not in {"relay-agent"} and not name.startswith("python")
            if (
                not script
                and inside.parts[:1] != ("include",)
                and not name.endswith((".pyi", ".pxd", ".c", ".h"))
                and not left_out(site, here, name)
            ):
                root.take(here / name)
        for name in names:
            if (here / name).is_symlink():
                root.take(here / name)


def fewer_endpoints(root: Root) -> None:
    """Leave the addresses of other services out of botocore's list: reading all of them costs 15 ms at every start."""
    path = root.at(next(VENV.glob("lib/python3.*/site-packages/botocore/data/endpoints.json")))
    document = json.loads(path.read_text(encoding="utf-8"))
    for partition in document["partitions"]:
        partition["services"] = {name: place for name, place in partition["services"].items() if name in BOTOCORE_SERVICES}
    path.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")


def plain_models(root: Root) -> None:
    """Unpack botocore's models of services, without their documentation: unpacking and reading that costs time at every start."""
    for packed in root.at(next(VENV.glob("lib/python3.*/site-packages/botocore/data"))).glob("*/*/service-2.json.gz"):
        model = undocumented(json.loads(gzip.decompress(packed.read_bytes())))
        packed.with_suffix("").write_text(json.dumps(model, separators=(",", ":")), encoding="utf-8")
        packed.unlink()


def undocumented(value: Any) -> Any:
    """A model without the texts for people; a member that is called so stays."""
    if isinstance(value, dict):
        return {name: undocumented(part) for name, part in value.items() if name != "documentation" or not isinstance(part, str)}
    return [undocumented(part) for part in value] if isinstance(value, list) else value


def left_out(site: Path, here: Path, name: str) -> bool:
    """Whether something of the environment stays behind."""
    if here == site / "botocore" / "data":
        return name not in BOTOCORE_DATA
    if here.is_relative_to(site) and name in PACKAGE_WITHOUT and here != site:
        return True
    # Where it was installed from, by whom and with which files: the build's own paths, and never asked for.
    return name in {"__pycache__", "direct_url.json", "REQUESTED", "INSTALLER"} or (name == "RECORD" and here.suffix == ".dist-info")


def libraries(root: Root) -> None:
    """Take every shared library that something taken is linked with, and the loader."""
    for path in sorted(root.taken):
        if not path.is_symlink() and is_elf(path):
            for library in linked(path):
                root.take(library)
    for extra in Path("/usr/lib").glob("*-linux-gnu/libgcc_s.so.1"):
        root.take(extra)  # glibc opens it by name when a thread ends.


def is_elf(path: Path) -> bool:
    """Whether it is a program or a library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def linked(path: Path) -> list[str]:
    """The libraries of a program or a library and theirs, as the loader finds them here."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    if missing := re.findall(r"(\S+) => not found", done.stdout):
        sys.exit(f"rootfs: {path} needs {', '.join(missing)}, which the base does not have")
    return re.findall(r"(?:=> )?(/\S+) \(0x", done.stdout)


def system(root: Root, own: list[str]) -> None:
    """Take busybox and the few files that programs expect; write users and places, those of the agent's user too."""
    busybox = shutil.which("busybox") or sys.exit("rootfs: the base has no busybox")
    root.take(busybox)
    root.take(shutil.which("tini") or sys.exit("rootfs: the base has no tini"))
    # busybox's own needs a capability, this one none where the host lets everybody ping.
    root.take(shutil.which("ping") or sys.exit("rootfs: the base has no ping"))
    have = set(subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split())
    for applet in APPLETS:
        if applet in have:
            root.link(f"/usr/bin/{applet}", busybox)
    for path in PLAIN:
        if Path(path).exists():
            root.take(path)
    root.write("/etc/passwd", f"root:x:0:0:root:/:/bin/sh\nrelay-agent:x:{USER}:{USER}:Relay Agent:/var/lib/relay-agent:/bin/sh\n")
    root.write("/etc/group", f"root:x:0:\nrelay-agent:x:{USER}:\n")
    for name, mode in (("tmp", 0o1777), ("run", 0o755), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755)):
        root.path.joinpath(name).mkdir(exist_ok=True)
        root.path.joinpath(name).chmod(mode)
    for place in own:
        root.path.joinpath(place.lstrip("/")).mkdir(parents=True)
        root.path.joinpath(place.lstrip("/")).chmod(0o700)
        os.chown(root.path / place.lstrip("/"), USER, USER)


def compile_all(root: Root, places: list[Path]) -> None:
    """Write the bytecode of every module, so that a start on a read-only root compiles nothing."""
    for place in (*places, VENV):
        compileall.compile_dir(
            root.at(place), quiet=2, stripdir=str(root.path), force=True, workers=1,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )  # fmt: skip


def settle(root: Root) -> None:
    """Give everything the one time, and no write permission to anybody but root."""
    for path in sorted(root.path.rglob("*"), reverse=True):
        if not path.is_symlink() and path != root.path / "tmp" and path.stat().st_uid != USER:
            path.chmod(path.stat().st_mode & 0o777 & ~0o022 | (0o755 if path.is_dir() else 0o444))
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    os.utime(root.path, (EPOCH, EPOCH))


def manifest(root: Root) -> None:
    """Write the SHA-256 of every other file, bytecode too, as `sha256sum -c` reads it from `/`: `relay-agent qualify` compares."""
    files = sorted(path for path in root.path.rglob("*") if path.is_file() and not path.is_symlink())
    lines = []
    for path in files:
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(root.path)}\n")
    root.write(MANIFEST, "".join(lines))


def main() -> None:
    """Make the root."""
    root = Root(Path(sys.argv[1]))
    places = python(root)
    environment(root)
    fewer_endpoints(root)
    plain_models(root)
    root.take("/opt/relay-agent/bin/healthcheck.py")
    system(root, sys.argv[2:])
    libraries(root)
    packages.describe(root, VENV, EXECUTABLE, EPOCH)
    compile_all(root, places)
    manifest(root)
    settle(root)


if __name__ == "__main__":
    main()
