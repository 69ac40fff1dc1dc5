"""Causes and cures of what is wrong on this machine: settings, secrets, disk, journal, pages."""

from __future__ import annotations

from datetime import datetime

from relay_agent.core.failures import Cause, StorageTrouble

CONFIGURATION = Cause(
    "configuration",
    "{problems}",
    "correct what is named where it was set: in agent.env and by ./run.sh for a container, else in the environment or .env",
)


UNKNOWN_VARIABLES = Cause(
    "configuration", "no variable of the agent is called {names}", "correct the name ({nearest}), or take the variable away"
)


TOKEN_EXPIRED = Cause(
    "token",
    "the JWT expired on {date}, by this machine's clock",
    "create a new token for the service user and set JWT (or the file of JWT_FILE); if that day is still to come, set this machine's clock",
)


TOKEN_UNUSABLE = Cause(
    "token",
    "the file of JWT_FILE changed, and holds no JSON Web Token: the one from before stays in force",
    "write the service user's token into it, and nothing else",
)


TOKEN_ENDS = Cause(
    "token",
    "the JWT expires on {date}, in {days}; from then on the platform refuses the agent",
    "create a new token for the service user before that day and set JWT (or the file of JWT_FILE)",
)


SET_CLOCK = "set this machine's clock (NTP: `timedatectl set-ntp true`, or chrony); a container has its host's clock"


SECRET_GONE = Cause(
    "configuration",
    "the file of {variable} gives nothing any more ({reason}): what was read from it stays in force until the agent ends",
    "put the file back, readable for the agent's user: without it the agent does not start again",
)


CLOCK_OFF = Cause(
    "clock",
    "this machine's clock is {seconds} s {direction} the platform's; AWS refuses what is signed more than 5 minutes off",
    SET_CLOCK,
)


NO_KEY = Cause(
    "secure-key",
    "no key is set: secure commands (V2) will fail with ENOKEY",
    "where senders use secure commands, make a key with `relay-agent keygen` and set SECURE_COMMAND_KEY (or the file of"
    " SECURE_COMMAND_KEY_FILE)",
)


KEYS = Cause(
    "secure-key",
    "the file of SECURE_COMMAND_KEY_FILE changed, and holds no usable key: those from before stay in force",
    "write 32 bytes as base64, base64url or 64 hex digits into it (relay-agent keygen makes a key); several with commas between them",
)


STATE_NOT_WRITABLE = Cause(
    "state-dir",
    "the agent cannot write its state directory: {path}",
    "give RELAY_STATE_DIR a directory that the agent's user may write{more}",
)


DISK_FULL = Cause(
    "state-dir", "the disk of {path} is full: {free} MB are free", "make room on the disk of RELAY_STATE_DIR, or use a larger one"
)


DISK_LOW = Cause(
    "state-dir",
    "the disk of {path} is filling up: {free} MB are free",
    "make room on the disk of RELAY_STATE_DIR: answers wait there when the platform is away",
)


ON_LAYER = Cause(
    "state-dir",
    "{path} lies on the container's own layer: when the container is removed, commands that are not answered yet are lost",
    "mount a volume there (docker run -v relay-agent:{path}), or name one with RELAY_STATE_DIR",
)


JOURNAL = Cause(
    "state-dir",
    "the journal cannot be written",
    "see that the disk of RELAY_STATE_DIR is neither full nor read-only; the agent resumes by itself once there is room",
)


JOURNAL_FULL = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR is full",
    f"{DISK_FULL.cure}; the agent resumes by itself once there is room",
)


JOURNAL_READ_ONLY = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR is read-only",
    "mount it writable (a disk with errors turns read-only: look into the system's log), or name another with RELAY_STATE_DIR; the agent"
    " resumes by itself",
)


JOURNAL_HANGS = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR hangs: a write to it does not end",
    "look at the disk and how it is mounted (a file server that is away, a disk that fails: the system's log)",
)


JOURNAL_LOCKED = Cause(
    "state-dir",
    "another program has the journal open and holds a lock on it",
    "end that program (`fuser -v` or `lsof` on journal.db in RELAY_STATE_DIR name it: a backup, a virus scanner, an SQLite shell);"
    " the agent resumes by itself",
)


BACKLOG = Cause(
    "state-dir",
    "so many answers wait for the platform that more would fill the disk",
    "see why they cannot be sent or uploaded (send-failed, upload-failed); the agent resumes by itself once less waits",
)


