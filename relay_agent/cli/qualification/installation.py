"""The installation qualification (IQ): versions, checksums, settings, state directory and journal.

Owns what is expected of each. It must not change anything, or take a lock.
"""

from __future__ import annotations

import os
import platform
import re
import ssl
import stat
import sys
from importlib import metadata
from pathlib import Path

from relay_agent import __version__
from relay_agent.cli.qualification.checksums import MANIFEST, compare_with_manifest, compare_with_record, is_editable, sha256_of
from relay_agent.cli.qualification.libraries import BILL, DISTRIBUTION, Library, installed_version, needed, pinned, release, required
from relay_agent.cli.qualification.lines import Line, judged, not_applicable, not_run, numbered
from relay_agent.config.inspection import masked, unknown_variables
from relay_agent.config.loading import load_settings
from relay_agent.config.network import load_rules
from relay_agent.config.settings import Settings, Variable, variables
from relay_agent.core.errors import ConfigurationError, JournalDamaged, JournalError
from relay_agent.storage.journal_inspection import Inspection, inspect
from relay_agent.storage.journal_reader import SQLITE_VERSION
from relay_agent.storage.schema import SCHEMA_VERSION
from relay_agent.storage.state_directory import JOURNAL, held

INSPECTION_SECONDS = 20.0
PRIVATE_MODE = 0o700


def installation_lines(env_file: Path | None, settings: Settings | None, directory: Path) -> list[Line]:
    """Return all lines of the installation qualification; `settings` is what of them is valid, None if they cannot be read."""
    return [
        *program_lines(),
        checksum_line(),
        *setting_lines(env_file),
        unknown_line(env_file),
        policy_line(settings),
        directory_line(directory),
        *journal_lines(directory / JOURNAL, in_use=held(directory)),
    ]


# --- versions ---


def program_lines() -> list[Line]:
    """Return the lines of the agent's, Python's, the system's and the libraries' versions."""
    found = _distribution()
    packaged = found.version if found is not None else "not installed as a package"
    lines = [
        judged(
            "IQ-01", f"package {DISTRIBUTION} {__version__}", f"package {packaged}, program {__version__}", _public(packaged) == __version__
        ),
        _python_line(found),
        judged(
            "IQ-03",
            "Linux",
            f"{platform.system()} {platform.release()}, {platform.machine()}; {ssl.OPENSSL_VERSION}; SQLite {SQLITE_VERSION}",
            platform.system() == "Linux",
        ),
    ]
    return [*lines, *library_lines(found)]


def _distribution() -> metadata.Distribution | None:
    try:
        return metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def _public(version: str) -> str:
    """Return a version without its local part."""
    return version.partition("+")[0]


def _python_line(found: metadata.Distribution | None) -> Line:
    wanted = (found.metadata["Requires-Python"] if found is not None else None) or ""
    lowest = re.fullmatch(r">=\s*([0-9.]+)", wanted)
    if lowest is None:
        return not_run("IQ-02", "the version that the package requires", "the package's metadata do not say which Python it requires")
    version = platform.python_version()
    observed = f"{version} ({platform.python_implementation()}), {sys.executable}"
    return judged("IQ-02", f"{lowest[1]} or later", observed, release(version) >= release(lowest[1]))


