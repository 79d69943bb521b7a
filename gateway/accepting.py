"""Connections of listening sockets, each served by a task of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from backends.open_files import most_files

MOST_CONNECTIONS = 4000
FILES_OF_A_CONNECTION = 2
"""The client's and the pod's."""
SPARE_FILES = 512
"""For all else that this process opens: requests to the API, the store, connections to systems."""

log = structlog.get_logger()

Serve = Callable[[socket.socket, Any], Awaitable[None]]
"""Serves one connection, given the address of its other end, and closes it whatever happens."""


def most_connections(most_files: int) -> int:
    """How many may be served at once where so many files may be open; half are spared where there are few."""
    left = most_files - min(SPARE_FILES, most_files // 2)
    return max(1, min(MOST_CONNECTIONS, left // FILES_OF_A_CONNECTION))


class Accepting:
    """What several listening sockets share: how many connections they serve at once, and their end."""

    def __init__(self) -> None:
        self._most = most_connections(most_files())
        self._serving: set[asyncio.Task[None]] = set()

    async def accept(self, listener: socket.socket, serve: Serve) -> None:
        """Serve what comes to a socket until cancelled; what is being served goes on then."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:  # out of file descriptors, most likely
                log.warning("cannot accept a connection", error=str(error))
                await asyncio.sleep(1)
                continue
            if len(self._serving) >= self._most:
                connection.close()
                continue
            task = asyncio.create_task(_guarded(serve, connection, address))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def aclose(self) -> None:
        """Cut all connections that are left."""
        left = list(self._serving)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _guarded(serve: Serve, connection: socket.socket, address: Any) -> None:
    try:
        await serve(connection, address)
    except (OSError, EOFError, ValueError):  # ssl.SSLError and TimeoutError among them: the client's business
        return
    except Exception:
        log.exception("a connection failed", address=str(address))