JOURNAL_DAMAGED = Cause(
    "state-dir",
    "the journal did not hold what was written to it: it was set aside, and what could be read of it is in the new one",
    "check the disk (its SMART values, the system's log) and who else writes to RELAY_STATE_DIR; keep the file set aside for the"
    " vendor's support, then delete it; commands of which nothing could be read are answered by nobody: ask their senders",
)


NOT_TAKEN_UP = Cause(
    "state-dir",
    "what the journal holds of this command cannot be taken up again",
    "its sender is answered EINTERRUPTED: ask at the target whether the request was made; send a support bundle to the vendor",
)


JOURNAL_SPOILED = Cause(
    "state-dir",
    "the journal does not hold what was written to it ({reason}); when the agent starts next, it sets it aside and saves what can be read",
    "check the disk (its SMART values, the system's log) and who else writes to RELAY_STATE_DIR; {path} may be copied for the vendor's"
    " support before the agent is started",
)


JOURNAL_OTHER = Cause(
    "state-dir",
    "the journal cannot be used: {reason}",
    "run the version of the agent that wrote it, or a newer one, as the user who owns it; or give RELAY_STATE_DIR another directory",
)


STDOUT_BLOCKED = Cause(
    "",
    "nobody reads what the agent writes to stdout, and the pipe is full; commands run on, and the newest lines wait (1 MiB)",
    "see that what reads it is alive and has room: dockerd and its log driver's disk, journald, or the shell's pipe",
)


TOO_SLOW = Cause(
    "",
    "what it looks at did not answer within {seconds} s",
    "look at what the summary names: a disk, a name server or a proxy that hangs; then check again",
)


UNEXPECTED = Cause("", "the check itself failed, by an unexpected {kind}", "report it to the vendor; RELAY_LOG_LEVEL=debug shows where")


_OF_STORAGE = {
    StorageTrouble.LOCKED: JOURNAL_LOCKED,
    StorageTrouble.HANGS: JOURNAL_HANGS,
    StorageTrouble.FULL: JOURNAL_FULL,
    StorageTrouble.READ_ONLY: JOURNAL_READ_ONLY,
}


def journal_cause(trouble: StorageTrouble | None) -> Cause:
    """What lies behind a journal that takes nothing."""
    return JOURNAL if trouble is None else _OF_STORAGE[trouble]


SPOOL = Cause(
    "state-dir",
    "a large answer that was written to the state directory cannot be read any more",
    "check the disk of RELAY_STATE_DIR (its SMART values, the system's log) and who else deletes or changes files there",
)


STUCK = Cause(
    "agent",
    "a part of the agent stands still",
    "nothing for now: after 5 minutes the agent ends, and its supervisor starts it again; if that repeats, send a support bundle"
    " (relay-agent support-bundle)",
)


_OTHER_WAY = "; the agent works without, and `status` and health checks use admin.sock in the state directory"


ADMIN_TAKEN = Cause(
    "configuration",
    "the agent's pages are not served at {address}: another program listens there, another agent of this machine, say" + _OTHER_WAY,
    "give RELAY_ADMIN_ADDR a free port, or off",
)


ADMIN_CLOSED = Cause(
    "configuration",
    "the agent's pages are not served at {address}, where this machine does not let the agent listen ({reason})" + _OTHER_WAY,
    "give RELAY_ADMIN_ADDR an address of this machine and a port from 1024 on, or off",
)


ADMIN_SOCKET = Cause(
    "state-dir",
    "the socket {address} cannot be made in the state directory ({reason}): `status` and health checks find no agent",
    "give RELAY_STATE_DIR a directory that the agent's user may write, on a disk that has room and takes sockets; then it is made at once",
)


CAUGHT = Cause(
    "target",
    "a request outlasts its own time limit",
    "nothing for now: after 5 minutes the agent ends, and its supervisor starts it again; if that repeats, send a support bundle"
    " (relay-agent support-bundle)",
)


STOPPING = Cause("agent", "the agent was asked to stop", "nothing: it finishes what runs; start it again to take in commands")


CLOCK_SECONDS = 60.0
"""A clock that is less off than this is not the reason for anything."""


def clock_off(seconds: float) -> Cause:
    """The row for a clock that is so many seconds ahead of the platform's, or behind where that is negative."""
    return CLOCK_OFF.about(seconds=f"{abs(seconds):.0f}", direction="ahead of" if seconds > 0 else "behind")


def token_expired(moment: datetime) -> Cause:
    """The row for a token whose time was over then (UTC)."""
    return TOKEN_EXPIRED.about(date=f"{moment:%Y-%m-%d %H:%M} UTC")
