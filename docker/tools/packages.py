"""Says what an image holds: Debian's list of the packages that files were taken from, their licences, and a CycloneDX bill of materials.

Runs inside the build, with the standard library only. It must not decide what is taken: that is rootfs.py's.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from rootfs import Root

SBOM = "/usr/share/relay-agent/sbom.cdx.json"
Json = dict[str, Any]


def describe(root: Root, venv: Path, epoch: int) -> None:
    """Write the list, the licences and the bill into the root."""
    stanzas = {str(fields["Package"]): fields for fields in installed()}
    owners = owning(root.files(), stanzas)
    # Scanners (Trivy, Grype) look here.
    root.write("/var/lib/dpkg/status", "\n".join(stanzas[name]["text"] for name in owners))
    for name in owners:
        licence = Path("/usr/share/doc", name, "copyright")
        if licence.exists():
            root.take(licence)
    components = [*python_packages(venv), *(debian_package(stanzas[name]) for name in owners)]
    if not any(part["name"].startswith("python3") for part in components):
        components.append(interpreter())
    root.write(SBOM, json.dumps(bill(components, epoch), indent=1) + "\n")


def installed() -> list[Json]:
    """Debian's packages on this system, each with its fields and its `text`."""
    status = Path("/var/lib/dpkg/status")
    texts = re.split(r"\n\n+", status.read_text(encoding="utf-8").strip()) if status.exists() else []
    return [{**dict(re.findall(r"^([A-Za-z-]+): *(.*)$", text, flags=re.MULTILINE)), "text": text + "\n"} for text in texts]


def owning(files: list[Path], stanzas: dict[str, Json]) -> list[str]:
    """The names of the packages that own any of these files."""
    wanted = {str(path) for path in files}
    # What a package's own script made is in no list.
    owners = {"ca-certificates"} & stanzas.keys() if "/etc/ssl/certs/ca-certificates.crt" in wanted else set()
    for listing in Path("/var/lib/dpkg/info").glob("*.list"):
        name = listing.name.removesuffix(".list").split(":")[0]
        for line in listing.read_text(encoding="utf-8").splitlines():
            path = Path(line)
            # A package may say /lib for what lies in /usr/lib.
            if name in stanzas and os.path.join(os.path.realpath(path.parent), path.name) in wanted and not path.is_dir():
                owners.add(name)
                break
    return sorted(owners)


def debian_package(fields: Json) -> Json:
    """One Debian package as a component."""
    name, version = fields["Package"], fields["Version"]
    purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={fields['Architecture']}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def python_packages(venv: Path) -> list[Json]:
    """The environment's distributions as components."""
    found = []
    for site in venv.glob("lib/python3.*/site-packages"):
        for part in importlib.metadata.distributions(path=[str(site)]):
            name, version = part.metadata["Name"], part.version
            purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
            licence = part.metadata.get("License-Expression")
            named: Json = {"licenses": [{"expression": licence}]} if licence else {}
            found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **named})
    return sorted(found, key=lambda component: str(component["purl"]))


def interpreter() -> Json:
    """Python itself, where it is no Debian package."""
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    return {"type": "library", "bom-ref": purl, "name": "python", "version": version, "purl": purl}


def bill(components: list[Json], epoch: int) -> Json:
    """The CycloneDX 1.5 document; the same components give the same one."""
    own = next(part for part in components if part["name"] == "relay-agent")
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
