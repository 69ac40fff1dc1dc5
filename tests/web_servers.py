"""Apache and lighttpd from Debian, started on a free port of loopback: real peers for Digest.

Each answers what its CGI script saw: the user, the method and the body. Apache is a forward proxy besides.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.targets import closed_port

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 20.0
REALM = "the lab"
APACHE = shutil.which("apache2", path="/usr/sbin:/usr/bin")
APACHE_MODULES = Path("/usr/lib/apache2/modules")
LIGHTTPD_ROOT = Path("/") if shutil.which("lighttpd", path="/usr/sbin:/usr/bin") else ROOT / "build" / "tools" / "lighttpd"
LIGHTTPD = LIGHTTPD_ROOT / "usr" / "sbin" / "lighttpd"

# mod_cgi reads no output before the script has taken the whole body.
_SCRIPT = """#!/bin/sh
body=$(cat)
printf 'Content-Type: text/plain; charset=utf-8\\r\\n\\r\\n%s %s %s' "$REMOTE_USER" "$REQUEST_METHOD" "$body"
"""


class _Daemon:
    """A server in a directory of its own; ready once it has said so on stderr."""

    started = ""

    def __init__(self, users: dict[str, str], port: int | None = None) -> None:
        self.port = port or closed_port()
        # Not pytest's directory: a server that root starts serves as another user, who must be able to read it.
        self.directory = Path(tempfile.mkdtemp(prefix="digest-"))
        self.directory.chmod(0o755)
        script = self.directory / "echo.cgi"
        script.write_text(_SCRIPT, encoding="utf-8")
        script.chmod(0o755)
        self.users(users)
        self._lines: list[str] = []
        self._ready = threading.Event()
        # A session of its own: Apache passes a signal on to its whole process group.
        self._process = subprocess.Popen(
            self.command(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, encoding="utf-8", start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, name=f"{type(self).__name__}-stderr")
        self._reader.start()
        if not self._ready.wait(START_SECONDS) or self._process.poll() is not None:
            self.close()
            raise AssertionError(f"it did not start: {''.join(self._lines)}")

    def users(self, users: dict[str, str]) -> None:
        """Write the file of users."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Write the configuration, and return the command that starts the server."""
        raise NotImplementedError

    def url(self, path: str = "/echo.cgi") -> str:
        """The URL of the script."""
        return f"http://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        """End it and everything that it has written."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(START_SECONDS)
        self._reader.join(START_SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()
        shutil.rmtree(self.directory)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            if self.started in line:
                self._ready.set()
        self._ready.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _htdigest(users: dict[str, str], algorithm: str) -> str:
    digests = {user: hashlib.new(algorithm, f"{user}:{REALM}:{password}".encode()).hexdigest() for user, password in users.items()}
    return "".join(f"{user}:{REALM}:{digest}\n" for user, digest in digests.items())


class Apache(_Daemon):
    """Apache with mod_auth_digest (MD5, qop auth), before its script and as a forward proxy."""

    started = "resuming normal operations"

    def users(self, users: dict[str, str]) -> None:
        (self.directory / "users").write_text(_htdigest(users, "md5"), encoding="utf-8")

    def command(self) -> list[str]:
        modules = (
            *("mpm_prefork", "authn_core", "authn_file", "authz_core", "authz_user", "auth_digest"),
            *("alias", "cgi", "proxy", "proxy_http", "proxy_connect"),
        )
        place = self.directory
        lines = [f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in modules]
        lines += [
            f'ServerRoot "{place}"',
            "ServerName localhost",
            f"Listen 127.0.0.1:{self.port}",
            f'PidFile "{place}/pid"',
            f'DefaultRuntimeDir "{place}"',
            f"Mutex file:{place}",
            'ErrorLog "/dev/stderr"',
            "StartServers 1",
            "User www-data",
            "Group www-data",
            f'ScriptAlias /echo.cgi "{place}/echo.cgi"',
            "ProxyRequests On",
            "AllowCONNECT 1-65535",
            *(f"<{section}>\n{self._digest()}\n</{section.split()[0]}>" for section in ('Location "/echo.cgi"', 'Proxy "*"')),
        ]
        (place / "apache.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert APACHE is not None
        return [APACHE, "-d", str(place), "-f", str(place / "apache.conf"), "-DFOREGROUND"]

    def _digest(self) -> str:
        return f'AuthType Digest\nAuthName "{REALM}"\nAuthDigestProvider file\nAuthUserFile "{self.directory}/users"\nRequire valid-user'


class Lighttpd(_Daemon):
    """lighttpd with mod_auth (SHA-256, qop auth)."""

    started = "server started"

    def users(self, users: dict[str, str]) -> None:
        (self.directory / "users").write_text(_htdigest(users, "sha256"), encoding="utf-8")

    def command(self) -> list[str]:
        place = self.directory
        (place / "lighttpd.conf").write_text(
            f"""server.modules = ("mod_auth", "mod_authn_file", "mod_cgi")
server.document-root = "{place}"
server.bind = "127.0.0.1"
server.port = {self.port}
cgi.assign = (".cgi" => "")
auth.backend = "htdigest"
auth.backend.htdigest.userfile = "{place}/users"
auth.require = ("" => ("method" => "digest", "realm" => "{REALM}", "require" => "valid-user", "algorithm" => "SHA-256"))
""",
            encoding="utf-8",
        )
        return [str(LIGHTTPD), "-D", "-f", str(place / "lighttpd.conf"), "-m", str(LIGHTTPD_ROOT / "usr" / "lib" / "lighttpd")]
