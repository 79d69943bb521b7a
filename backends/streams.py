"""Channels over connections of this process, and TLS on them that loses nothing at the end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Protocol, Self

from backends.base import Channel

CHUNK_BYTES = 64 * 1024
LINGER_S = 5.0
"""How long a connection that was ended here is read on: the system would take back what the other side has not read yet
from one that is closed with unread bytes."""


class OwnChannel(Channel, Protocol):
    """A channel over a connection of this process, which can be cut."""

    def abort(self) -> None:
        """Cut it, so that the other end takes nothing for whole that is not."""
        ...


async def exactly(channel: Channel, length_bytes: int, ended: str) -> bytes:
    """So many bytes; ConnectionError with the words ``ended`` at an end before them."""
    read = bytearray()
    while len(read) < length_bytes:
        piece = await channel.read(length_bytes - len(read))
        if not piece:
            raise ConnectionError(ended)
        read += piece
    return bytes(read)


class SocketChannel:
    """A connection of asyncio's, without TLS, as a ``Channel``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, most_bytes: int) -> bytes:
        return await self._reader.read(most_bytes)

    async def write(self, data: bytes) -> None:
        self._demand_open()
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        self._demand_open()
        self._writer.write_eof()

    async def aclose(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._writer.wait_closed()

    def abort(self) -> None:
        self._writer.transport.abort()

    def _demand_open(self) -> None:
        """uvloop raises RuntimeError where a connection was lost, as if the caller were wrong."""
        if self._writer.is_closing():
            raise ConnectionResetError("the connection has ended")


class TlsChannel:
    """TLS over a channel, by Python's own engine; one may read while another writes.

    uvloop's TLS throws away what nobody has read yet when the other side ends: up to 200 KB of what was sent in good
    order (see its pull request 661). And no event loop's can end one direction alone.
    """

    def __init__(self, below: OwnChannel, engine: ssl.SSLObject, came: ssl.MemoryBIO, goes: ssl.MemoryBIO) -> None:
        """Made by ``begin``. came, goes: what the engine reads from and writes to."""
        self._below, self._engine, self._came, self._goes = below, engine, came, goes
        self._flushing = asyncio.Lock()

    @classmethod
    async def begin(
        cls,
        below: OwnChannel,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> Self:
        """The channel after its handshake. ssl.SSLError where that fails; below is the caller's to close then.

        server_hostname: whose certificate the other side must show, where that is the server.
        """
        came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        begun = cls(below, context.wrap_bio(came, goes, server_side, server_hostname), came, goes)
        await begun._shake_hands()
        return begun

    @property
    def protocol(self) -> str | None:
        """What both sides agreed to speak (ALPN)."""
        return self._engine.selected_alpn_protocol()

    async def read(self, most_bytes: int) -> bytes:
        """Some bytes; empty at the end. That the other side said it (close_notify) is not demanded: many do not."""
        while True:
            try:
                return self._engine.read(most_bytes)
            except ssl.SSLWantReadError:
                if not self._flushing.locked():  # or two that wait for each other to read would wait for ever
                    await self._flush()
                await self._take()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise ConnectionResetError(f"TLS: {error.reason}") from None

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._engine.write(left) :]
        except ssl.SSLError as error:
            raise ConnectionResetError(f"TLS: {error.reason}") from None
        await self._flush()

    async def end(self) -> None:
        """No more will be written; reading goes on."""
        with contextlib.suppress(ssl.SSLError):  # that the other side has not ended yet
            self._engine.unwrap()
        await self._flush()
        await self._below.end()

    async def aclose(self) -> None:
        """End it, and let the other side read what was written."""
        try:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self.end()
                    while await self._below.read(CHUNK_BYTES):
                        pass
        finally:
            self._below.abort()

    def abort(self) -> None:
        self._below.abort()

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._engine.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._take()
            except ssl.SSLError:
                await self._flush()  # says why
                raise
            else:
                await self._flush()
                return

    async def _take(self) -> None:
        if data := await self._below.read(CHUNK_BYTES):
            self._came.write(data)
        else:
            self._came.write_eof()

    async def _flush(self) -> None:
        """Give what the engine has to say. In turn, or records could go out of order."""
        async with self._flushing:
            while data := self._goes.read():
                await self._below.write(data)
