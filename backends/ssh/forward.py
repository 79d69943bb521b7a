"""A ``Channel`` over a forward channel of an SSH connection: a TCP connection that begins at the host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import asyncssh


class ForwardedChannel:
    """Bytes both ways; half-close is respected.

    is_lost: whether the connection to the host is gone. closed: called once, when this channel is over.
    """

    def __init__(
        self,
        reader: asyncssh.SSHReader[bytes],
        writer: asyncssh.SSHWriter[bytes],
        is_lost: Callable[[], bool],
        closed: Callable[[], None],
    ) -> None:
        self._reader, self._writer, self._is_lost, self._closed = reader, writer, is_lost, closed
        self._is_open = True

    async def read(self, most_bytes: int) -> bytes:
        with _as_connection_error():
            piece = await self._reader.read(most_bytes)
        if not piece and self._is_lost():
            raise ConnectionError("the connection to the host was lost")  # which is not the end of what was sent
        return piece

    async def write(self, data: bytes) -> None:
        with _as_connection_error():
            self._writer.write(data)
            await self._writer.drain()

    async def end(self) -> None:
        with _as_connection_error():
            self._writer.write_eof()

    async def aclose(self) -> None:
        """What was not sent yet is still sent, without waiting for it."""
        if self._is_open:
            self._is_open = False
            self._writer.close()
            self._closed()


@contextlib.contextmanager
def _as_connection_error() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise
    except (asyncssh.Error, OSError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
