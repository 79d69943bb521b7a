"""Archives made while they are sent: nothing is kept but the piece under way."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from io import RawIOBase
from typing import Any

from api.schemas.base import shown
from scheduler.model.runs import FileInfo

Members = AsyncIterable[tuple[str, str, FileInfo]]
"""Name in the archive, path in the storage, facts."""

Read = Callable[[str], AsyncIterator[bytes]]


async def zipped(members: Members, read: Read) -> AsyncIterator[bytes]:
    """A zip archive; entries may be larger than 4 GiB."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        async for name, path, info in members:
            modified = max(info.modified_at.timetuple()[:6], (1980, 1, 1, 0, 0, 0))
            entry = zipfile.ZipInfo(shown(name), modified)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as file:
                async for piece in read(path):
                    file.write(piece)
                    if sink.pending:
                        yield sink.taken()
            yield sink.taken()
    yield sink.taken()


async def tarred(members: Members, read: Read) -> AsyncIterator[bytes]:
    """A tar archive, compressed by gzip. A file that grows meanwhile is cut, one that shrinks is filled with zeros."""
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31)
    async for name, path, info in members:
        entry = tarfile.TarInfo(shown(name))
        entry.size, entry.mtime, entry.mode = info.size_bytes, int(info.modified_at.timestamp()), 0o644
        yield gzip.compress(entry.tobuf(tarfile.PAX_FORMAT))
        left = info.size_bytes
        async for piece in read(path):
            piece = piece[:left]
            left -= len(piece)
            yield gzip.compress(piece)
            if not left:
                break
        yield gzip.compress(bytes(left + -info.size_bytes % tarfile.BLOCKSIZE))
    yield gzip.compress(bytes(2 * tarfile.BLOCKSIZE)) + gzip.flush()


Archive = Callable[[Members, Read], AsyncIterator[bytes]]

ARCHIVES: Mapping[str, Archive] = {"zip": zipped, "tgz": tarred}


class _Sink(RawIOBase):
    """A file that is only written to; what was written waits to be sent."""

    def __init__(self) -> None:
        self.pending: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pending.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last time."""
        content, self.pending = b"".join(self.pending), []
        return content
