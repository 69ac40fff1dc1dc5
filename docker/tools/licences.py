"""Says under which licences a component stands, in CycloneDX's form: by what its own metadata or copyright file says.

Runs inside the build, with the standard library only. It must not judge: what is not plainly one SPDX licence keeps the words it was given.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import PackageMetadata

Json = dict[str, Any]

# By id, how else a distribution's `License` field plainly spells it. "BSD", "Apache" and "PSF" alone may be several (PEP 639).
SPDX: dict[str, tuple[str, ...]] = {
    "0BSD": (),
    "Apache-2.0": ("Apache 2.0", "Apache 2", "Apache License 2.0", "Apache License, Version 2.0", "Apache Software License 2.0"),
    "BSD-2-Clause": ("BSD 2-Clause", "BSD 2-Clause License", "Simplified BSD"),
    "BSD-3-Clause": ("BSD 3-Clause", "BSD 3-Clause License", "3-Clause BSD License", "New BSD", "Modified BSD"),
    "BSD-4-Clause": (),
    "BSL-1.0": (),
    "CC0-1.0": (),
    "GPL-1.0-only": (),
    "GPL-1.0-or-later": (),
    "GPL-2.0-only": (),
    "GPL-2.0-or-later": (),
    "GPL-3.0-only": (),
    "GPL-3.0-or-later": (),
    "ISC": ("ISC License",),
    "LGPL-2.0-only": (),
    "LGPL-2.0-or-later": (),
    "LGPL-2.1-only": (),
    "LGPL-2.1-or-later": (),
    "LGPL-3.0-only": (),
    "LGPL-3.0-or-later": (),
    "MIT": ("MIT License", "The MIT License", "Expat"),
    "MIT-0": (),
    "MPL-1.1": (),
    "MPL-2.0": ("MPL 2.0", "Mozilla Public License 2.0"),
    "PSF-2.0": (),
    "Unlicense": ("The Unlicense",),
    "Zlib": (),
    "ZPL-2.1": ("ZPL 2.1", "Zope Public License 2.1"),
}
PLAIN = {spelling.lower(): spdx for spdx, others in SPDX.items() for spelling in (spdx, *others)}

# Trove's classifiers that stand for one licence each.
CLASSIFIERS = {
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}

# Debian's short names (copyright-format 1.0, without regard to case) that are one licence each: its "MIT" may be any of several.
SHORT_NAMES = {
    "0bsd": "0BSD", "apache-2.0": "Apache-2.0", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause", "bsl-1.0": "BSL-1.0", "cc0-1.0": "CC0-1.0", "expat": "MIT", "isc": "ISC",
    "mpl-1.1": "MPL-1.1", "mpl-2.0": "MPL-2.0", "psf-2": "PSF-2.0", "zlib": "Zlib",
    "gpl-1": "GPL-1.0-only", "gpl-2": "GPL-2.0-only", "gpl-3": "GPL-3.0-only",
    "gpl-1+": "GPL-1.0-or-later", "gpl-2+": "GPL-2.0-or-later", "gpl-3+": "GPL-3.0-or-later",
    "lgpl-2": "LGPL-2.0-only", "lgpl-2.1": "LGPL-2.1-only", "lgpl-3": "LGPL-3.0-only",
    "lgpl-2+": "LGPL-2.0-or-later", "lgpl-2.1+": "LGPL-2.1-or-later", "lgpl-3+": "LGPL-3.0-or-later",
}  # fmt: skip
NOT_STATED = "not stated"


def of_distribution(metadata: PackageMetadata) -> list[Json]:
    """A Python distribution's licences: of its `License-Expression`, else `License`, else classifiers, else what words there are."""
    given = " ".join(first(metadata, "License-Expression").split())
    if given:
        return [by_id(given) if given in SPDX else {"expression": given}]
    # Some put the whole text there.
    lines = first(metadata, "License").strip().splitlines()
    words = lines[0].strip() if lines else ""
    if len(lines) == 1 and words.lower() in PLAIN:
        return [by_id(PLAIN[words.lower()])]
    if len(lines) == 1 and is_expression(words):
        return [{"expression": words}]
    named = [str(line).rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or [] if str(line).startswith("License :: ")]
    return [by_id(CLASSIFIERS[name]) if name in CLASSIFIERS else by_name(name) for name in named] or [by_name(words or NOT_STATED)]


def first(metadata: PackageMetadata, field: str) -> str:
    """What a field says; nothing where there is none."""
    return str((metadata.get_all(field) or [""])[0])


def of_debian(copyright_file: Path) -> list[Json]:
    """A Debian package's licences: the short names of its copyright file, or where to read it."""
    if not copyright_file.exists():
        return [by_name(NOT_STATED)]
    names = sorted(set(short_names(copyright_file.read_text(encoding="utf-8", errors="replace"))))
    ids = sorted({SHORT_NAMES[name.lower()] for name in names if name.lower() in SHORT_NAMES})
    others = [name for name in names if name.lower() not in SHORT_NAMES]
    return [*map(by_id, ids), *map(by_name, others)] or [by_name(f"see {copyright_file}")]


def short_names(text: str) -> list[str]:
    """What a machine-readable copyright file says of the files; of another nothing."""
    header, *rest = re.split(r"\n\s*\n", text.strip())
    if not re.match(r"Format(-Specification)?:.*(copyright-format|dep5)", header, flags=re.IGNORECASE):
        return []
    # The paragraphs with neither only hold the texts.
    relevant = [header, *(part for part in rest if re.search(r"^Files:", part, flags=re.MULTILINE))]
    return [match[1] for part in relevant if (match := re.search(r"^License:[ \t]*(\S.*?)[ \t]*$", part, flags=re.MULTILINE))]


def is_expression(words: str) -> bool:
    """Whether it is an SPDX expression of known licences, such as `MIT OR Apache-2.0`."""
    parts = re.split(r" (?:AND|OR) ", words.replace("(", "").replace(")", ""))
    return all(part in SPDX for part in parts)


def by_id(spdx: str) -> Json:
    """One licence that is on SPDX's list."""
    return {"license": {"id": spdx}}


def by_name(words: str) -> Json:
    """One licence in the words that were found."""
    return {"license": {"name": words}}
