"""The files of an image in a folder or an archive, read where they lie: nothing is unpacked, so nothing can escape."""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from images.errors import ImageUnusable
from images.sources import PIECE_BYTES
from scheduler.model.errors import FileRefused

MAX_MEMBERS = 20_000
_MAX_HEADER_BYTES = 2**20
_LINKS_FOLLOWED = 8


class Files(Protocol):
    """The files of one image by their names in it. FileNotFoundError: there is none of that name."""

    def size_bytes(self, name: str) -> int:
        """How long a file is."""

    def pieces(self, name: str) -> Iterator[bytes]:
        """Its content."""


class Folder:
    """An image whose files lie below a folder."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def size_bytes(self, name: str) -> int:
        """How long a file is."""
        with open_file(self._place / name) as file:
            return os.fstat(file.fileno()).st_size

    def pieces(self, name: str) -> Iterator[bytes]:
        """Its content."""
        with open_file(self._place / name) as file:
            while piece := file.read(PIECE_BYTES):
                yield piece


class Archive:
    """An image whose files are the members of a tar, which are found once. ``name``: the image, for errors."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        if file.read(2) == b"\x1f\x8b":
            raise ImageUnusable(name, "is compressed as a whole", "unpack it first, for example with gunzip")
        file.seek(0)
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:  # type: ignore[call-overload]
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS or member.size < 0 or member.issparse():
                    raise ImageUnusable(
                        name, "is no archive of an image: too many files, or sparse ones", "make it again"
                    )
                self._note(member)

    def size_bytes(self, name: str) -> int:
        """How long a member is."""
        return self._member(name)[1]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Its content."""
        offset_bytes, left_bytes = self._member(name)
        self._file.seek(offset_bytes)
        while left_bytes and (piece := self._file.read(min(PIECE_BYTES, left_bytes))):
            left_bytes -= len(piece)
            yield piece

    def has(self, name: str) -> bool:
        """Whether there is a member of that name."""
        try:
            self._member(name)
        except FileNotFoundError:
            return False
        return True

    def _note(self, member: tarfile.TarInfo) -> None:
        name = _normal(member.name)
        if member.isreg():
            self._members[name] = member.offset_data, member.size
        elif member.issym():
            self._links[name] = _normal(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            self._links[name] = _normal(member.linkname)

    def _member(self, name: str) -> tuple[int, int]:
        """Old versions of ``docker save`` store a layer that comes twice as a link."""
        here = _normal(name)
        for _ in range(_LINKS_FOLLOWED):
            if here in self._members:
                return self._members[here]
            here = self._links.get(here, "")
        raise FileNotFoundError(f"{name[:200]} in the archive")


class _Headers:
    """The file as ``tarfile`` may see it: it reads headers alone, and a header of megabytes is an attack."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size_bytes: int = -1) -> bytes:
        if not 0 <= size_bytes <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header in it is too long")
        return self._file.read(size_bytes)


def _normal(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """A regular file and nothing else: opening a pipe would wait, and a device may do anything."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileRefused(f"{path} is not a file")
        yield file
