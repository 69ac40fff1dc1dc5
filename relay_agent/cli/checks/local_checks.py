"""The checks that need no network: the settings, the token, the key, and the state directory.

Owns what is checked on this machine. It must not change anything there: it creates no directory and takes no lock, and only reads the
journal (`journal_inspection.look`).
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import psutil

from relay_agent.cli.checks.result import Check, error, ok, warning, warnings
from relay_agent.config.certificate_files import certificates_of
from relay_agent.config.inspection import unknown_variables
from relay_agent.config.loading import load_settings, load_usable_settings
from relay_agent.config.network import load_rules
from relay_agent.config.secrets import token_expiry
from relay_agent.config.settings import Settings
from relay_agent.core.errors import ConfigurationError, JournalDamaged, JournalError, Mistake
from relay_agent.core.failures import Cause, StorageTrouble
from relay_agent.diagnostics import local_causes
from relay_agent.diagnostics.causes import days_left, ends_soon
from relay_agent.diagnostics.certificates import ending, of_file
from relay_agent.protocol.keyring import Keyring
from relay_agent.storage.disk_faults import trouble_of
from relay_agent.storage.disk_space import obstacle_seen
from relay_agent.storage.journal_inspection import locked, look
from relay_agent.storage.state_directory import JOURNAL, held, obstacle

MB = 1_000_000
LOW_BYTES = 1000 * MB
PROOF_BYTES = 4096
_LAYERS = frozenset({"overlay", "aufs", "fuse-overlayfs"})
"""File systems of a container's own layer."""

Mounts = Callable[[], Iterable[tuple[str, str]]]
"""Mount points and the type of what is mounted there."""


