"""The end of a log that may be of any length, by what every backend can do: read from an offset on."""

from __future__ import annotations

from backends.base import LOG_CHUNK_BYTES, Backend
from scheduler.model.ids import RemoteId

FARTHEST_BYTES = 1 << 50
"""Beyond this no log goes."""


async def newest(backend: Backend, remote_id: RemoteId, path: str, most_bytes: int) -> bytes:
    """The last bytes of a log, at most ``most_bytes``; of one that grows meanwhile, as it was or newer.

    A short log is read from its beginning. The end of a longer one is sought by halves: a few reads for any length.
    """
    data, offset_bytes = b"", 0
    while len(data) < most_bytes:
        chunk = await backend.read_log(remote_id, path, offset_bytes)
        data, offset_bytes = data + chunk.data, chunk.next_offset_bytes
        if len(chunk.data) < LOG_CHUNK_BYTES:
            return data[-most_bytes:]
    begin = max(offset_bytes, await _end(backend, remote_id, path, offset_bytes) - most_bytes)
    data = data[-most_bytes:] if begin == offset_bytes else b""
    while True:
        chunk = await backend.read_log(remote_id, path, begin)
        data, begin = (data + chunk.data)[-most_bytes:], chunk.next_offset_bytes
        if len(chunk.data) < LOG_CHUNK_BYTES:
            return data


async def _end(backend: Backend, remote_id: RemoteId, path: str, known_bytes: int) -> int:
    """An offset within one chunk of the log's end; it has at least ``known_bytes``."""
    low, step = known_bytes, LOG_CHUNK_BYTES
    while low + step < FARTHEST_BYTES and (await backend.read_log(remote_id, path, low + step)).data:
        low, step = low + step, step * 2
    high = low + step
    while high - low > LOG_CHUNK_BYTES:
        middle = (low + high) // 2
        if (await backend.read_log(remote_id, path, middle)).data:
            low = middle
        else:
            high = middle
    return low
