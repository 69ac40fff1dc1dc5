"""Installs what a lock file names into the image's virtual environment. Runs inside the build, with the standard library only.

Usage: install.py LOCK [SOURCE]. From the wheels beside it, without the network, where they hold all of LOCK; from the
package index otherwise. With a SOURCE its own package is installed, and LOCK is what builds it, which the image does not get.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

VENV = Path("/opt/relay-agent")
WHEELS = Path("/build/wheels")
TOOLS = Path("/build/site")


def main(lock: Path, source: Path | None) -> None:
    """Make the environment if there is none, and install."""
    if not VENV.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", VENV], check=True)
    locked = [*origin(lock), "--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(lock)]
    if source is None:
        pip(*locked)
    else:
        pip(*locked, "--target", str(TOOLS))
        pip("--no-index", "--no-deps", "--no-build-isolation", str(source), path=str(TOOLS))


def pip(*arguments: str, path: str = "") -> None:
    """Run pip, from its wheel where there is one, for the environment."""
    wheel = next(iter(sorted(WHEELS.glob("pip-*.whl"))), None)
    own = [str(wheel / "pip")] if wheel else ["-m", "pip", "--python", str(VENV / "bin" / "python3")]
    program = str(VENV / "bin" / "python3") if wheel else sys.executable
    options = [
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--quiet",
        "--no-cache-dir",
        "--no-compile",
        "--root-user-action=ignore",
    ]
    environment = {**os.environ, "PYTHONPATH": path, "PIP_CONFIG_FILE": os.devnull}
    if subprocess.run([program, *own, *options, *arguments], env=environment, check=False).returncode:
        sys.exit("install: pip failed. Where no index can be reached from inside a build, `make image` brings the wheels.")


def origin(lock: Path) -> list[str]:
    """The options that say where from: the wheels if all of the lock are there, else the index."""
    there = {(spelled(wheel.name.split("-")[0]), wheel.name.split("-")[1]) for wheel in WHEELS.glob("*.whl") if fits(wheel.name)}
    # One with a marker may not be for this Python or system, and then there is no wheel of it.
    wanted = re.findall(r"^([A-Za-z0-9_.-]+)==([^ \\;]+) *(;?)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    missing = [f"{name}=={version}" for name, version, marked in wanted if not marked and (spelled(name), version) not in there]
    if not missing:
        return ["--no-index", "--find-links", str(WHEELS)]
    print(f"install: {lock.name}: from the package index, since there are no wheels of {', '.join(missing)}", flush=True)
    return []


def fits(wheel: str) -> bool:
    """Whether a wheel is for this Python: those of another may have been left from another base."""
    return re.search(rf"-(py2\.)?py3-|-cp{sys.version_info[0]}{sys.version_info[1]}-|-abi3-", wheel) is not None


def spelled(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
