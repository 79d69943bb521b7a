"""Bytes both ways: what a socket and a port of a pod have in common, and how one is carried into the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from backends.base import Channel
from backends.pods.sockets import OpenSocket
from gateway.joined import join

CHUNK_BYTES = 64 * 1024


class SocketChannel:
    """A connection of asyncio's as a ``Channel``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, most_bytes: int) -> bytes:
        return await self._reader.read(most_bytes)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        """With TLS, asyncio cannot end one direction alone: there both end, once everything was sent."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        else:
            self._writer.close()

    async def aclose(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                await self._writer.wait_closed()

    def abort(self) -> None:
        """Cut it, so that the other end takes nothing for whole that is not."""
        self._writer.transport.abort()


class Idle:
    """Calls ``expired`` once nothing was touched for ``limit_s``. One timer, however often it is touched."""

    def __init__(self, limit_s: float, expired: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s, self._expired = limit_s, expired
        self._touched_s = self._loop.time()
        self._timer = self._loop.call_later(limit_s, self._look)

    def touch(self) -> None:
        self._touched_s = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left_s = self._touched_s + self._limit_s - self._loop.time()
        if left_s <= 0:
            self._expired()
        else:
            self._timer = self._loop.call_later(left_s, self._look)


async def carry(one: Channel, other: Channel, idle_s: float) -> None:
    """Carry bytes both ways until both directions ended, one broke, or nothing came for ``idle_s``.

    Neither is closed here. A direction that ends is ended at the other side, while the other direction goes on.
    """
    carrying = asyncio.create_task(_carried(one, other, lambda: idle.touch()))
    idle = Idle(idle_s, carrying.cancel)
    try:
        await asyncio.wait({carrying})
    finally:
        idle.stop()
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)


async def _carried(one: Channel, other: Channel, touch: Callable[[], None]) -> None:
    if isinstance(one, OpenSocket) and isinstance(other, OpenSocket):
        await join(one.socket, other.socket, touch)
        return
    async with asyncio.TaskGroup() as ways:
        ways.create_task(_one_way(one, other, touch))
        ways.create_task(_one_way(other, one, touch))


async def _one_way(source: Channel, sink: Channel, touch: Callable[[], None]) -> None:
    while data := await source.read(CHUNK_BYTES):
        touch()
        await sink.write(data)
        touch()
    await sink.end()
