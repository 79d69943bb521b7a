"""The bytes of a layer: uncompressed as they are read, hashed on both sides, and never more of them than is allowed.

zstd comes from the library ``zstandard``: the program of the same name would be a process to feed and to supervise, and
its memory could not be bounded per layer. Neither gives more than is asked for, so that a bomb fills no memory.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol, cast

import zstandard

from images.errors import BlobCorrupt, ImageUnusable

CHUNK_BYTES = 1 << 20
WINDOW_BYTES = 128 << 20
"""The most memory that a zstd layer may ask for; ``zstd --long`` without a number asks for this much."""

_GZIP, _ZSTD, _SKIPPABLE = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one image, all layers together; file_bytes: of any one file.

    Beyond ``ratio_from_bytes`` a layer may not unpack to more than ``ratio_limit`` times its size: text packs 3 to 10
    times, zeros 1,000 times and more.
    """

    entry_limit: int = 5_000_000
    unpacked_bytes: int = 256 << 30
    file_bytes: int = 128 << 30
    ratio_limit: int = 200
    ratio_from_bytes: int = 1 << 30


class Readable(Protocol):
    """A file open for reading bytes, or what behaves like one."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


class Layer:
    """What a layer unpacks to, read in order. Its format is told by its first bytes: media types are often wrong."""

    def __init__(self, packed: Readable, limits: Limits) -> None:
        self._packed, self._limits = _Hashed(packed), limits
        self._sha256 = hashlib.sha256()
        self._chunks = self._unpacked()
        self._chunk, self._at = b"", 0
        self.unpacked_bytes = 0

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end."""
        pieces: list[bytes] = []
        while size > 0:
            if self._at == len(self._chunk):
                self._chunk, self._at = next(self._chunks, b""), 0
                if not self._chunk:
                    break
            pieces.append(self._chunk[self._at : self._at + size])
            self._at += len(pieces[-1])
            size -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> tuple[str, str]:
        """Reads what is left; the digests of the layer as it came and of what it unpacked to."""
        for _ in self._chunks:
            pass
        while self._packed.read(CHUNK_BYTES):
            pass
        return f"sha256:{self._packed.sha256.hexdigest()}", f"sha256:{self._sha256.hexdigest()}"

    def _unpacked(self) -> Iterator[bytes]:
        first = self._packed.read(CHUNK_BYTES)
        if first.startswith(_GZIP):
            chunks = _gunzip(first, self._packed)
        elif first.startswith(_ZSTD) or first[1:4] == _SKIPPABLE:
            chunks = _unzstd(_Again(first, self._packed))
        else:
            chunks = _plain(first, self._packed)
        for chunk in chunks:
            self._sha256.update(chunk)
            self.unpacked_bytes += len(chunk)
            self._check_ratio()
            yield chunk

    def _check_ratio(self) -> None:
        limits = self._limits
        if self.unpacked_bytes > limits.unpacked_bytes:
            raise ImageUnusable.in_layer(
                f"a layer unpacks to more than {limits.unpacked_bytes} bytes", "make it smaller"
            )
        allowed_bytes = max(limits.ratio_from_bytes, self._packed.taken_bytes * limits.ratio_limit)
        if self.unpacked_bytes > allowed_bytes:
            raise ImageUnusable.in_layer(f"a layer unpacks to more than {limits.ratio_limit} times its size")


class _Hashed:
    """What is read, counted and hashed."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.sha256 = hashlib.sha256()
        self.taken_bytes = 0

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        chunk = self._source.read(size)
        self.sha256.update(chunk)
        self.taken_bytes += len(chunk)
        return chunk


class _Again:
    """A source whose first bytes were read before."""

    def __init__(self, first: bytes, rest: Readable) -> None:
        self._first, self._rest = first, rest

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        if not self._first:
            return self._rest.read(size)
        chunk, self._first = self._first[:size], self._first[size:]
        return chunk


def _plain(first: bytes, rest: Readable) -> Iterator[bytes]:
    while first:
        yield first
        first = rest.read(CHUNK_BYTES)


def _gunzip(packed: bytes, rest: Readable) -> Iterator[bytes]:
    """Members one after another, as ``pigz`` and stargz write them."""
    member = zlib.decompressobj(31)
    try:
        while packed:
            chunk = member.decompress(packed, CHUNK_BYTES)
            if chunk:
                yield chunk
            packed = member.unconsumed_tail or member.unused_data or rest.read(CHUNK_BYTES)
            if member.eof and packed:
                member = zlib.decompressobj(31)
        chunk = member.flush()
    except zlib.error as error:
        raise BlobCorrupt(f"a layer is no sound gzip: {error}") from None
    if chunk:
        yield chunk
    if not member.eof:
        raise BlobCorrupt("a layer ends in the middle of its gzip stream")


def _unzstd(packed: _Again) -> Iterator[bytes]:
    """Frames one after another. One that is cut gives what it has: the digest tells."""
    frames = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).stream_reader(
        cast("IO[bytes]", packed), read_across_frames=True
    )
    try:
        while chunk := frames.read(CHUNK_BYTES):
            yield chunk
    except zstandard.ZstdError as error:
        raise BlobCorrupt(f"a layer is no sound zstd: {error}") from None
