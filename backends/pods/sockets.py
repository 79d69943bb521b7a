"""A ``Channel`` that is a socket of this machine, and nothing between: who carries much may take the socket itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator

AT_ONCE = socket.MSG_DONTWAIT
"""Said with each call: what a door handed over, its pod's account may have set to wait, and all of us with it."""
NO_LINGER = struct.pack("ii", 0, 0)


class OpenSocket:
    """Bytes both ways over a connected socket. Nothing is read ahead, so that whoever takes ``socket`` finds all."""

    def __init__(self, connected: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self.socket = connected
        connected.setblocking(False)

    async def read(self, most_bytes: int) -> bytes:
        with _as_connection_error():
            while True:
                try:
                    return self.socket.recv(most_bytes, AT_ONCE)
                except BlockingIOError:
                    await _until(self.socket, self._loop.add_reader, self._loop.remove_reader)

    async def take(self) -> tuple[bytes, OpenSocket | None]:
        """One byte, and the connection that was handed over with it, if any; no byte at the end."""
        with _as_connection_error():
            while True:
                try:
                    said, files, _, _ = socket.recv_fds(self.socket, 1, 1, AT_ONCE)
                    return said, OpenSocket(_connection(files[0])) if files else None
                except BlockingIOError:
                    await _until(self.socket, self._loop.add_reader, self._loop.remove_reader)

    async def write(self, data: bytes) -> None:
        with _as_connection_error():
            left = memoryview(data)
            while left:
                try:
                    left = left[self.socket.send(left, AT_ONCE) :]
                except BlockingIOError:
                    await _until(self.socket, self._loop.add_writer, self._loop.remove_writer)

    async def end(self) -> None:
        with _as_connection_error():
            self.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """What was not sent yet is still sent by the system, without waiting for it."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.socket.close()


def _connection(file: int) -> socket.socket:
    """What was handed over; ConnectionError when it is anything but one end of a TCP connection."""
    try:
        handed = socket.socket(fileno=file)
    except OSError:
        os.close(file)
        raise ConnectionError("what was handed over is no socket") from None
    try:
        if handed.type != socket.SOCK_STREAM or handed.family not in (socket.AF_INET, socket.AF_INET6):
            raise ConnectionError("what was handed over is no TCP connection")
        handed.getpeername()
    except BaseException:
        handed.close()
        raise
    return handed


async def _until(waited: socket.socket, add: Callable[..., object], remove: Callable[[int], object]) -> None:
    """Returns when a socket is ready."""
    file, ready = waited.fileno(), asyncio.get_running_loop().create_future()
    add(file, _resolve, ready)
    try:
        await ready
    finally:
        remove(file)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@contextlib.contextmanager
def _as_connection_error() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise ConnectionError(str(error)) from error
