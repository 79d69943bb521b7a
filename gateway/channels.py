"""Bytes both ways: what a socket and a port of a pod have in common, and how one is carried into the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backends.base import Channel
from backends.pods.sockets import OpenSocket
from backends.streams import CHUNK_BYTES
from gateway.joined import join

END_S = 30
"""How long one direction is kept that carries nothing, once the other has ended."""


class Idle:
    """Calls ``expired`` once nothing was touched for ``limit_s``. One timer, however often it is touched."""

    def __init__(self, limit_s: float, expired: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s, self._expired = limit_s, expired
        self._touched_s = self._loop.time()
        self._timer = self._loop.call_later(limit_s, self._look)

    def touch(self) -> None:
        self._touched_s = self._loop.time()

    def lower(self, limit_s: float) -> None:
        """From now on no longer than this."""
        self._limit_s = min(self._limit_s, limit_s)
        self.touch()
        self._timer.cancel()
        self._look()

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
    idle = Idle(idle_s, lambda: carrying.cancel())
    carrying = asyncio.create_task(_carried(one, other, idle))
    try:
        await asyncio.wait({carrying})
    finally:
        idle.stop()
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)


async def _carried(one: Channel, other: Channel, idle: Idle) -> None:
    if isinstance(one, OpenSocket) and isinstance(other, OpenSocket):
        await join(one.socket, other.socket, idle.touch)  # HAProxy's, which looks after END_S itself
        return
    async with asyncio.TaskGroup() as ways:
        ways.create_task(_one_way(one, other, idle))
        ways.create_task(_one_way(other, one, idle))


async def _one_way(source: Channel, sink: Channel, idle: Idle) -> None:
    while data := await source.read(CHUNK_BYTES):
        idle.touch()
        await sink.write(data)
        idle.touch()
    await sink.end()
    idle.lower(END_S)
