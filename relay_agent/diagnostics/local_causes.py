"""Causes and cures of what is wrong on this machine: settings, secrets, disk, journal, pages."""

from __future__ import annotations

from datetime import datetime

from relay_agent.core import errors
from relay_agent.core.failures import Cause, StorageTrouble
from relay_agent.diagnostics.causes import days_left

CONFIGURATION = Cause(
    "configuration",
    "{problems}",
    "correct each variable where it is set: for a container in agent.env, then run ./run.sh again; otherwise in the environment or in .env",
)
UNKNOWN_VARIABLES = Cause(
    "configuration", "no setting of the agent, so without effect: {names}", "correct the name ({nearest}), or remove the variable"
)
TOKEN_EXPIRED = Cause(
    "token",
    errors.JWT_EXPIRED,
    errors.NEW_JWT,
)
TOKEN_UNUSABLE = Cause(
    "token",
    "the file of JWT_FILE has changed and does not contain a JSON Web Token; the agent keeps using the previous one",
    "write the service user's token to that file, and nothing else",
)
TOKEN_ENDS = Cause(
    "token",
    "the JWT expires on {date}, in {days}; after that the platform refuses the agent",
    "create a new token for the service user before that date, and set JWT (or write it to the file of JWT_FILE)",
)
CA_ENDS = Cause(
    "configuration",
    "the CA certificate {subject} in {path} ({setting}) {when} the agent trusts no certificate that this CA issued",
    "add the CA's new certificate to that file, and remove the old one when no target uses it any more; {taken}",
)
CLIENT_ENDS = Cause(
    "configuration",
    "the client certificate {subject} in {path} ({setting}) {when} targets that require it refuse the agent",
    "have it renewed, and replace that file, and its key's file if the key is a new one; {taken}",
)
TAKEN_AT_START = "then restart the agent"
TAKEN_OVER = "the agent uses the new file within 10 s"
SET_CLOCK = "set this machine's clock (with NTP: `timedatectl set-ntp true`, or chrony); a container uses its host's clock"
SECRET_GONE = Cause(
    "configuration",
    "the file of {variable} cannot be read any more ({reason}); the agent keeps using what it last read from it",
    "restore the file, and let the agent's user read it; without it the agent cannot start again",
)
POLICY = Cause(
    "configuration",
    "the policy file has changed and is not valid: {problem}; the policy that was read before stays in force",
    "correct the file, which `relay-agent policy check FILE` checks; the agent reads it again within 10 s",
)
CLOCK_OFF = Cause(
    "clock",
    "this machine's clock is {seconds} s {direction} the platform's; AWS refuses requests signed more than 5 minutes off",
    SET_CLOCK,
)
NO_KEY = Cause(
    "secure-key",
    "no key is set, so secure commands (V2) fail with ENOKEY",
    "if senders use secure commands, create a key with `relay-agent keygen`, and set SECURE_COMMAND_KEY (or write it to the file of"
    " SECURE_COMMAND_KEY_FILE)",
)
KEYS = Cause(
    "secure-key",
    "the file of SECURE_COMMAND_KEY_FILE has changed and does not contain a usable key; the agent keeps using the previous keys",
    "write a key to that file: 32 bytes as base64, base64url or 64 hex digits (`relay-agent keygen` creates one); separate several keys"
    " with commas",
)
STATE_NOT_WRITABLE = Cause(
    "state-dir",
    "the agent cannot write its state directory: {path}",
    "set RELAY_STATE_DIR to a directory that the agent's user may write{more}",
)
DISK_FULL = Cause(
    "state-dir", "the disk of {path} is full: {free} MB are free", "free space on the disk of RELAY_STATE_DIR, or use a larger disk"
)
DISK_LOW = Cause(
    "state-dir",
    "the disk of {path} is filling up: {free} MB are free",
    "free space on the disk of RELAY_STATE_DIR: answers wait there while the platform cannot be reached",
)
ON_LAYER = Cause(
    "state-dir",
    "{path} is on the container's own layer, not on a volume: removing the container loses the commands that are not answered yet",
    "start the agent with run.sh, or mount a volume there (docker run -v ts-agent-http-relay-state:{path}), or set RELAY_STATE_DIR to a"
    " directory on a volume",
)
JOURNAL = Cause(
    "state-dir",
    "the journal cannot be written",
    "make sure that the disk of RELAY_STATE_DIR is neither full nor read-only; the agent resumes by itself once it can write",
)
JOURNAL_FULL = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR is full",
    f"{DISK_FULL.cure}; the agent resumes by itself once there is space",
)
JOURNAL_READ_ONLY = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR is read-only",
    "mount it writable (the system makes a disk with errors read-only: see the system log), or set RELAY_STATE_DIR to another disk; the"
    " agent resumes by itself once it can write",
)
JOURNAL_HANGS = Cause(
    "state-dir",
    "the disk of RELAY_STATE_DIR hangs: a write to it does not finish",
    "check the disk and its mount (a file server that cannot be reached, a failing disk: see the system log)",
)
JOURNAL_LOCKED = Cause(
    "state-dir",
    "another program holds a lock on the journal",
    "stop that program, such as a backup, a virus scanner or an SQLite shell (`fuser -v` or `lsof` on journal.db in RELAY_STATE_DIR shows"
    " it); the agent resumes by itself",
)
BACKLOG = Cause(
    "state-dir",
    "too many answers wait to be sent to the platform; more would fill the disk",
    "find out why they cannot be sent or uploaded (see send-failed or upload-failed in the log); the agent resumes by itself once fewer"
    " wait",
)
JOURNAL_DAMAGED = Cause(
    "state-dir",
    "the journal was damaged: the agent has renamed the file, and copied what could be read to a new journal",
    "check the disk (SMART values, system log), and whether another program writes to RELAY_STATE_DIR; keep the damaged file for the"
    " vendor's support, then delete it; commands that could not be read stay unanswered: inform their senders",
)
JOURNAL_ROWS_DAMAGED = Cause(
    "state-dir",
    "the records of some commands in the journal were altered; a command whose request or answer is altered is answered EINTERRUPTED",
    "check the disk (SMART values, system log), and whether another program writes to RELAY_STATE_DIR; commands whose ids are in"
    " `unreadable` of journal-rows-damaged may stay unanswered: inform their senders",
)
NOT_RESUMABLE = Cause(
    "state-dir",
    "the agent cannot resume this command from the journal's record of it",
    "check at the target whether the request was made, since the sender is answered EINTERRUPTED; send a support bundle to the vendor",
)
JOURNAL_SPOILED = Cause(
    "state-dir",
    "the journal is damaged ({reason}); at its next start the agent renames the file, and copies what can be read to a new journal",
    "check the disk (SMART values, system log), and whether another program writes to RELAY_STATE_DIR; copy {path} for the vendor's support"
    " if you like, then start the agent",
)
JOURNAL_OTHER = Cause(
    "state-dir",
    "the journal cannot be used: {reason}",
    "run the agent version that wrote it, or a newer one, as the user who owns it; or set RELAY_STATE_DIR to another directory",
)
STATE_BUSY = Cause(
    "state-dir",
    "the agent, another agent or `relay-agent retire` uses {path}",
    "stop the agent, or wait until `retire` has ended; or give this agent a RELAY_STATE_DIR of its own",
)
STDOUT_BLOCKED = Cause(
    "",
    "nothing reads the agent's stdout, and the pipe is full; commands still run, and the newest log lines wait (up to 1 MiB)",
    "check that the reader of stdout runs and has disk space: dockerd and its log driver, journald, or the program behind a shell's pipe",
)
TOO_SLOW = Cause(
    "",
    "the check got no answer within {seconds} s",
    "look at what the summary names: a disk, a DNS server or a proxy hangs; then run the check again",
)
UNEXPECTED = Cause(
    "",
    "the check itself failed with an unexpected {kind}",
    "report it to the vendor: set RELAY_LOG_LEVEL=debug, repeat it, and send the output with a support bundle",
)
CRASHED = Cause(
    "agent",
    "an internal error of the agent",
    "report it to the vendor: set RELAY_LOG_LEVEL=debug, repeat it, and send the output with a support bundle",
)
_OF_STORAGE = {
    StorageTrouble.LOCKED: JOURNAL_LOCKED,
    StorageTrouble.HANGS: JOURNAL_HANGS,
    StorageTrouble.FULL: JOURNAL_FULL,
    StorageTrouble.READ_ONLY: JOURNAL_READ_ONLY,
}


