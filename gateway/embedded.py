"""The proxy that every Berth has: one TCP port in front of all pods, told apart by the name in the TLS handshake.

The first byte says what a client speaks: TLS at once (HTTP, anything over TLS, PostgreSQL 17), or PostgreSQL's wish
for TLS, which is granted. From the handshake on, the net's protocol says what happens: HTTP is read and checked
request by request; everything else is carried as it is.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from backends.streams import OwnChannel, SocketChannel, TlsChannel
from gateway import conversation, postgres
from gateway.accepting import Accepting
from gateway.beginning import begin
from gateway.certificates import Certificate
from gateway.channels import carry
from gateway.conversation import Client, Conversation, Guard
from gateway.routes import Route
from gateway.ways import IDLE_S, Closed, Unknown, Ways
from scheduler.model.pods import NetProtocol

HANDSHAKE_S = 10
"""How long the first byte and the TLS handshake may take."""
ALPN = ("http/1.1", postgres.ALPN)


class Names:
    """TLS for the names of every domain."""

    def __init__(self) -> None:
        self._contexts: Mapping[str, ssl.SSLContext] = {}

    def serve(self, certificates: Mapping[str, Certificate]) -> None:
        """From now on these count: by domain. Connections that are open go on as they are."""
        contexts = {}
        for domain, certificate in certificates.items():
            contexts[domain] = _context()
            contexts[domain].load_cert_chain(certificate.chain, certificate.key)
        self._contexts = contexts

    def context(self, name: str) -> ssl.SSLContext | None:
        """TLS for a name; None for a name of no domain of ours."""
        return self._contexts.get(name.partition(".")[2]) or self._contexts.get(name)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    return context


class Embedded:
    """Serves what comes to a listening socket. guard: asks who somebody is, for nets with a login."""

    def __init__(self, names: Names, ways: Ways, guard: Guard = conversation.nobody) -> None:
        self._names, self._ways, self._guard = names, ways, guard

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Accept connections until ``stop`` is set, then cut those that are left. Closes the listener."""
        port, connections = listener.getsockname()[1], Accepting()

        async def serve(connection: socket.socket, address: Any) -> None:
            await self.serve_one(connection, str(address[0]), port)

        accepting = asyncio.create_task(connections.accept(listener, serve))
        try:
            await stop.wait()
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            await connections.aclose()
            listener.close()

    async def serve_one(self, connection: socket.socket, address: str, port: int) -> None:
        """Serve one connection from its first byte on, and close it."""
        plain: SocketChannel | None = None
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                begun = await begin(connection, self._names)
                if begun is None:
                    return
                plain = SocketChannel(*await asyncio.open_connection(sock=connection))
                channel = await TlsChannel.begin(plain, begun.context, server_side=True)
            is_postgres = begun.asked_as_postgres or channel.protocol == postgres.ALPN
            await self._named(Client(address, begun.name, port), is_postgres, channel.protocol, channel)
        finally:
            if plain is not None:
                plain.abort()

    async def serve_named(self, client: Client, channel: OwnChannel) -> None:
        """Serve a connection whose TLS has ended elsewhere. The channel is the caller's to abort."""
        await self._named(client, False, None, channel)

    async def _named(self, client: Client, is_postgres: bool, alpn: str | None, channel: OwnChannel) -> None:
        """Serve a connection by its name. One that was made for another protocol than the net's is not: what a server
        of one protocol makes of bytes that were meant for another is nobody's to try."""
        route = await self._ways.board.find(client.host_name)
        protocol = NetProtocol.HTTP if route is None else route.protocol
        if is_postgres and protocol in (NetProtocol.HTTP, NetProtocol.TCP):
            await channel.write(postgres.unknown(client.host_name))
        elif protocol is NetProtocol.HTTP:
            await Conversation(client, channel, self._ways, self._guard).serve()
        elif route is not None and (protocol is NetProtocol.TCP or is_postgres or alpn is None):
            await self._carried(client, route, channel)
        await channel.aclose()

    async def _carried(self, client: Client, route: Route, channel: OwnChannel) -> None:
        """Carry bytes to a pod and back; where that cannot be, PostgreSQL's clients are told why."""
        try:
            if route.net.needs_login or not route.admits(client.address):
                raise Closed("this address, or nobody without a login, may reach the pod")
            _, pod = await self._ways.reach(client.host_name)
        except (Unknown, Closed) as closed:
            if route.protocol is NetProtocol.POSTGRES:
                await channel.write(postgres.closed(str(closed)))
            return
        try:
            await carry(channel, pod, IDLE_S)
        finally:
            await pod.aclose()
