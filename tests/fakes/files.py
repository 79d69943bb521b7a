"""A file system in memory, and the Storage on it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath

from backends.beside import run_beside
from backends.local.commands import LocalCommands
from scheduler.model.errors import FileMissing, FileRefused
from scheduler.model.runs import FileInfo, FileKind

_LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakeFiles:
    """Absolute path to content: bytes of a file, None for a directory, a string for a link's target."""

    nodes: dict[str, bytes | str | None] = field(default_factory=lambda: {"/": None})

    def make_directory(self, path: str) -> None:
        for parent in (*reversed(PurePosixPath(path).parents), PurePosixPath(path)):
            if isinstance(self.nodes.setdefault(str(parent), None), bytes):
                raise FileRefused(f"{parent} is a file")

    def put(self, path: str, data: bytes) -> None:
        self.make_directory(str(PurePosixPath(path).parent))
        if path in self.nodes and self.nodes[path] is None:
            raise FileRefused(f"{path} is a directory")
        self.nodes[path] = data

    def link(self, path: str, target: str) -> None:
        self.make_directory(str(PurePosixPath(path).parent))
        self.nodes[path] = target

    def tree(self, path: str) -> list[str]:
        """The name itself and everything below it."""
        return sorted(name for name in self.nodes if name == path or name.startswith(path.rstrip("/") + "/"))

    def resolve(self, path: str, depth: int = 0) -> str:
        """The absolute path with every link followed; the last name need not exist."""
        if depth > 40:
            raise FileRefused(f"too many links: {path}")
        here = PurePosixPath("/")
        for part in PurePosixPath(path).parts[1:]:
            here = here.parent if part == ".." else here / part
            target = self.nodes.get(str(here))
            if isinstance(target, str):
                here = PurePosixPath(self.resolve(str(here.parent / target), depth + 1))
        return str(here)


class FakeStorage:
    """Storage on FakeFiles below ``root``."""

    def __init__(self, files: FakeFiles, root: str = "/") -> None:
        self._files, self._root = files, root
        files.make_directory(root)

    async def stat(self, path: str) -> FileInfo:
        return self._info(self._existing(path))

    async def list(self, path: str, limit: int = 1000, offset: int = 0) -> Sequence[FileInfo]:
        found = self._existing(path)
        if self._files.nodes[found] is not None:
            return [self._info(found)][offset : offset + limit]
        names = [name for name in self._files.tree(found) if name != found and str(PurePosixPath(name).parent) == found]
        return [self._info(name) for name in names[offset : offset + limit]]

    async def read(self, path: str, offset_bytes: int = 0, length_bytes: int | None = None) -> AsyncIterator[bytes]:
        data = self._data(path)[offset_bytes:]
        yield data if length_bytes is None else data[:length_bytes]

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        target = self._inside(path)
        data = b"".join([chunk async for chunk in chunks])
        self._files.put(target, data)
        return len(data)

    async def make_directory(self, path: str) -> None:
        self._files.make_directory(self._inside(path))

    async def move(self, source: str, target: str) -> None:
        self._copy(self._name(source), self._name(target), target)
        await self.delete(source)

    async def copy(self, source: str, target: str) -> None:
        self._copy(self._existing(source), self._inside(target), target)

    def _copy(self, here: str, there: str, target: str) -> None:
        if here not in self._files.nodes:
            raise FileMissing(here)
        if there == here or there.startswith(here + "/"):
            raise FileRefused(f"{target} lies within what is copied there")
        self._files.make_directory(str(PurePosixPath(there).parent))
        for name in self._files.tree(here):
            self._files.nodes[there + name[len(here) :]] = self._files.nodes[name]

    async def delete(self, path: str) -> None:
        found = self._name(path)
        if found not in self._files.nodes:
            raise FileMissing(path)
        if found == self._root:
            raise FileRefused("the root directory itself is never deleted")
        for name in self._files.tree(found):
            del self._files.nodes[name]

    async def checksum(self, path: str) -> str:
        return hashlib.sha256(self._data(path)).hexdigest()

    async def run_beside(self, program: bytes, stdin: bytes) -> bytes:
        """For real, on this machine: a program sees its files, not those in memory."""
        return await run_beside(LocalCommands(), program, stdin)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _inside(self, path: str) -> str:
        """The absolute path; FileRefused when it, or a link on the way, leaves the root."""
        if "\0" in path or ".." in PurePosixPath(path).parts:
            raise FileRefused(f"{path!r} is not a path below the root directory")
        found = self._files.resolve(str(PurePosixPath(self._root) / path.lstrip("/")))
        if found != self._root and not found.startswith(self._root.rstrip("/") + "/"):
            raise FileRefused(f"{path} leads out of the root directory")
        return found

    def _name(self, path: str) -> str:
        """The absolute path of the name itself, so that a link is moved or deleted and not what it points to."""
        asked = PurePosixPath(path.lstrip("/"))
        return str(PurePosixPath(self._inside(str(asked.parent))) / asked.name) if asked.name else self._inside(path)

    def _existing(self, path: str) -> str:
        found = self._inside(path)
        if found not in self._files.nodes:
            raise FileMissing(path)
        return found

    def _data(self, path: str) -> bytes:
        data = self._files.nodes[self._existing(path)]
        if not isinstance(data, bytes):
            raise FileRefused(f"{path} is not a file")
        return data

    def _info(self, found: str) -> FileInfo:
        node = self._files.nodes[found]
        kind = FileKind.FILE if isinstance(node, bytes) else FileKind.LINK if node else FileKind.DIRECTORY
        return FileInfo(
            path=found[len(self._root) :].lstrip("/"),
            kind=kind,
            size_bytes=len(node or ""),
            modified_at=_LONG_AGO,
            owner="fake",
            group="fake",
            permissions="rwxr-xr-x" if node is None else "rw-r--r--",
        )
