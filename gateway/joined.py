"""Two sockets joined: each byte is taken and given in one step, without a task, a stream or a copy in between.

What carries most of the traffic comes here: HAProxy's connections to pods of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from backends.pods.sockets import AT_ONCE

PIECE_BYTES = 64 * 1024


async def join(one: socket.socket, other: socket.socket, touch: Callable[[], None]) -> None:
    """Carry bytes both ways until both directions ended, or one broke. Neither is closed here; a direction that ends
    is ended at the other side. touch: called with each piece."""
    over = asyncio.get_running_loop().create_future()
    ways = [_Way(one, other, touch), _Way(other, one, touch)]

    def ended(*, broken: bool) -> None:
        if not over.done() and (broken or all(way.has_ended for way in ways)):
            over.set_result(None)

    try:
        for way in ways:
            way.begin(ended)
        await over
    finally:
        for way in ways:
            way.stop()


class _Way:
    """One direction: reads while the sink takes everything, else waits until it does."""

    def __init__(self, source: socket.socket, sink: socket.socket, touch: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._source, self._sink, self._touch = source, sink, touch
        self._left = memoryview(b"")
        self.has_ended = False

    def begin(self, ended: Callable[..., None]) -> None:
        self._ended = ended
        self._loop.add_reader(self._source, self._take)

    def stop(self) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)

    def _take(self) -> None:
        try:
            data = self._source.recv(PIECE_BYTES, AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._ended(broken=True)
            return
        self._left = memoryview(data)
        self._give()
        if not data:
            self._end()
        elif self._left:
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._give_rest)

    def _give(self) -> None:
        """Give what the sink takes now. One that takes no more ends this direction alone: what it said before it left,
        of a request that was too large for it, is still to be read."""
        self._touch()
        try:
            self._left = self._left[self._sink.send(self._left, AT_ONCE) :] if self._left else self._left
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._left = memoryview(b"")
            self._end()

    def _give_rest(self) -> None:
        self._give()
        if not self._left and not self.has_ended:
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._take)

    def _end(self) -> None:
        self.stop()
        self.has_ended = True
        with contextlib.suppress(OSError):  # it has left
            self._sink.shutdown(socket.SHUT_WR)
        self._ended(broken=False)
