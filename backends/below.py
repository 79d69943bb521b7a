"""A directory of a ``Storage`` as one of its own, where the system cannot keep to it itself: no link is followed."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from backends.base import Storage
from scheduler.model.errors import FileMissing, FileRefused
from scheduler.model.runs import FileInfo, FileKind

PAGE = 1000


class Below:
    """Files below ``directory``. What leads there belongs to whoever opened this; links below it are refused."""

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage, self._top = storage, directory.strip("/")
        self._plain: set[str] = set()
        """Directories that were seen to be none but themselves."""

    async def stat(self, path: str) -> FileInfo:
        return self._own(await self._storage.stat(await self._inside(path)))

    async def list(self, path: str, limit: int = 1000, offset: int = 0) -> Sequence[FileInfo]:
        found = await self._storage.list(await self._inside(path), limit, offset)
        return [self._own(info) for info in found]

    async def read(self, path: str, offset_bytes: int = 0, length_bytes: int | None = None) -> AsyncIterator[bytes]:
        async for piece in self._storage.read(await self._inside(path), offset_bytes, length_bytes):
            yield piece

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        return await self._storage.write(await self._inside(path), chunks)

    async def make_directory(self, path: str) -> None:
        await self._storage.make_directory(await self._inside(path))

    async def move(self, source: str, target: str) -> None:
        here = await self._inside(source, is_name=True)
        await self._storage.move(here, await self._inside(target, is_name=True))
        self._plain.clear()

    async def copy(self, source: str, target: str) -> None:
        await self._storage.copy(await self._inside(source), await self._inside(target))

    async def delete(self, path: str) -> None:
        found = await self._inside(path, is_name=True)
        if found == self._top:
            raise FileRefused("the root directory itself is never deleted")
        await self._storage.delete(found)
        self._plain.clear()

    async def checksum(self, path: str) -> str:
        return await self._storage.checksum(await self._inside(path))

    async def run_beside(self, program: bytes, stdin: bytes) -> bytes:
        return await self._storage.run_beside(program, stdin)

    async def aclose(self) -> None:
        """The storage belongs to whoever opened it."""

    # -- below -------------------------------------------------------------------------------------------------------

    async def _inside(self, path: str, *, is_name: bool = False) -> str:
        """The path for the storage. ``is_name``: the last part is meant itself, so that it may be a link."""
        if "\0" in path or ".." in path.split("/"):
            raise FileRefused(f"{path[:200]!r} is not a path below the root directory")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        folder = self._top
        for part in parts[:-1] if is_name else parts:
            here = posixpath.join(folder, part)
            if here not in self._plain:
                kind = await self._kind(folder, part)
                if kind is FileKind.LINK:
                    raise FileRefused(f"{path[:200]}: '{part[:80]}' is a link, and those are not followed here")
                if kind is not FileKind.DIRECTORY:
                    break  # a file, or nothing yet
                self._plain.add(here)
            folder = here
        return posixpath.join(self._top, *parts)

    async def _kind(self, folder: str, name: str) -> FileKind | None:
        offset = 0
        try:
            while page := await self._storage.list(folder, PAGE, offset):
                for info in page:
                    if info.name == name:
                        return info.kind
                offset += len(page)
        except FileMissing:
            return None
        return None

    def _own(self, info: FileInfo) -> FileInfo:
        return replace(info, path=info.path.removeprefix(self._top).lstrip("/"))
