"""HTTP proxy settings of the environment (`http_proxy`, `no_proxy`), for gRPC and REST.

This machine's own addresses are always asked directly.
"""

import contextlib
import ipaddress
import urllib.request
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from serving.network.address import Address, ip_address


class Proxy(NamedTuple):
    """Proxy and the environment variable that names it. Its text form hides the password."""

    variable: str
    url: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"the proxy {parts.hostname}{f':{parts.port}' if parts.port else ''} of {self.variable}"


def grpc_proxy(address: Address) -> Proxy | None:
    """Proxy of gRPC calls to an address, in clear text or TLS; None for a direct connection."""
    return _proxy(address, ("grpc", "https", "http"), ("no_grpc", "no"))


def rest_proxy(address: Address, scheme: str) -> Proxy | None:
    """Proxy of REST calls with `scheme` `http` or `https`; None for a direct connection."""
    return _proxy(address, (scheme,), ("no",))


def _proxy(address: Address, kinds: Sequence[str], exceptions: Sequence[str]) -> Proxy | None:
    named = urllib.request.getproxies_environment()
    if address.is_local or any(_lists(named.get(kind, ""), address) for kind in exceptions):
        return None
    kind = next((kind for kind in kinds if named.get(kind)), None)
    if kind is None:
        return None
    url = named[kind]
    return Proxy(f"{kind}_proxy", url if "://" in url else f"http://{url}")


def _lists(no_proxy: str, address: Address) -> bool:
    """Whether `no_proxy` matches an address: by name, domain, IP, network, or `*`."""
    host, ip = address.host.lower(), ip_address(address.host)
    for entry in (part.strip().lower().lstrip(".") for part in no_proxy.split(",")):
        if entry in ("*", host, str(address).lower()) or (entry and host.endswith(f".{entry}")):
            return True
        with contextlib.suppress(ValueError):  # of an entry that is no network
            if ip and ip in ipaddress.ip_network(entry, strict=False):
                return True
    return False
