"""Moving trees of files between storages: in pieces, repeatable, each file seen only when whole."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

from backends.base import Storage
from scheduler.model.errors import FileMissing, FileRefused, NothingLearnt
from scheduler.model.runs import FileInfo, FileKind
from scheduler.trees import walk

SAY_EVERY = timedelta(seconds=5)

Say = Callable[[str], Awaitable[None]]


class Progress:
    """Counts what was moved and says so every few seconds."""

    def __init__(self, verb: str, say: Say, clock: Callable[[], datetime]) -> None:
        self._verb, self._say, self._clock = verb, say, clock
        self._said_at = clock()
        self.files = 0
        self.bytes = 0

    async def moved(self, size_bytes: int) -> None:
        self.bytes += size_bytes
        if (now := self._clock()) - self._said_at >= SAY_EVERY:
            self._said_at = now
            await self._say(f"{self._verb}: {self}")

    def __str__(self) -> str:
        return f"{self.files} {'file' if self.files == 1 else 'files'}, {self.bytes / 1e6:.1f} MB"


async def copy_tree(
    source: Storage,
    top: str,
    target: Storage,
    target_top: str,
    progress: Progress,
    wanted: Callable[[str], bool] = lambda relative: True,
    *,
    in_target: str | None = None,
) -> None:
    """Bring a file or a tree to ``target_top``; what is there already, whole, is not moved again.

    ``wanted`` says which files, by their path below ``top``. A link is followed where it leads to a file.
    ``in_target``: where ``top`` lies in ``target``, which then copies the files that are no links by itself.
    """
    if source is target:
        in_target = top
    async for entry in walk(source, top):
        to = posixpath.join(target_top, entry.relative) if entry.relative else target_top
        if entry.info.kind is FileKind.DIRECTORY:
            if not entry.relative or wanted(entry.relative + "/"):
                await target.make_directory(to)
        elif entry.info.kind is not FileKind.OTHER and wanted(entry.relative):
            here = None if in_target is None else posixpath.join(in_target, entry.relative).rstrip("/")
            if source is not target and entry.info.kind is FileKind.LINK:
                here = None  # it may lead further in the target than in the source
            path = posixpath.join(top, entry.relative).rstrip("/")
            await _copy_file(source, path, entry.info, target, to, progress, here)


async def _copy_file(
    source: Storage, path: str, info: FileInfo, target: Storage, to: str, progress: Progress, in_target: str | None
) -> None:
    if info.kind is FileKind.FILE and await _is_there(target, to, info):
        return
    try:
        if in_target is not None:
            await target.make_directory(posixpath.dirname(to))
            await target.copy(in_target, to)
            await progress.moved(info.size_bytes)
        else:
            written = await target.write(to, counted(source.read(path), progress))
            if info.kind is FileKind.FILE and written != info.size_bytes:
                raise NothingLearnt(f"{path} changed while it was copied ({info.size_bytes} bytes, then {written})")
    except (FileMissing, FileRefused):
        if info.kind is not FileKind.LINK:
            raise
        return  # a link to a directory or to nowhere
    progress.files += 1


async def _is_there(target: Storage, to: str, info: FileInfo) -> bool:
    try:
        found = await target.stat(to)
    except FileMissing:
        return False
    return found.kind is FileKind.FILE and found.size_bytes == info.size_bytes


async def counted(chunks: AsyncIterator[bytes], progress: Progress) -> AsyncIterator[bytes]:
    """The same pieces, told to ``progress`` as they pass."""
    async for chunk in chunks:
        await progress.moved(len(chunk))
        yield chunk
