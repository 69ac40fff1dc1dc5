"""Proxy programs that laboratories have, on loopback: squid, tinyproxy, microsocks, dante and mitmproxy.

Owns how each is configured, started and ended. What it does in odd cases is its own: proxies that misbehave on purpose are in
`target_proxies`. `make proxies` fetches the programs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import trustme

from relay_agent.core.clock import Deadline
from tests.programs import PATIENCE_SECONDS, TOOLS, environment, fetched, free_ports, readable_directory, running
from tests.target_certificates import authority, ca_pem

USER = "lab"
PASSWORD = "canary-7f3a-right"
"""The password that each proxy accepts; tinyproxy takes no other characters."""
ODD_LOGIN = ("us er@lab", "p@ss:/%41ü canary-7f3a")
"""Another login of squid."""
FORBIDDEN = "forbidden.lab.example"
"""A name that squid, tinyproxy and dante refuse."""
KNOWN = "known.lab.example"
"""A name of this machine that squid alone can resolve."""
_PAUSE = threading.Event()
"""Never set: what is waited for is a line of a file."""


@dataclass(frozen=True)
class RealProxy:
    """One door of a program: its URL without a user, and its log, which also has what the program prints."""

    scheme: str
    port: int
    log: Path

    def url(self, user: str | None = None, password: str | None = None) -> str:
        """The URL with these credentials, percent-encoded."""
        userinfo = "" if user is None else f"{quote(user, safe='')}:{quote(password or '', safe='')}@"
        return f"{self.scheme}://{userinfo}127.0.0.1:{self.port}"

    @property
    def right(self) -> str:
        """The URL with the user and password that the proxy accepts."""
        return self.url(USER, PASSWORD)

    @property
    def masked(self) -> str:
        """That URL as the agent may show it."""
        return f"{self.scheme}://{USER}:***@127.0.0.1:{self.port}"

    def said(self) -> str:
        """What the program has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_said(self, text: str) -> None:
        """Wait until its log has a text; fail loudly otherwise."""
        deadline = Deadline(PATIENCE_SECONDS)
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            seen = ""
            while text not in seen:
                assert not deadline.passed, f"{text} is not in {seen}"
                _PAUSE.wait(0.01)
                seen += lines.read()


@dataclass(frozen=True)
class Squid:
    """The doors of one squid.

    `login` asks for a password, and so does `over_tls`, to which one speaks TLS (for names of the tests' authority); `open` asks for
    none. `resigning` opens TLS and signs it anew with an authority of its own, `ca_pem`.
    """

    login: RealProxy
    over_tls: RealProxy
    open: RealProxy
    resigning: RealProxy
    ca_pem: bytes


@dataclass(frozen=True)
class Mitmproxy:
    """One mitmproxy, which asks for a password and re-signs TLS with an authority of its own."""

    login: RealProxy
    ca_pem: bytes


@contextlib.contextmanager
def run_squid() -> Iterator[Squid]:
    """Run squid: its names come from its own file of hosts, and there is no DNS server."""
    program = fetched("proxies/usr/sbin/squid")
    with readable_directory() as directory:
        own = trustme.CA(organization_name="the laboratory's proxy")
        _squid_files(directory, own)
        ports = free_ports(4)
        log = directory / "log"
        config = directory / "squid.conf"
        config.write_text(_squid_config(directory, ports, log))
        _give_away(directory)
        arguments = [program, "-N", "-f", str(config), "-d", "1"]
        with running(arguments, ports, log):
            login, over_tls, without, resigning = (
                RealProxy("https" if place == 1 else "http", port, log) for place, port in enumerate(ports)
            )
            yield Squid(login, over_tls, without, resigning, own.cert_pem.bytes())


