"""Trees of files on a system, read page by page. Names are the system's word, and never trusted to be plain ones."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from dataclasses import dataclass

from backends.base import Storage
from scheduler.model.errors import FileRefused
from scheduler.model.runs import FileInfo, FileKind

LISTING = 1000
MOST_DEPTH = 64
"""Directories that lie deeper are a loop or a mistake."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a tree; ``relative`` is its path below the tree's top, empty for the top itself."""

    info: FileInfo
    relative: str


async def walk(storage: Storage, top: str) -> AsyncIterator[Entry]:
    """The file that ``top`` is, or everything below the directory, directories before what they hold."""
    info = await storage.stat(top)
    yield Entry(info, "")
    waiting = [(top, "")] if info.kind is FileKind.DIRECTORY else []
    while waiting:
        directory, relative = waiting.pop()
        if relative.count("/") > MOST_DEPTH:
            raise FileRefused(f"{directory}: directories lie more than {MOST_DEPTH} deep; name one of them")
        async for child in _entries(storage, directory):
            below = posixpath.join(relative, child.name)
            yield Entry(child, below)
            if child.kind is FileKind.DIRECTORY:
                waiting.append((posixpath.join(directory, child.name), below))


async def _entries(storage: Storage, directory: str) -> AsyncIterator[FileInfo]:
    offset = 0
    while page := await storage.list(directory, LISTING, offset):
        for info in page:
            if info.name not in ("", ".", ".."):  # a name is the system's word, and it names our files
                yield info
        if len(page) < LISTING:
            return
        offset += len(page)


async def files_below(storage: Storage, top: str = "") -> AsyncIterator[tuple[str, FileInfo]]:
    """Every file below a directory with its path relative to it; links are left out. FileRefused when too deep."""
    async for entry in walk(storage, top):
        if entry.info.kind is FileKind.FILE:
            yield entry.relative, entry.info
