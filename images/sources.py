"""Where images come from, behind one interface; and how a blob is taken over: never as whole before it is proven."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from images.errors import BlobCorrupt
from images.manifests import Config, Descriptor, Manifest
from images.platforms import Platform
from images.reference import Reference
from scheduler.model.errors import FileRefused

PIECE_BYTES = 2**20
"""How much of a blob is in memory at a time."""

Named = TypeVar("Named", bound=Reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved(Generic[Named]):
    """An image as it was when its name was resolved: everything after this goes by digest.

    ``index_digest`` is None where the name leads to a manifest directly. ``config`` is None for an artifact, whose
    content is ``manifest.sif``.
    """

    reference: Named
    """Pinned to what the tag meant, where the kind of reference can say so."""
    index_digest: str | None
    manifest_digest: str
    manifest: Manifest
    config: Config | None

    @property
    def config_digest(self) -> str:
        return self.manifest.config.digest


class Sink(Protocol):
    """Takes one blob. Nothing of it may be seen by anyone before ``commit``."""

    def kept(self) -> Iterator[bytes]:
        """What an earlier transfer of the same blob left, from its beginning; nothing when there is none."""

    def write(self, piece: bytes | bytearray) -> None:
        """Append; after ``kept``, behind what was kept."""

    def restart(self) -> None:
        """Forget all that was written: it was wrong."""

    def commit(self) -> None:
        """The blob is whole and has its digest: let it be seen."""


class Source(Protocol[Named]):
    """One place that images come from. Safe to call again after a crash with the same arguments.

    All methods raise the errors of ``images.errors``.
    """

    async def resolve(self, reference: Named, target: Platform) -> Resolved[Named]:
        """What ``reference`` means now, on a system of the target's platform."""

    async def fetch(self, reference: Named, blob: Descriptor, sink: Sink) -> None:
        """Bring a blob of the image into ``sink`` and commit it; BlobCorrupt when its bytes are others."""


class Proof:
    """Checks the bytes of a blob on their way to a sink: as many as its descriptor says, and of its digest."""

    def __init__(self, blob: Descriptor, sink: Sink, origin: str) -> None:
        self._blob, self._sink, self._origin = blob, sink, origin
        self._hash = hashlib.sha256()
        self.offset_bytes = 0
        self.is_pieced = False
        """Whether these bytes came from more than one answer: what is wrong may be the joint."""

    def resume(self) -> None:
        """Count what the sink kept of an earlier transfer."""
        for piece in self._sink.kept():
            self._count(piece)
            self.is_pieced = True

    def take(self, piece: bytes | bytearray) -> None:
        """Pass on the next bytes; BlobCorrupt, before they are written, when they are more than the blob has."""
        self._count(piece)
        self._sink.write(piece)

    def restart(self) -> None:
        """Begin again with nothing."""
        self._sink.restart()
        self._hash, self.offset_bytes = hashlib.sha256(), 0

    def commit(self) -> None:
        """Let the blob be seen; BlobCorrupt when these are not its bytes."""
        found = f"sha256:{self._hash.hexdigest()}"
        if not self.is_whole or found != self._blob.digest:
            raise BlobCorrupt(
                f"{self._origin} sent {self.offset_bytes} bytes with digest {found} for {self._blob.digest} of "
                f"{self._blob.size_bytes} bytes; they were thrown away. Push the image again if this stays"
            )
        self._sink.commit()

    @property
    def is_whole(self) -> bool:
        """Whether as many bytes have come as there are."""
        return self.offset_bytes == self._blob.size_bytes

    def _count(self, piece: bytes | bytearray) -> None:
        if self.offset_bytes + len(piece) > self._blob.size_bytes:
            raise BlobCorrupt(
                f"{self._origin} sends more than the {self._blob.size_bytes} bytes of {self._blob.digest}; it was "
                "stopped and nothing was kept. Push the image again if this stays"
            )
        self._hash.update(piece)
        self.offset_bytes += len(piece)


class FileSink:
    """A blob as a file: written beside its place under ``.part``, kept there for the next try, renamed when proven.

    Only one at a time may write to a path; who uses it holds a lock. FileRefused: the disk is full, or it may not.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")
        with self._refusals():
            fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "r+b", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def kept(self) -> Iterator[bytes]:
        """The bytes of an earlier try; afterwards the file stands at its end."""
        self._file.seek(0)
        while piece := self._file.read(PIECE_BYTES):
            yield piece

    def write(self, piece: bytes | bytearray) -> None:
        """Append to the part."""
        rest = memoryview(piece)
        with self._refusals():
            while rest:
                rest = rest[self._file.write(rest) :]

    def restart(self) -> None:
        """Empty the part."""
        self._file.seek(0)
        self._file.truncate()

    def commit(self) -> None:
        """Bring the bytes to the disk, then give the file its name, so that no crash shows it half."""
        with self._refusals():
            os.fsync(self._file.fileno())
            self._part.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileRefused(
                f"{self._part}: {error.strerror}; free some space, or check who may write there"
            ) from None


class MemorySink:
    """A small blob in memory; ``blob`` is None until it is proven."""

    def __init__(self) -> None:
        self._written = bytearray()
        self.blob: bytes | None = None

    def kept(self) -> Iterator[bytes]:
        """What came from another place."""
        return iter((bytes(self._written),) if self._written else ())

    def write(self, piece: bytes | bytearray) -> None:
        """Append."""
        self._written += piece

    def restart(self) -> None:
        """Forget."""
        self._written.clear()

    def commit(self) -> None:
        """Show what was written."""
        self.blob = bytes(self._written)
