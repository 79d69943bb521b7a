"""Files of systems as bodies of answers: sent piece by piece, under their names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import StreamingResponse

from api.schemas.base import shown
from backends.base import Storage
from scheduler.model.runs import FileInfo, FileKind
from scheduler.trees import files_below


async def members(storage: Storage, path: str, info: FileInfo) -> AsyncIterator[tuple[str, str, FileInfo]]:
    """Name in an archive, path in the storage and facts of a file, or of every file below a directory."""
    if info.kind is FileKind.FILE:
        yield info.name, path, info
        return
    async for name, below in files_below(storage, path):
        yield name, f"{path}/{name}".lstrip("/"), below


def streamed(pieces: AsyncIterator[bytes], name: str, headers: Mapping[str, str] | None = None) -> Response:
    """Bytes as a file to keep under a name."""
    disposition = f"attachment; filename*=UTF-8''{quote(shown(name), safe='')}"
    return StreamingResponse(
        pieces, media_type="application/octet-stream", headers={"Content-Disposition": disposition, **(headers or {})}
    )
