"""Says what an image holds: Debian's list of the packages that files were taken from, their licences, and a CycloneDX bill of materials.

Runs inside the build, with the standard library only. It must not decide what is taken: that is rootfs.py's.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import licences
from root import Root, placed

SBOM = "/usr/share/relay-agent/sbom.cdx.json"
DPKG = Path("/var/lib/dpkg")
RELEASE = Path("/etc/os-release")
Json = dict[str, Any]


def describe(root: Root, venv: Path, interpreter: Path, epoch: int) -> None:
    """Write the list, the licences and the bill into the root."""
    stanzas = {str(fields["Package"]): fields for fields in installed()}
    owner = owners(root.taken, stanzas)
    names = sorted(set(owner.values()))
    # Scanners (Trivy, Grype) look here.
    root.write("/var/lib/dpkg/status", "\n".join(stanzas[name]["text"] for name in names))
    for name in names:
        take_copyright(root, name)
    of = release()
    components = [*python_packages(venv), *(debian_package(stanzas[name], of) for name in names)]
    if interpreter not in owner:
        components.append(python_itself())
    root.write(SBOM, json.dumps(bill(components, epoch), indent=1) + "\n")


def take_copyright(root: Root, name: str) -> None:
    """Take what Debian says of a package; its directory may be a link to another package's."""
    documents = Path("/usr/share/doc", name)
    if documents.is_symlink():
        root.take(documents)
    if (documents / "copyright").exists():
        root.take(documents / "copyright")


def release() -> dict[str, str]:
    """Which system this is (os-release)."""
    text = RELEASE.read_text(encoding="utf-8") if RELEASE.exists() else ""
    return dict(re.findall(r'^(\w+)="?([^"\n]*)', text, flags=re.MULTILINE))


def installed(admin: Path = DPKG) -> list[Json]:
    """Debian's packages on this system, each with its fields and its `text`."""
    status = admin / "status"
    texts = re.split(r"\n\n+", status.read_text(encoding="utf-8").strip()) if status.exists() else []
    found = [{**dict(re.findall(r"^([A-Za-z-]+): *(.*)$", text, flags=re.MULTILINE)), "text": text + "\n"} for text in texts]
    # Of a package that was removed its configuration may be left, and then its list.
    return [fields for fields in found if fields.get("Status", "").endswith(" installed")]


def owners(taken: Iterable[Path], stanzas: dict[str, Json], admin: Path = DPKG) -> dict[Path, str]:
    """The package of each of these files that came with one."""
    wanted, diverted, found = set(taken), diversions(admin), {}
    for listing in sorted((admin / "info").glob("*.list")):
        name = listing.name.removesuffix(".list").split(":")[0]
        for line in listing.read_text(encoding="utf-8").splitlines() if name in stanzas else []:
            elsewhere, by = diverted.get(line, (line, name))
            path = placed(line if by == name else elsewhere)
            if path in wanted:
                found[path] = name
    # What a package's own script made is in no list.
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle in wanted and "ca-certificates" in stanzas:
        found[bundle] = "ca-certificates"
    return found


def diversions(admin: Path) -> dict[str, tuple[str, str]]:
    """Where the files of all packages but one lie instead, and which one that is (dpkg-divert)."""
    file = admin / "diversions"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {path: (elsewhere, by) for path, elsewhere, by in zip(lines[::3], lines[1::3], lines[2::3], strict=True)}


def debian_package(fields: Json, of: dict[str, str]) -> Json:
    """One Debian package as a component, named as scanners look it up: by its source and its release too."""
    name, version = fields["Package"], fields["Version"]
    source, _, other = str(fields.get("Source", name)).partition(" (")
    upstream = source + (f"@{other.rstrip(')')}" if other else "")
    qualifiers = {"arch": fields["Architecture"]}
    if "VERSION_ID" in of:
        qualifiers["distro"] = f"{of.get('ID', 'debian')}-{of['VERSION_ID']}"
    if upstream != name:
        qualifiers["upstream"] = upstream
    purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?" + urlencode(qualifiers)
    return component(name, version, purl, licences.of_debian(Path("/usr/share/doc", name, "copyright")))


def python_packages(venv: Path) -> list[Json]:
    """The environment's distributions as components."""
    found = []
    for site in venv.glob("lib/python3.*/site-packages"):
        for part in importlib.metadata.distributions(path=[str(site)]):
            name, version = part.metadata["Name"], part.version
            purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
            found.append(component(name, version, purl, licences.of_distribution(part.metadata)))
    return sorted(found, key=lambda part: str(part["purl"]))


def python_itself() -> Json:
    """The interpreter, where it is no Debian package."""
    version = platform.python_version()
    own = component("python", version, f"pkg:generic/python@{version}", [licences.by_id("PSF-2.0")])
    return {**own, "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"}


def component(name: str, version: str, purl: str, licensed: list[Json]) -> Json:
    """One part of the bill."""
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "licenses": licensed, "purl": purl}


def bill(components: list[Json], epoch: int) -> Json:
    """The CycloneDX 1.5 document; the same components give the same one."""
    own = next(part for part in components if part["name"] == "tdp-relay-agent")
    rest = [part for part in components if part is not own]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": {**own, "type": "application"},
        },
        "components": rest,
    }


if __name__ == "__main__":
    sys.exit("packages.py is used by rootfs.py")