def _squid_files(directory: Path, own: trustme.CA) -> None:
    """Write what squid reads; helpers and pages are copied, since the user that squid becomes may not read a checkout."""
    for name in ("basic_ncsa_auth", "security_file_certgen", "unlinkd"):
        shutil.copy(TOOLS / "proxies" / "usr" / "lib" / "squid" / name, directory)
    shutil.copytree(TOOLS / "proxies" / "usr" / "share" / "squid-langpack" / "English", directory / "pages")
    for name in ("icons", "mime.conf"):
        source = TOOLS / "proxies" / "usr" / "share" / "squid" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, directory / name)
    users = {USER: PASSWORD, ODD_LOGIN[0]: ODD_LOGIN[1]}
    hashed = [f"{name}:{hashlib.md5(password.encode()).hexdigest()}\n" for name, password in users.items()]
    (directory / "users").write_text("".join(hashed))
    (directory / "hosts").write_text(f"127.0.0.1 {KNOWN}\n")
    leaf = authority().issue_cert("127.0.0.1", "localhost")
    (directory / "door.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    (directory / "authority.pem").write_bytes(own.private_key_pem.bytes() + own.cert_pem.bytes())
    (directory / "trusted.pem").write_bytes(ca_pem())
    making = [str(directory / "security_file_certgen"), "-c", "-s", str(directory / "made"), "-M", "4MB"]
    subprocess.run(making, check=True, capture_output=True, env=environment(), timeout=PATIENCE_SECONDS)


def _squid_config(directory: Path, ports: Sequence[int], log: Path) -> str:
    login, over_tls, without, resigning = ports
    return f"""
http_port 127.0.0.1:{login} name=login
https_port 127.0.0.1:{over_tls} name=over_tls tls-cert={directory}/door.pem
http_port 127.0.0.1:{without} name=without
http_port 127.0.0.1:{resigning} name=resigning ssl-bump tls-cert={directory}/authority.pem generate-host-certificates=on
sslcrtd_program {directory}/security_file_certgen -s {directory}/made -M 4MB
sslcrtd_children 1 startup=1
acl greeting at_step SslBump1
ssl_bump peek greeting
ssl_bump bump all
tls_outgoing_options cafile={directory}/trusted.pem
auth_param basic program {directory}/basic_ncsa_auth {directory}/users
auth_param basic children 1 startup=1
auth_param basic realm the laboratory
acl asks_for_login myportname login over_tls
acl known_user proxy_auth REQUIRED
acl forbidden dstdomain {FORBIDDEN}
http_access deny forbidden
http_access deny asks_for_login !known_user
http_access allow all
cache deny all
cache_mem 8 MB
hosts_file {directory}/hosts
dns_nameservers 127.0.0.1
dns_timeout 1 second
positive_dns_ttl 1 second
negative_dns_ttl 1 second
error_directory {directory}/pages
icon_directory {directory}/icons
mime_table {directory}/mime.conf
access_log stdio:{log}
cache_log {log}
logfile_rotate 0
pid_filename none
pinger_enable off
unlinkd_program {directory}/unlinkd
netdb_filename none
coredump_dir {directory}
shutdown_lifetime 0 seconds
visible_hostname squid.lab.example
"""


def _give_away(directory: Path) -> None:
    """Give the files to the user that squid becomes, if this is root."""
    if os.geteuid() == 0:
        (directory / "log").touch()
        for path in (directory, *directory.rglob("*")):
            shutil.chown(path, "proxy", "proxy")


@contextlib.contextmanager
def run_tinyproxy(*, login: bool) -> Iterator[RealProxy]:
    """Run tinyproxy, with a password or without one."""
    program = fetched("proxies/usr/bin/tinyproxy")
    with readable_directory() as directory:
        (port,) = free_ports(1)
        log = directory / "log"
        (directory / "filter").write_text(f"^{FORBIDDEN.replace('.', '[.]')}$\n")
        config = directory / "tinyproxy.conf"
        config.write_text(
            f"Listen 127.0.0.1\nPort {port}\nTimeout 20\nMaxClients 50\nLogLevel Info\n"
            f'Filter "{directory}/filter"\nFilterType ere\nFilterDefaultDeny No\n' + (f"BasicAuth {USER} {PASSWORD}\n" if login else "")
        )
        with running([program, "-d", "-c", str(config)], [port], log):
            yield RealProxy("http", port, log)


@contextlib.contextmanager
def run_microsocks(*, login: bool) -> Iterator[RealProxy]:
    """Run microsocks, with a password or without one; it resolves names as this machine does."""
    program = fetched("proxies/usr/bin/microsocks")
    with readable_directory() as directory:
        (port,) = free_ports(1)
        log = directory / "log"
        credentials = ["-u", USER, "-P", PASSWORD] if login else []
        with running([program, "-i", "127.0.0.1", "-p", str(port), *credentials], [port], log):
            yield RealProxy("socks5h", port, log)


@contextlib.contextmanager
def run_dante() -> Iterator[RealProxy]:
    """Run dante, without a password (it takes those of the system's users), with rules."""
    program = fetched("proxies/usr/sbin/danted")
    with readable_directory() as directory:
        (port,) = free_ports(1)
        log = directory / "log"
        config = directory / "danted.conf"
        config.write_text(f"""
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 log: error }}
socks block {{ from: 0.0.0.0/0 to: {FORBIDDEN} log: connect error }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 log: connect error }}
""")
        with running([program, "-f", str(config), "-p", str(directory / "pid")], [port], log):
            yield RealProxy("socks5h", port, log)


@contextlib.contextmanager
def run_mitmproxy() -> Iterator[Mitmproxy]:
    """Run mitmproxy, which trusts the tests' authority."""
    program = fetched("mitmproxy/bin/mitmdump")
    with readable_directory() as directory:
        (port,) = free_ports(1)
        log = directory / "log"
        (directory / "trusted.pem").write_bytes(ca_pem())
        options = {
            "confdir": directory,
            "listen_host": "127.0.0.1",
            "listen_port": port,
            "proxyauth": f"{USER}:{PASSWORD}",
            "ssl_verify_upstream_trusted_ca": directory / "trusted.pem",
            "termlog_verbosity": "info",
        }
        arguments = [program, *(word for name, value in options.items() for word in ("--set", f"{name}={value}"))]
        with running(arguments, [port], log):
            yield Mitmproxy(RealProxy("http", port, log), (directory / "mitmproxy-ca-cert.pem").read_bytes())
