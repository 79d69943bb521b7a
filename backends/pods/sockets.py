"""A ``Channel`` that is a socket of this machine, and nothing between: who carries much may take the socket itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator


class OpenSocket:
    """Bytes both ways over a connected socket. Nothing is read ahead, so that whoever takes ``socket`` finds all."""

    def __init__(self, connected: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self.socket = connected
        connected.setblocking(False)

    async def read(self, most_bytes: int) -> bytes:
        with _as_connection_error():
            return await self._loop.sock_recv(self.socket, most_bytes)

    async def write(self, data: bytes) -> None:
        with _as_connection_error():
            await self._loop.sock_sendall(self.socket, data)

    async def end(self) -> None:
        with _as_connection_error():
            self.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """What was not sent yet is still sent by the system, without waiting for it."""
        self.socket.close()


@contextlib.contextmanager
def _as_connection_error() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise ConnectionError(str(error)) from error