def library_lines(found: metadata.Distribution | None, bill: Path = BILL) -> list[Line]:
    """Return a line for each library: in the image against the bill of materials, elsewhere against the package's requirements."""
    try:
        if bill.exists():
            libraries = needed(pinned(bill))
        elif found is not None:
            libraries = needed(required(found.requires or []))
        else:
            return [not_run("IQ-04", "the versions that the package requires", "the agent is not installed as a package")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [not_run("IQ-04", "the versions that the package requires", f"they cannot be read: {type(error).__name__}")]
    return [_library_line(number, library) for number, library in zip(numbered("IQ-04", len(libraries)), libraries, strict=True)]


def _library_line(number: str, library: Library) -> Line:
    version = installed_version(library.name)
    return judged(number, f"{library.name} {library.expected}", version or "not installed", library.accepts(version))


# --- files ---


def checksum_line(manifest: Path = MANIFEST) -> Line:
    """Return the line of the program's files."""
    if manifest.exists():
        expected = f"every file has the SHA-256 of the image's manifest, {manifest}"
        try:
            compared = compare_with_manifest(manifest)
            own = sha256_of(manifest)
        except OSError as error:
            return not_run("IQ-05", expected, f"the manifest cannot be read ({error.strerror})")
        remark = f"The manifest's own SHA-256 is {own}: compare it with the line of the manifest in the delivery's SHA256SUMS."
        return judged("IQ-05", expected, str(compared), compared.same, remark)
    expected = "every file of the agent's package has the SHA-256 of its RECORD"
    found = _distribution()
    record = None if found is None else compare_with_record(found)
    if record is not None:
        return judged("IQ-05", expected, str(record), record.same)
    if found is not None and is_editable(found):
        return not_run("IQ-05", expected, "the agent runs from a directory of sources, for development: its files have no checksums")
    return not_run("IQ-05", expected, "there is neither a RECORD nor a manifest: the agent was not installed from a package or an image")


# --- settings ---


def setting_lines(env_file: Path | None) -> list[Line]:
    """Return a line for each setting, secrets masked, and one for each line of the settings' file that cannot be read."""
    mistakes = _mistakes(env_file)
    entries = masked(env_file)
    known = variables()
    broken, given = entries[: len(entries) - len(known)], entries[len(entries) - len(known) :]
    lines = []
    numbers = numbered("IQ-06", len(known) + len(broken))
    for variable, entry, number in zip(known, given, numbers, strict=False):
        wrong = [text for name, text in mistakes if name in (variable.name, entry["name"])]
        lines.append(_setting_line(number, variable, entry["name"] or variable.name, entry["value"], wrong))
    for entry, number in zip(broken, numbers, strict=False):
        lines.append(judged(number, f"{entry['name']} can be read", str(entry["value"]), good=False))
    return lines


def _setting_line(number: str, variable: Variable, name: str, value: str | None, wrong: list[str]) -> Line:
    expected = f"{name}: {variable.description}"
    if value is None:
        optional = f"default: {variable.default}" if variable.default not in ("", "required") else "no default"
        observed = f"not set ({optional})"
    else:
        observed = value
    return judged(number, expected, observed, not wrong, "; ".join(wrong))


def _mistakes(env_file: Path | None) -> list[tuple[str, str]]:
    try:
        load_settings(env_file)
    except ConfigurationError as error:
        return [(mistake.variable, mistake.text) for mistake in error.mistakes]
    return []


def unknown_line(env_file: Path | None) -> Line:
    """Return the line of variables that begin with RELAY_ and are no settings."""
    unknown = unknown_variables(env_file)
    listed = ", ".join(f"{name} (is {near} meant?)" if near else name for name, near in unknown)
    return judged("IQ-07", "none", listed or "none", not unknown)


def policy_line(settings: Settings | None) -> Line:
    """Return the line of the policy file. Its SHA-256 is left out if it holds a secret, which could be guessed from it."""
    expected = "valid; a person compares it with the approved version"
    if settings is None:
        return not_run("IQ-08", expected, "the settings cannot be read")
    if settings.policy_file is None:
        open_to_all = "RELAY_POLICY_FILE is not set: every target may be called, except those that are always denied"
        return not_applicable("IQ-08", expected, open_to_all)
    try:
        loaded = load_rules(settings)
        digest = "not shown, since the file holds a secret" if loaded.secrets else sha256_of(settings.policy_file)
    except (ConfigurationError, OSError) as error:
        return judged("IQ-08", expected, f"{settings.policy_file}: invalid or unreadable ({type(error).__name__})", good=False)
    policy = loaded.rules.policy
    mode = "observe" if policy.observe else "enforce"
    counts = f"{len(policy.rules)} rules, {len(loaded.rules.targets)} targets"
    observed = f"{settings.policy_file}: mode {mode}, {policy.default.rule}, {counts}; SHA-256 {digest}"
    remark = "In the mode observe the rules refuse nothing." if policy.observe else ""
    return judged("IQ-08", expected, observed, good=True, remark=remark)


# --- the state directory ---


def directory_line(directory: Path) -> Line:
    """Return the line of the state directory's owner and mode."""
    expected = f"exists, belongs to user {os.geteuid()} who runs this command, mode {PRIVATE_MODE:04o}"
    try:
        found = directory.stat()
    except OSError as error:
        remark = "Start the agent first: it creates this directory."
        return judged("IQ-09", expected, f"{directory}: {error.strerror}", good=False, remark=remark)
    mode = stat.S_IMODE(found.st_mode)
    good = found.st_uid == os.geteuid() and mode == PRIVATE_MODE and stat.S_ISDIR(found.st_mode)
    return judged("IQ-09", expected, f"{directory}: user {found.st_uid}, mode {mode:04o}", good)


def journal_lines(journal: Path, *, in_use: bool) -> list[Line]:
    """Return the lines of the journal's form and content; `in_use` says that an agent has it open."""
    form, content = f"schema {SCHEMA_VERSION}", "every page and every row is as it was written"
    try:
        found = inspect(journal, in_use=in_use, seconds=INSPECTION_SECONDS)
    except JournalDamaged as damage:
        return [not_run("IQ-10", form, "the journal is damaged (IQ-11)"), judged("IQ-11", content, f"{journal}: {damage}", good=False)]
    except JournalError as problem:
        return [not_run("IQ-10", form, f"{journal}: {problem}"), not_run("IQ-11", content, f"{journal}: {problem}")]
    same = judged("IQ-10", form, f"schema {found.schema_version}", found.schema_version == SCHEMA_VERSION, _older(found))
    if not found.complete:
        return [same, not_run("IQ-11", content, f"it could not be read completely within {INSPECTION_SECONDS:g} s")]
    return [same, judged("IQ-11", content, f"{journal}: sound, {found.commands:,} commands", good=True)]


def _older(found: Inspection) -> str:
    return "An older agent wrote it; the next start of this one upgrades it." if found.schema_version < SCHEMA_VERSION else ""
