"""A ``Channel`` over a pair of asyncio's streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

BUFFER_BYTES = 1024 * 1024
"""How much is read ahead."""


class StreamChannel:
    """Bytes both ways over a socket; half-close is respected."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, most_bytes: int) -> bytes:
        with _as_connection_error():
            return await self._reader.read(most_bytes)

    async def write(self, data: bytes) -> None:
        with _as_connection_error():
            self._writer.write(data)
            await self._writer.drain()

    async def end(self) -> None:
        with _as_connection_error():
            self._writer.write_eof()

    async def aclose(self) -> None:
        """What was not sent yet is still sent by the system, without waiting for it."""
        self._writer.close()


@contextlib.contextmanager
def _as_connection_error() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise ConnectionError(str(error)) from error
