"""Applies the layers of an image, in order, to an empty folder: what results is what a container would see.

The folder must be ours alone. What was made in it is kept in memory, so that every path is resolved there, inside the
image as a container would, and nothing is ever written through a link on disk.

Modes are those of the layers with two changes that do not depend on who unpacks, so that the same image always gives
the same tree. The owner may read every file and write every folder: it must be packed again. Setuid and setgid bits
go: a tree on Berth's host must not hold somebody's program that runs as root, and runtimes without a daemon ignore
them anyway. Owners and extended attributes are not kept for the same reasons; devices and fifos cannot be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from images.errors import BlobCorrupt, ImageUnusable
from images.streams import Layer, Limits, Readable
from images.tars import Archive, Entry, Kind
from scheduler.model.errors import FileRefused

_WHITEOUT, _AUFS, _OPAQUE = ".wh.", ".wh..wh.", ".wh..wh..opq"
_MAX_LINKS = 40
"""Links followed on one path, as the kernel does."""
_MAX_DEPTH = 255
_MAX_NAME_BYTES = 255
_PLAIN_FOLDER = 0o755
"""Mode of a folder that no entry states."""


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One layer as its registry keeps it. digest: of these bytes; diff_id: of what they unpack to."""

    digest: str
    diff_id: str
    packed: Readable


