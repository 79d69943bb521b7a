"""Where users may make the server connect to: their URLs and their registries are names that it looks up for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

from scheduler.model.errors import BackendUnavailable, FileRefused
from scheduler.settings import Network

_NAT64 = IPv6Network("64:ff9b::/96")


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects where users may make the server connect, and to the ``host[:port]`` that the operator named.

    No connection serves two requests: one address may have several names, and each is to prove its own.
    """

    def __init__(self, private_allow: Sequence[Network], named: Collection[str] = ()) -> None:
        self._private_allow, self._named = private_allow, frozenset(named)
        self._inner = httpx.AsyncHTTPTransport(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.netloc.decode("ascii") in self._named:
            return await self._inner.handle_async_request(request)
        host = request.url.raw_host.decode("ascii")
        address = await allowed_address(host, self._private_allow)
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return await self._inner.handle_async_request(pinned)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def allowed_address(host: str, private_allow: Sequence[Network]) -> str:
    """The address to connect to for a host: it is looked up once, so that a second look-up cannot change it.

    FileRefused when any of its addresses is not allowed, BackendUnavailable when it has none.
    """
    try:
        addresses = await addresses_of(host)
    except (socket.gaierror, UnicodeError) as error:
        raise BackendUnavailable(f"{host}: {error}") from None
    for address in addresses:
        if not may_reach(address, private_allow):
            raise FileRefused(f"{host}: {address} is not a public address; see BERTH_INPUT_PRIVATE_ALLOW")
    return str(addresses[0])


async def addresses_of(host: str) -> Sequence[IPv4Address | IPv6Address]:
    """At least one. socket.gaierror or UnicodeError where there is none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def may_reach(address: IPv4Address | IPv6Address, private_allow: Sequence[Network]) -> bool:
    """Whether the server may connect to this address: a public one, or one that the operator allowed."""
    real = _inner(address)
    if any(real in network for network in private_allow if network.version == real.version):
        return True
    return real.is_global and not real.is_multicast


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one carries, where it does."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address
