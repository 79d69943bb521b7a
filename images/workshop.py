"""The folder in which Berth's host keeps images by digest, and the rooms in it where they are taken apart.

``blobs`` holds layers as registries keep them, ``needs`` what images of a manifest need, ``made`` which file a
conversion gave, ``files`` those files, and ``chunks`` how they are cut to be sent. What has a name there is whole: it
was renamed into its place. ``work`` holds what is in the making; what a process leaves there that was killed, the next
one to open the folder removes.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar
from weakref import WeakValueDictionary

from images.chunks import Index, index_of
from images.records import dump, load
from scheduler.model.errors import FileRefused, SpecInvalid

Record = TypeVar("Record")

IN_USE_S = 3600.0
"""After its last use begins, a file may be read for so long: by a conversion, or on its way to a system."""

_GET_FLAGS, _SET_FLAGS, _TOP_FOLDER = 0x8008_6601, 0x4008_6602, 0x0002_0000
"""Of <linux/fs.h>: ``FS_IOC_GETFLAGS``, ``FS_IOC_SETFLAGS`` and ``FS_TOPDIR_FL``, which ``chattr +T`` sets."""


class Locks:
    """One lock for each name, for as long as anyone holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, name: str) -> asyncio.Lock:
        """The lock of that name; keep it in a variable or a ``with`` as long as it is needed."""
        return self._locks.setdefault(name, asyncio.Lock())


class Workshop:
    """``home`` is ours alone. FileRefused when it cannot be written."""

    def __init__(self, home: Path) -> None:
        self._home, self._work, self._locks = home, home / "work", Locks()
        with _refusals(home):
            for name in ("blobs", "needs", "made", "files", "chunks", "work"):
                (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        _spread(self._work)
        self._sweep()

    def blob(self, digest: str) -> Path:
        """Where a blob is, or is to be."""
        return self._home / "blobs" / _hex(digest)

    def remove_blob(self, digest: str) -> None:
        """Let go of a blob, and of what a broken transfer left of it."""
        path = self.blob(digest)
        for each in (path, path.with_name(path.name + ".part")):
            each.unlink(missing_ok=True)

    def file(self, digest: str) -> Path:
        """Where a finished file is, or is to be."""
        return self._home / "files" / _hex(digest)

    def has_file(self, digest: str, size_bytes: int) -> bool:
        """Whether a finished file is there, all of it."""
        path = self.file(digest)
        return path.exists() and path.stat().st_size == size_bytes

    def used(self, path: Path) -> Path:
        """Say that a blob or file is used now, and may be for IN_USE_S."""
        os.utime(path)
        return path

    def collect(self, most_bytes: int) -> None:
        """Let go of blobs and files, least recently used first, until those that stay have at most so many bytes.

        What was used within IN_USE_S stays in any case.
        """
        now, left_bytes = time.time(), 0
        for path, found in sorted(self._kept(), key=lambda kept: -kept[1].st_mtime):
            left_bytes += found.st_size
            if left_bytes > most_bytes and now - found.st_mtime > IN_USE_S:
                path.unlink(missing_ok=True)

    def _kept(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in (*self._home.glob("blobs/*"), *self._home.glob("files/*")):
            with suppress(FileNotFoundError):
                yield path, path.stat()

    def note(self, kind: str, name: str, record: object) -> None:
        """Keep a record for good: all of it or nothing."""
        self._keep(self._record(kind, name), dump(record))

    def noted(self, kind: str, name: str, record: type[Record]) -> Record | None:
        """The record that was kept under that name; None when there is none that this version can read."""
        try:
            return load(record, self._record(kind, name).read_bytes())
        except (FileNotFoundError, SpecInvalid):
            return None

    async def chunks_of(self, file: Path, digest: str) -> Index:
        """The chunks of a file that never changes, cut once for all who send it."""
        kept = self._record("chunks", digest)
        async with self._locks.of(digest):
            return await asyncio.to_thread(self._index, file, kept)

    @asynccontextmanager
    async def room(self) -> AsyncIterator[Path]:
        """An empty folder to work in. It goes with all that is in it, however the work ends."""
        with _refusals(self._work), _held(self._work):
            room = Path(mkdtemp(dir=self._work))
            lock = _lock(room)
        assert lock is not None
        try:
            yield room
        finally:
            try:
                await asyncio.to_thread(shutil.rmtree, room)
            finally:
                os.close(lock)

    def _sweep(self) -> None:
        """Remove rooms that nobody works in any more, and records that nobody finished."""
        with _refusals(self._work), _held(self._work):
            for half in (*self._home.glob("needs/.*"), *self._home.glob("made/.*")):
                half.unlink(missing_ok=True)
            for room in self._work.iterdir():
                if (lock := _lock(room)) is not None:
                    shutil.rmtree(room)
                    os.close(lock)

    def _index(self, file: Path, kept: Path) -> Index:
        """What was kept, if it is an index of so many bytes; else cut anew and kept."""
        try:
            index = Index.of_json(json.loads(kept.read_bytes()))
            if index.size_bytes == file.stat().st_size:
                return index
        except (FileNotFoundError, ValueError, SpecInvalid):
            pass
        index = index_of(file)
        self._keep(kept, json.dumps(index.to_json()))
        return index

    def _keep(self, path: Path, text: str) -> None:
        """All of it or nothing; what a killed process left half written is written over."""
        fresh = path.with_name(f".{path.name}")
        with _refusals(path), _held(self._work):
            fresh.write_text(text)
            fresh.replace(path)

    def _record(self, kind: str, name: str) -> Path:
        return self._home / kind / f"{_hex(name)}.json"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _lock(folder: Path) -> int | None:
    """A hold on the folder that ends with the process; None when another one has it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _spread(folder: Path) -> None:
    """Let ext4 begin each folder in here in another part of the disk; other file systems say no, and need it not.

    ext4 does not use an inode again soon after its file went, and looks at all of these for each new file. A tree
    of 6,000 files, made where another one was just removed, took seconds for that alone.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            (flags,) = struct.unpack("i", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("i", flags | _TOP_FOLDER))
    finally:
        os.close(fd)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Rooms are made and removed, and records written, by one process at a time."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileRefused(f"{path}: {error.strerror}; free some space, or check who may write there") from None
