"""HTTP proxies of the environment (`http_proxy`, `no_proxy`), for gRPC and for REST alike.

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
    """A proxy, and the variable of the environment that names it. As text it keeps the password to itself."""

    variable: str
    url: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"the proxy {parts.hostname}{f':{parts.port}' if parts.port else ''} of {self.variable}"


def grpc_proxy(address: Address) -> Proxy | None:
    """The proxy that gRPC asks an address through, in clear text or with TLS; None where it asks directly."""
    return _proxy(address, ("grpc", "https", "http"), ("no_grpc", "no"))


def rest_proxy(address: Address, scheme: str) -> Proxy | None:
    """The proxy that a REST call of `scheme`, `http` or `https`, goes through; None where it asks directly."""
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
    """Whether `no_proxy` lists an address: by name, by a domain that it is in, by IP or by network, or `*`."""
    host, ip = address.host.lower(), ip_address(address.host)
    for entry in (part.strip().lower().lstrip(".") for part in no_proxy.split(",")):
        if entry in ("*", host, str(address).lower()) or (entry and host.endswith(f".{entry}")):
            return True
        with contextlib.suppress(ValueError):  # of an entry that is no network
            if ip and ip in ipaddress.ip_network(entry, strict=False):
                return True
    return False
