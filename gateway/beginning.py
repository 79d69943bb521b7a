"""How a connection begins, until its TLS handshake: what it speaks, and for which name it was made.

Nothing of the handshake is taken from the socket: it is looked at (MSG_PEEK) and left for TLS to read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Protocol

from gateway import pages, postgres
from gateway.hello import Hellos
from gateway.proxied import exactly

TLS_HANDSHAKE = 0x16
TLS_HEADER_BYTES = 5
MOST_RECORD_BYTES = 16 * 1024 + 256
MOST_UNREAD_BYTES = 64 * 1024
UNIX_AGAIN_S = 0.01
"""Unix sockets are readable from the first byte on, whatever SO_RCVLOWAT says: there is no other sign of the rest."""

_hellos = Hellos()


class HasContexts(Protocol):
    """Knows TLS for names."""

    def context(self, name: str) -> ssl.SSLContext | None: ...


@dataclass(frozen=True, slots=True)
class Begun:
    """A connection just before its handshake. asked_as_postgres: in PostgreSQL's words."""

    name: str
    context: ssl.SSLContext
    asked_as_postgres: bool


async def begin(connection: socket.socket, names: HasContexts) -> Begun | None:
    """Bring a connection to its handshake; None when it was told what is wrong and is closed. It is closed, too, by
    any error: EOFError, OSError, ValueError."""
    try:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = await _begin(connection, names)
    except BaseException:
        connection.close()
        raise
    if begun is None:
        connection.close()
    return begun


async def _begin(connection: socket.socket, names: HasContexts) -> Begun | None:
    loop = asyncio.get_running_loop()
    asked_as_postgres = False
    while (first := await _peek(connection, 1)) == b"\0":
        asked = await exactly(connection, postgres.FIRST_BYTES)
        if asked_as_postgres or asked not in (postgres.SSL_REQUEST, postgres.GSS_REQUEST):
            await loop.sock_sendall(connection, postgres.needs_tls())
            return None
        asked_as_postgres = asked == postgres.SSL_REQUEST
        await loop.sock_sendall(connection, postgres.YES if asked_as_postgres else postgres.NO)
    if first != bytes([TLS_HANDSHAKE]):
        await loop.sock_recv(connection, MOST_UNREAD_BYTES)  # what stays unread would take our answer back
        await loop.sock_sendall(connection, pages.PLAIN_HTTP)
        return None
    name, alert = _hellos.read(await _record(connection))
    context = names.context(name)
    if context is None:
        await loop.sock_recv(connection, MOST_UNREAD_BYTES)
        await loop.sock_sendall(connection, alert)
        return None
    return Begun(name, context, asked_as_postgres)


async def _record(connection: socket.socket) -> bytes:
    """The first TLS record, whole."""
    header = await _peek(connection, TLS_HEADER_BYTES)
    length_bytes = TLS_HEADER_BYTES + struct.unpack("!H", header[3:])[0]
    if length_bytes > MOST_RECORD_BYTES:
        raise ValueError("no TLS record is so long")
    return await _peek(connection, length_bytes)


async def _peek(connection: socket.socket, length_bytes: int) -> bytes:
    """The next bytes, which stay to be read."""
    loop = asyncio.get_running_loop()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, length_bytes)
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    found = connection.recv(length_bytes, socket.MSG_PEEK)
    while connection.family == socket.AF_UNIX and 0 < len(found) < length_bytes:
        await asyncio.sleep(UNIX_AGAIN_S)
        found = connection.recv(length_bytes, socket.MSG_PEEK)
    if len(found) < length_bytes:
        raise EOFError
    return found