class Observer(Protocol):
    """Is told what the tree holds while it is made. Paths have no slash in front; bytes that are no UTF-8 stay as
    surrogates. A path that is made again was removed before."""

    def file(self, path: str, fd: int, size_bytes: int) -> None:
        """A regular file was written; ``fd`` reads it, during this call only."""
        ...

    def link(self, path: str, other: str) -> None:
        """``path`` is a further name of the file ``other``."""
        ...

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link was made; its target is as the layer states it."""
        ...

    def removed(self, path: str) -> None:
        """A file or link of this name is no more; whatever it showed is no proof of anything."""
        ...


@dataclass(slots=True)
class Unpacked:
    """What came of it. file_bytes: of the files that are left; the counts are of entries."""

    file_bytes: int = 0
    entry_count: int = 0
    skipped_count: int = 0
    """Devices, fifos and what is not known."""
    setuid_count: int = 0
    """Files that lost a setuid or setgid bit."""


def unpack(layers: Sequence[PackedLayer], root: Path, observer: Observer, limits: Limits | None = None) -> Unpacked:
    """Apply ``layers`` to the empty folder ``root``.

    BlobCorrupt when a layer is not what its digests say, ImageUnusable when it holds what no image may, FileRefused
    when this host cannot keep it. After an error the folder is worth nothing.
    """
    limits = limits or Limits()
    root.chmod(_PLAIN_FOLDER)
    tree = _Tree(os.fspath(root), observer, limits)
    for number, packed in enumerate(layers):
        layer = Layer(packed.packed, limits)
        tree.apply(number, Archive(layer, limits.entry_limit - tree.result.entry_count))
        for promised, found in zip((packed.digest, packed.diff_id), layer.finish(), strict=True):
            if promised != found:
                raise BlobCorrupt(f"a layer has the digest {found} where {promised} was promised: fetch it again")
    tree.date_folders()
    return tree.result


@dataclass(slots=True)
class _File:
    size_bytes: int
    name_count: int = 1


@dataclass(slots=True)
class _Symlink:
    target: str


@dataclass(slots=True)
class _Folder:
    names: dict[str, _Name] = field(default_factory=dict)
    mtime_s: int = 0


@dataclass(slots=True)
class _Name:
    """What stands under a name, and the layer that put it there last."""

    thing: _File | _Symlink | _Folder
    layer: int


class _Tree:
    def __init__(self, root: str, observer: Observer, limits: Limits) -> None:
        self._root, self._observer, self._limits = root, observer, limits
        self._top = _Folder()
        self._layer = 0
        self._written_bytes = 0
        self.result = Unpacked()

    def apply(self, number: int, archive: Archive) -> None:
        """Make, replace and remove what the entries of one layer say."""
        self._layer = number
        for entry in archive:
            self.result.entry_count += 1
            *folders, name = _parts(entry.name) or [""]
            with _told(entry):
                if any(part.startswith(_AUFS) for part in (*folders, name)) and name != _OPAQUE:
                    continue  # bookkeeping of an old storage driver
                if name.startswith(_WHITEOUT):
                    self._white_out(folders, name)
                elif entry.kind is Kind.OTHER:
                    self.result.skipped_count += 1
                elif name:
                    self._make(entry, archive, folders, name)
                elif entry.kind is Kind.DIRECTORY:
                    self._set_mode("", entry)
                    self._top.mtime_s = entry.mtime_s

    def date_folders(self) -> None:
        """Give folders their times, now that nothing is put into them any more."""
        pending = [("", self._top)]
        while pending:
            path, folder = pending.pop()
            os.utime(self._on_disk(path), (folder.mtime_s, folder.mtime_s))
            pending += [
                (_join(path, name), held.thing)
                for name, held in folder.names.items()
                if isinstance(held.thing, _Folder)
            ]

    # -- one entry ----------------------------------------------------------------------------------------------------

    def _make(self, entry: Entry, archive: Archive, folders: list[str], name: str) -> None:
        found = self._folder(folders, make=True)
        assert found is not None
        folder, path = found[0], _join(found[1], name)
        source = self._link_source(entry) if entry.kind is Kind.HARD_LINK else None
        there = folder.names.get(name)
        if there is not None and source is not None and there.thing is source[0]:
            return
        if there is not None and not (entry.kind is Kind.DIRECTORY and isinstance(there.thing, _Folder)):
            self._remove(folder, name, path)
        thing: _File | _Symlink | _Folder
        if source is not None:
            thing = self._hard_link(path, *source)
        elif entry.kind is Kind.FILE:
            thing = self._file(path, entry, archive)
        elif entry.kind is Kind.SYMLINK:
            thing = self._symlink(path, entry)
        else:
            thing = self._make_folder(path, entry, there)
        folder.names[name] = _Name(thing, self._layer)

    def _file(self, path: str, entry: Entry, archive: Archive) -> _File:
        self._written_bytes += entry.stored_bytes
        if max(entry.size_bytes, entry.stored_bytes) > self._limits.file_bytes:
            raise ImageUnusable.in_layer(f"'{path}' is longer than {self._limits.file_bytes} bytes", "make it smaller")
        if self._written_bytes > self._limits.unpacked_bytes:
            raise ImageUnusable.in_layer(
                f"the files have more than {self._limits.unpacked_bytes} bytes", "make it smaller"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._on_disk(path), flags, 0o600)
        try:
            for offset, chunk in archive.content(entry):
                _write(fd, chunk, offset)
            if entry.pieces is not None:
                os.ftruncate(fd, entry.size_bytes)
            self._set_mode(path, entry, fd)
            os.utime(fd, (entry.mtime_s, entry.mtime_s))
            self._observer.file(path, fd, entry.size_bytes)
        finally:
            os.close(fd)
        self.result.file_bytes += entry.size_bytes
        return _File(entry.size_bytes)

    def _set_mode(self, path: str, entry: Entry, fd: int | None = None) -> None:
        self.result.setuid_count += entry.kind is Kind.FILE and bool(entry.mode & 0o6000)
        least = 0o700 if entry.kind is Kind.DIRECTORY else 0o400
        os.chmod(self._on_disk(path) if fd is None else fd, entry.mode & 0o1777 | least)

    def _symlink(self, path: str, entry: Entry) -> _Symlink:
        target = os.fsdecode(entry.link)
        on_disk = self._on_disk(path)
        os.symlink(target, on_disk)
        os.utime(on_disk, (entry.mtime_s, entry.mtime_s), follow_symlinks=False)
        self._observer.symlink(path, target)
        return _Symlink(target)

    def _make_folder(self, path: str, entry: Entry, there: _Name | None) -> _Folder:
        folder = there.thing if there is not None and isinstance(there.thing, _Folder) else None
        if folder is None:
            folder = _Folder()
            os.mkdir(self._on_disk(path), 0o700)
        self._set_mode(path, entry)
        folder.mtime_s = entry.mtime_s
        return folder

    def _link_source(self, entry: Entry) -> tuple[_File | _Symlink, str]:
        """What a hard link is a further name of, and its path."""
        *folders, name = _parts(entry.link) or [""]
        found = self._folder(folders, make=False)
        held = found and found[0].names.get(name)
        if not found or not held or isinstance(held.thing, _Folder):
            raise ImageUnusable.in_layer(f"a hard link leads to '{_shown(entry.link)}', which is no file of the image")
        return held.thing, _join(found[1], name)

    def _hard_link(self, path: str, thing: _File | _Symlink, other: str) -> _File | _Symlink:
        os.link(self._on_disk(other), self._on_disk(path), follow_symlinks=False)
        if isinstance(thing, _Symlink):
            self._observer.symlink(path, thing.target)
            return thing
        thing.name_count += 1
        self._observer.link(path, other)
        return thing

    # -- removing -----------------------------------------------------------------------------------------------------

    def _white_out(self, folders: list[str], name: str) -> None:
        """Remove what lower layers put there; what this layer brings stays, whichever of the two comes first."""
        hidden = name.removeprefix(_WHITEOUT)
        if name != _OPAQUE and hidden in ("", ".", ".."):
            raise ImageUnusable.in_layer(f"'{name}' hides nothing that an image may hide")
        found = self._folder(folders, make=False)
        if found is not None:
            for each in list(found[0].names) if name == _OPAQUE else [hidden]:
                self._remove_older(found[0], each, _join(found[1], each))

    def _remove_older(self, folder: _Folder, name: str, path: str) -> None:
        held = folder.names.get(name)
        if held is None:
            return
        if held.layer < self._layer:
            self._remove(folder, name, path)
        elif isinstance(held.thing, _Folder):
            for inner in list(held.thing.names):
                self._remove_older(held.thing, inner, _join(path, inner))

    def _remove(self, folder: _Folder, name: str, path: str) -> None:
        thing = folder.names[name].thing
        if isinstance(thing, _Folder):
            for inner in list(thing.names):
                self._remove(thing, inner, _join(path, inner))
            os.rmdir(self._on_disk(path))
        else:
            os.unlink(self._on_disk(path))
            self._observer.removed(path)
        if isinstance(thing, _File):
            thing.name_count -= 1
            self.result.file_bytes -= 0 if thing.name_count else thing.size_bytes
        del folder.names[name]

    # -- paths --------------------------------------------------------------------------------------------------------

    def _folder(self, parts: list[str], *, make: bool) -> tuple[_Folder, str] | None:
        """The folder that a container would reach, following links inside the image; None when it is not there."""
        way: list[tuple[_Folder, str]] = [(self._top, "")]
        pending, links = parts[::-1], 0
        while pending:
            name = pending.pop()
            folder, path = way[-1]
            if name in ("", ".", ".."):
                way = way[:-1] if name == ".." and len(way) > 1 else way
                continue
            held = folder.names.get(name)
            if held is None:
                if not make:
                    return None
                held = self._implied(folder, name, _join(path, name))
            thing = held.thing
            if isinstance(thing, _Folder):
                way.append((thing, _join(path, name)))
                if len(way) > _MAX_DEPTH:
                    raise ImageUnusable.in_layer(f"folders are nested more than {_MAX_DEPTH} deep")
            elif isinstance(thing, _Symlink):
                links += 1
                if links > _MAX_LINKS:
                    raise ImageUnusable.in_layer(f"links lead in circles at '{path}/{name}'")
                pending += thing.target.split("/")[::-1]
                way = way[:1] if thing.target.startswith("/") else way
            elif make:
                raise ImageUnusable.in_layer(f"'{_join(path, name)}' is a file, and something is to be put into it")
            else:
                return None
        return way[-1]

    def _implied(self, folder: _Folder, name: str, path: str) -> _Name:
        """A folder that has no entry of its own."""
        os.mkdir(self._on_disk(path))
        os.chmod(self._on_disk(path), _PLAIN_FOLDER)
        folder.names[name] = held = _Name(_Folder(), self._layer)
        return held

    def _on_disk(self, path: str) -> str:
        return f"{self._root}/{path}"


def _parts(name: bytes) -> list[str]:
    """The names on a path in a layer; a slash in front means the root of the image."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageUnusable.in_layer(f"'{_shown(name)}' leads out of the image")
    if b"\0" in name or any(len(part) > _MAX_NAME_BYTES for part in parts):
        raise ImageUnusable.in_layer(f"'{_shown(name)}' is no name that a file can have")
    return [os.fsdecode(part) for part in parts]


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _write(fd: int, chunk: bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _shown(name: bytes) -> str:
    return name[:200].decode("utf-8", "backslashreplace")


@contextmanager
def _told(entry: Entry) -> Iterator[None]:
    """What the system says against an entry, as an error that tells whose turn it is."""
    try:
        yield
    except OSError as error:
        where = f"'{_shown(entry.name)}' cannot be unpacked: {error.strerror}"
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOENT, errno.EMLINK):
            raise ImageUnusable.in_layer(where) from None
        raise FileRefused(f"{where}; make room or give Berth another folder for images") from None
