"""Network addresses, `HOST:PORT`: names, IPv4, and IPv6 with or without brackets."""

import ipaddress
import socket
from typing import NamedTuple

from usr_tf.errors import InputError

_PORTS = range(1, 2**16)
_LOOPBACK_NAMES = {"localhost", "localhost.localdomain", "localhost6", "localhost6.localdomain6"}
_LOOPBACK_NAMES |= {"ip6-localhost", "ip6-loopback"}
"""Names of 127.0.0.1 and ::1 in the hosts files of Linux distributions."""


class Address(NamedTuple):
    """Host (IPv6 without brackets) and port. As text `HOST:PORT`, with IPv6 in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether the host is a loopback address or name of this machine."""
        ip = ip_address(self.host)
        if ip is None:
            name = self.host.lower().removesuffix(".")
            return name in _LOOPBACK_NAMES or name.endswith(".localhost") or name == socket.gethostname().lower()
        return ip.is_loopback or ip.is_unspecified


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """IP address of a host, with IPv4-mapped IPv6 as IPv4, and `127.1` as 127.0.0.1; None for a name."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return getattr(ip, "ipv4_mapped", None) or ip


def without_brackets(host: str) -> str:
    """`::1` for `[::1]`; any other host unchanged."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def parse_address(text: str) -> Address:
    """Parses `HOST:PORT`; in `::1:8500` the last number is the port.

    Raises:
      InputError: no host, no port from 1 to 65535, or colons in a host that is no IPv6 address.
    """
    host, _, port = text.rpartition(":")
    bare = without_brackets(host)
    is_host = bare and not set(bare) & set("[]/ ") and (":" not in bare or ip_address(bare) is not None)
    if not is_host or not (port.isascii() and port.isdigit() and int(port) in _PORTS):
        raise InputError(repr(text), "no address", "HOST:PORT, such as localhost:8500 or [::1]:8500")
    return Address(bare, int(port))
