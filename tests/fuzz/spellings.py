"""The ways to write one address or path. What decides about it must not depend on which was taken."""

from __future__ import annotations

import ipaddress

from relay_agent.core.urls import IpAddress


def of_address(address: IpAddress) -> list[str]:
    """Hosts of URLs that mean this address."""
    if isinstance(address, ipaddress.IPv6Address):
        return [f"[{address}]", f"[{address.exploded}]", f"[{str(address).upper()}]"]
    number = int(address)
    first, rest = divmod(number, 1 << 24)
    plain = [str(address), str(number), hex(number), f"0{number:o}", f"{first}.{rest}", f"0x{first:X}.{rest >> 16}.{rest & 0xFFFF}"]
    return [*plain, *(f"{each}." for each in plain), f"[::ffff:{address}]", f"[::FFFF:{number >> 16:x}:{number & 0xFFFF:x}]"]


def of_path(path: str) -> list[str]:
    """Paths that mean this path: every character percent-encoded, once and twice, steps that lead back, and a host before it."""
    once = "".join(f"%{byte:02x}" for byte in path.encode())
    hosts = [f"//x{path}", f"/\\x{path}"]
    slashes = [path.replace("/", written) for written in ("//", "/./", "\\")]
    return [once, once.replace("%", "%25"), *slashes, *hosts, f"/x/..{path}"]