def configuration(
    env_file: Path | None, named: bool = False, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> tuple[Settings | None, Check]:
    """Load the settings, and look at the certificates that they name; `named`: the file was named on the command line, so it must exist."""
    try:
        if named and env_file is not None and not env_file.is_file():
            raise ConfigurationError(Mistake("--env-file", f"there is no file {env_file}"))
        settings = load_settings(env_file)
    except ConfigurationError as problem:
        unknown = [Mistake(name, f"is not a setting of the agent{_nearest(near)}") for name, near in unknown_variables(env_file)]
        return None, _invalid(problem.mistakes + unknown)
    found = [*_unknown(env_file), *_ending_certificates(settings, now())]
    policy = _policy(settings)
    if found:
        return settings, warnings("configuration", found, f"{policy}; " if policy else "")
    source = f"the environment and {env_file}" if env_file is not None and env_file.is_file() else "the environment"
    return settings, ok("configuration", f"every variable is valid, read from {source}{f'; {policy}' if policy else ''}")


def _unknown(env_file: Path | None) -> list[tuple[Cause, str]]:
    unknown = unknown_variables(env_file)
    if not unknown:
        return []
    names = ", ".join(name for name, _ in unknown)
    nearest = ", ".join(f"{name} may be meant as {near}" if near else f"no setting resembles {name}" for name, near in unknown)
    return [(local_causes.UNKNOWN_VARIABLES.about(names=names, nearest=nearest), f"unknown, and ignored: {names}")]


def _ending_certificates(settings: Settings, now: datetime) -> list[tuple[Cause, str]]:
    try:
        found = [of_file(one) for one in certificates_of(settings, load_rules(settings))]
    except ConfigurationError:  # The policy file has changed since the settings were read.
        return []
    return [(problem.cause, problem.reason) for problem in ending(found, now)]


def usable(env_file: Path | None, named: bool = False) -> tuple[Settings | None, frozenset[str]]:
    """Return the valid part of invalid settings and the invalid fields; None if the settings cannot be read at all."""
    if named and env_file is not None and not env_file.is_file():
        return None, frozenset()
    try:
        return load_usable_settings(env_file)
    except ConfigurationError:
        return None, frozenset()


def _policy(settings: Settings) -> str:
    """Describe the policy file, which is valid if the settings are."""
    if settings.policy_file is None:
        return ""
    rules = load_rules(settings).rules
    counts = f"{len(rules.policy.rules)} rules, {len(rules.targets)} targets"
    return f"policy {settings.policy_file}: mode {rules.policy.mode}, {rules.policy.default.rule}, {counts}"


def _nearest(near: str | None) -> str:
    return f"; did you mean {near}?" if near else ""


def _invalid(mistakes: list[Mistake]) -> Check:
    names = ", ".join(dict.fromkeys(mistake.variable for mistake in mistakes))
    return error(local_causes.CONFIGURATION.about(problems="\n".join(map(str, mistakes))), f"invalid: {names}")


def token(settings: Settings, now: datetime) -> Check:
    """Check when the token expires; `access` checks whether the platform accepts it."""
    expiry = token_expiry(settings.token.get())
    if expiry is None:
        return ok("token", "the JWT never expires")
    if expiry <= now:
        return error(local_causes.token_expired(expiry), f"expired on {expiry:%Y-%m-%d}")
    if ends_soon(expiry, now):
        return warning(local_causes.token_ends(expiry, now), f"expires on {expiry:%Y-%m-%d}, in {days_left(expiry, now)}")
    return ok("token", f"valid until {expiry:%Y-%m-%d}")


def secure_key(settings: Settings) -> Check:
    """Check whether there is a key for secure commands."""
    keys = Keyring.from_text(settings.secure_key.get())
    if not keys:
        return warning(local_causes.NO_KEY, "no key for secure commands", optional=not _requires_secure(settings))
    return ok("secure-key", f"{len(keys.kids)} key{'' if len(keys.kids) == 1 else 's'}; new messages are encrypted with kid {keys.kids[0]}")


def _requires_secure(settings: Settings) -> bool:
    """Return whether the policy allows some calls to secure commands only."""
    with contextlib.suppress(ConfigurationError):
        return any(rule.secure_only for rule in load_rules(settings).rules.policy.rules)
    return False


# --- the state directory ---


def mounts() -> list[tuple[str, str]]:
    """Return the mount points and their file systems, as this process sees them."""
    return [(partition.mountpoint, partition.fstype) for partition in psutil.disk_partitions(all=True)]


def state_dir(path: Path, mounted: Mounts = mounts) -> Check:
    """Check the state directory: permissions, space, the journal, and whether it outlives the container."""
    return _closed(path) or _disk_full(path) or _journal(path) or _storage_warning(path, mounted) or _fine(path)


def _fine(path: Path) -> Check:
    if not path.exists():
        return ok("state-dir", f"{path} does not exist yet; the agent creates it")
    in_use = ", in use by a running agent" if held(path) else ""
    return ok("state-dir", f"{path}: {_free(path) // MB} MB free{in_use}")


def _closed(path: Path) -> Check | None:
    try:
        found = obstacle(path)
        if found is None:
            _prove(_nearest_directory(path))
            return None
        place, whose = found
    except OSError as problem:
        if trouble_of(problem) is StorageTrouble.FULL:
            return error(_full(path), f"{path}: the disk of the state directory is full ({problem.strerror})")
        place, whose = path, f" ({problem.strerror}), on a disk that is not read-only, below directories that this user may enter"
    return error(local_causes.STATE_NOT_WRITABLE.about(path=place, more=whose), f"cannot write {place}")


def _prove(directory: Path) -> None:
    """Write a little into an unnamed file: permissions and free space alone do not prove that the disk can be written."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.write(b"\0" * PROOF_BYTES)


def _nearest_directory(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _free(path: Path) -> int:
    return shutil.disk_usage(_nearest_directory(path)).free


def _full(path: Path) -> Cause:
    return local_causes.DISK_FULL.about(path=path, free=_free(path) // MB)


def _disk_full(path: Path) -> Check | None:
    """Report a disk on which a running agent would accept no commands, judged as the agent does (`disk_space`)."""
    found = obstacle_seen(path, _nearest_directory(path))
    return error(_full(path), f"{path}: {found.reason}") if found else None


def _journal(path: Path) -> Check | None:
    journal = path / JOURNAL
    try:
        look(journal, in_use=held(path))
    except JournalDamaged as damage:
        return error(local_causes.JOURNAL_SPOILED.about(reason=damage, path=journal), f"{journal} is damaged")
    except JournalError as problem:
        return error(local_causes.JOURNAL_OTHER.about(reason=problem), f"{journal} cannot be used")
    return error(local_causes.JOURNAL_LOCKED, f"{journal} is locked") if held(path) and locked(journal) else None


def _storage_warning(path: Path, mounted: Mounts) -> Check | None:
    found = []
    free = _free(path)
    if free < LOW_BYTES:
        found.append((local_causes.DISK_LOW.about(path=path, free=free // MB), f"{free // MB} MB free"))
    if _on_layer(path, mounted):
        found.append((local_causes.ON_LAYER.about(path=path), "on the container's own layer"))
    if not found:
        return None
    return warnings("state-dir", found, f"{path}: ")


def _on_layer(path: Path, mounted: Mounts) -> bool:
    """Whether the path is on an overlay mounted at the root, as in a container without a volume."""
    place = _nearest_directory(path).resolve()
    above = {str(place), *map(str, place.parents)}
    points = [(point, kind) for point, kind in mounted() if point in above]
    nearest = max(points, key=lambda pair: len(pair[0]), default=("", ""))
    return nearest[0] == "/" and nearest[1] in _LAYERS
