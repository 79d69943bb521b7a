"""Bytes both ways: what a socket and a port of a pod have in common, and how one is carried into the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backends.base import Channel
from backends.pods.sockets import OpenSocket
from backends.streams import CHUNK_BYTES
from gateway.joined import join


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
