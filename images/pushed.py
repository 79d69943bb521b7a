"""Files that users pushed to Berth: kept by the digest of their bytes, and read by who pushed them alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from images.downloads import sif_file
from images.errors import ImageUnknown
from images.layouts import Layouts
from images.manifests import SIF_TYPE, Descriptor
from images.members import Archive, open_file
from images.platforms import Platform
from images.reference import ArchiveReference, Packing, PushedReference, is_digest
from images.sif import read_sif
from images.sources import PIECE_BYTES, Proof, Resolved, Sink
from scheduler.model.errors import FileRefused, SpecInvalid
from scheduler.model.images import PushedKind

STALE_S = 24 * 3600
"""After so long without a byte a file that is not whole is given up."""

SQUASHFS = b"hsqs"
_PACKINGS = {PushedKind.OCI_ARCHIVE: Packing.OCI_ARCHIVE, PushedKind.DOCKER_ARCHIVE: Packing.DOCKER_ARCHIVE}

KindOf = Callable[[str], Awaitable[tuple[PushedKind, int] | None]]
"""What a user pushed under that digest, and its bytes; None: nothing."""


class Pushes:
    """The folder in which pushed files lie, made by the first. limit_bytes: what one user may keep there."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def file(self, digest: str) -> Path:
        """Where a file lies, or is to lie."""
        assert is_digest(digest)
        return self.folder / digest.removeprefix("sha256:")

    async def take(self, digest: str, pieces: AsyncIterator[bytes], room_bytes: int) -> tuple[PushedKind, int]:
        """Write a file that comes in pieces; what it is, and its bytes. Nothing stays of what is not whole.

        SpecInvalid: it is larger than ``room_bytes``, has another digest, or is no image. FileRefused: no room here.
        """
        part = await asyncio.to_thread(self._part)
        try:
            size_bytes, found = await _written(part, pieces, room_bytes)
            if found != digest:
                raise SpecInvalid.of("digest", f"is not that of the {size_bytes} bytes that came", "push it again")
            kind = await asyncio.to_thread(kind_of_file, part)
            await asyncio.to_thread(_named, part, self.file(digest))
        finally:
            part.unlink(missing_ok=True)
        return kind, size_bytes

    def remove(self, digest: str) -> None:
        """Let go of a file; there being none is success."""
        self.file(digest).unlink(missing_ok=True)

    def _part(self) -> Path:
        """A place for a new file; parts that nobody writes any more go."""
        with _refusals():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in self.folder.glob("*.part"):
                if time.time() - part.stat().st_mtime > STALE_S:
                    part.unlink(missing_ok=True)
        return self.folder / f"{uuid4().hex}.part"


class Pushed:
    """What one user pushed, as a source of images."""

    def __init__(self, pushes: Pushes, kind_of: KindOf) -> None:
        self._pushes, self._kind_of = pushes, kind_of
        self._layouts = Layouts([pushes.folder])

    async def resolve(self, reference: PushedReference, target: Platform) -> Resolved[PushedReference]:
        """The image in the file; ImageUnknown when this user pushed no such file."""
        kind, size_bytes = await self._known(reference)
        if kind is PushedKind.SIF:
            return sif_file(reference, Descriptor(SIF_TYPE, reference.digest, size_bytes))
        found: Any = await self._layouts.resolve(_archive(reference, kind), target)
        return replace(found, reference=reference)

    async def fetch(self, reference: PushedReference, blob: Descriptor, sink: Sink) -> None:
        """Copy the file, or a blob that is in it."""
        kind, _ = await self._known(reference)
        if kind is PushedKind.SIF:
            await asyncio.to_thread(_copy, self._pushes.file(reference.digest), blob, sink)
        else:
            await self._layouts.fetch(_archive(reference, kind), blob, sink)

    async def _known(self, reference: PushedReference) -> tuple[PushedKind, int]:
        known = await self._kind_of(reference.digest)
        if known is None or not self._pushes.file(reference.digest).exists():
            raise never_pushed(reference)
        return known


def never_pushed(reference: PushedReference) -> ImageUnknown:
    """For everyone who did not push it, whether it is there or not."""
    return ImageUnknown(str(reference), "you pushed no such file; berth images push FILE")


def kind_of_file(path: Path) -> PushedKind:
    """What kind of image a file is; SpecInvalid when it is none."""
    with open_file(path) as file:
        head = file.read(4)
        file.seek(0)
        if head == SQUASHFS:
            return PushedKind.SIF
        try:
            names = _names(file)
        except (tarfile.TarError, RecursionError, UnicodeError):
            file.seek(0)
            _ = read_sif(file).partition
            return PushedKind.SIF
    for name, kind in (("index.json", PushedKind.OCI_ARCHIVE), ("manifest.json", PushedKind.DOCKER_ARCHIVE)):
        if name in names:
            return kind
    raise SpecInvalid.of("file", "is a tar, and no image", "push a SIF, or what docker save or skopeo copy writes")


def _names(file: BinaryIO) -> frozenset[str]:
    archive = Archive(file, "the file")
    return frozenset(name for name in ("index.json", "manifest.json") if archive.has(name))


def _archive(reference: PushedReference, kind: PushedKind) -> ArchiveReference:
    return ArchiveReference(_PACKINGS[kind], reference.digest.removeprefix("sha256:"))


async def _written(part: Path, pieces: AsyncIterator[bytes], room_bytes: int) -> tuple[int, str]:
    """How many bytes came, and their digest."""
    found, size_bytes = hashlib.sha256(), 0
    with _refusals(), part.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        async for piece in pieces:
            size_bytes += len(piece)
            if size_bytes > room_bytes:
                raise too_large(room_bytes)
            found.update(piece)
            await asyncio.to_thread(file.write, piece)
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    return size_bytes, f"sha256:{found.hexdigest()}"


def too_large(room_bytes: int) -> SpecInvalid:
    """There is room for so much only."""
    fix = "remove one that you pushed before: berth images pushed, berth images rm"
    return SpecInvalid.of("file", f"is larger than the {max(0, room_bytes)} bytes that you may still push", fix)


def _named(part: Path, path: Path) -> None:
    with _refusals():
        part.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _copy(path: Path, blob: Descriptor, sink: Sink) -> None:
    proof = Proof(blob, sink, "the pushed file")
    proof.restart()
    with open_file(path) as file:
        while piece := file.read(PIECE_BYTES):
            proof.take(piece)
    proof.commit()


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileRefused(f"the server cannot keep the file: {error.strerror}; tell its operator") from None
