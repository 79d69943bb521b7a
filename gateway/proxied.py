"""Who is at the other end of a connection that another proxy of this host brings: its header, before all bytes.

Source: The PROXY protocol, version 2 (HAProxy, doc/proxy-protocol.txt).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_BYTES = len(SIGNATURE) + 4
PROXIED = 0x21
ADDRESSES = {0x1: (4, 12), 0x2: (16, 36), 0x3: (0, 216)}
"""Family -> bytes of one IP address (0: has none), and of all that is said of both ends."""
AUTHORITY = 0x02
MOST_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Header:
    """What is said of a client. address: empty where nothing is said; name: of its TLS handshake, in lower case."""

    address: str
    name: str


async def read_header(connection: socket.socket) -> Header:
    """Take the header off a connection, and no byte more. ValueError when it is none, EOFError at an early end."""
    fixed = await exactly(connection, FIXED_BYTES)
    command, family, length_bytes = struct.unpack("!BBH", fixed[len(SIGNATURE) :])
    if not fixed.startswith(SIGNATURE) or command != PROXIED or length_bytes > MOST_BYTES:
        raise ValueError("no PROXY header")
    return parse(family >> 4, await exactly(connection, length_bytes))


def parse(family: int, said: bytes) -> Header:
    """What follows the fixed part. ValueError when it ends early."""
    address_bytes, both_bytes = ADDRESSES.get(family, (0, 0))
    if len(said) < both_bytes:
        raise ValueError("half a PROXY header")
    address = str(ip_address(said[:address_bytes])) if address_bytes else ""
    name, at = "", both_bytes
    while at + 3 <= len(said):
        kind, length_bytes = struct.unpack_from("!BH", said, at)
        value = said[at + 3 : at + 3 + length_bytes]
        if kind == AUTHORITY:
            name = value.decode("ascii", "replace").lower().rstrip(".")
        at += 3 + length_bytes
    return Header(address, name)


async def exactly(connection: socket.socket, length_bytes: int) -> bytes:
    """So many bytes and no more, so that whoever is given the socket next finds all others. EOFError."""
    loop = asyncio.get_running_loop()
    read = b""
    while len(read) < length_bytes:
        more = await loop.sock_recv(connection, length_bytes - len(read))
        if not more:
            raise EOFError
        read += more
    return read