def journal_cause(trouble: StorageTrouble | None) -> Cause:
    """Return the cause of a journal that cannot be written."""
    return JOURNAL if trouble is None else _OF_STORAGE[trouble]


SPOOL = Cause(
    "state-dir",
    "the file of a large answer in the state directory cannot be read any more",
    "check the disk of RELAY_STATE_DIR (SMART values, system log), and whether another program deletes or changes files there",
)
_RESTART = (
    "wait: after 5 minutes the agent ends, and Docker or systemd restarts it; if this happens again, send a support bundle"
    " (`relay-agent support-bundle`) to the vendor"
)
STUCK = Cause(
    "agent",
    "a thread of the agent is stuck",
    _RESTART,
)
DEAD = Cause(
    "agent",
    "a thread of the agent has ended with an error",
    "wait: the agent ends, and Docker or systemd restarts it; if this happens again, send a support bundle (`relay-agent support-bundle`)"
    " to the vendor",
)
_OTHER_WAY = "; the agent works without them, and `status` and health checks use admin.sock in the state directory"
ADMIN_TAKEN = Cause(
    "configuration",
    "the agent's pages are not served at {address}: another program, such as a second agent, already uses this port" + _OTHER_WAY,
    "set RELAY_ADMIN_ADDR to a free port, or to off",
)
ADMIN_CLOSED = Cause(
    "configuration",
    "the agent's pages are not served at {address}: this machine does not let the agent listen there ({reason})" + _OTHER_WAY,
    "set RELAY_ADMIN_ADDR to an address of this machine and a port from 1024 up, or to off",
)
ADMIN_SOCKET = Cause(
    "state-dir",
    "the socket {address} cannot be created in the state directory ({reason}), so `status` and health checks find no agent",
    "make the disk of RELAY_STATE_DIR writable for the agent's user and free space on it, or set RELAY_STATE_DIR to a disk that allows"
    " sockets; the agent tries again by itself",
)
OVERDUE = Cause(
    "agent",
    "a request runs longer than its own time limit",
    _RESTART,
)
TAKING_OVER = Cause(
    "queue",
    "the queue may still hold messages of commands that this agent accepted before the queue was shared",
    "wait until it has deleted those messages: RELAY_LEASE_SECONDS and 20 s, or up to twelve times RELAY_LEASE_SECONDS while new commands"
    " keep arriving; then start the next agent",
)
STOPPING = Cause(
    "agent", "the agent was asked to stop", "wait until it has finished the running commands; start it again to accept commands"
)
CLOCK_SECONDS = 60.0
"""A smaller difference between the clocks causes no failure."""


def clock_is_off(seconds: float) -> bool:
    """Return whether a clock that is so many seconds ahead of the platform's, or behind, is to be reported."""
    return abs(seconds) > CLOCK_SECONDS


def clock_off(seconds: float) -> Cause:
    """Return the cause for a clock that is so many seconds ahead of the platform's; negative: behind."""
    return CLOCK_OFF.about(seconds=f"{abs(seconds):.0f}", direction="ahead of" if seconds > 0 else "behind")


def token_expired(moment: datetime) -> Cause:
    """Return the cause for a token that expired at this moment (UTC)."""
    return TOKEN_EXPIRED.about(date=f"{moment:%Y-%m-%d %H:%M} UTC")


def token_ends(moment: datetime, now: datetime) -> Cause:
    """Return the cause for a token that expires soon, or has expired."""
    if moment <= now:
        return token_expired(moment)
    return TOKEN_ENDS.about(date=f"{moment:%Y-%m-%d %H:%M} UTC", days=days_left(moment, now))


def backlog_reason(limit_bytes: int) -> str:
    """Return why a full backlog stops the intake."""
    return f"more than {limit_bytes / 1e9:g} GB wait to be sent to the platform"
