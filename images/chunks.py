"""Content-defined chunks: a file is cut where its own bytes say so, so that a change moves only the chunks it touches.

A squashfs of a new version keeps the compressed blocks of files that did not change, at other offsets. A boundary
depends on the 32 bytes before it alone, so the same run of blocks is cut into the same chunks wherever it stands. The
store's program cuts in the same way, in slow words: what one of them writes the other must find again, for years,
which is why this is not left to a library whose next version may cut elsewhere.
Source: Xia et al., FastCDC, USENIX ATC 2016 (gear hash, two thresholds), with the hash of a window instead of a chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scheduler.model.errors import SpecInvalid

AVERAGE_BYTES = 64 * 1024
LEAST_BYTES, MOST_BYTES = AVERAGE_BYTES // 4, AVERAGE_BYTES * 4
WINDOW_BYTES = 32
SOONER, LATER = 2**32 // (AVERAGE_BYTES * 4), 2**32 // (AVERAGE_BYTES // 4)
"""A boundary is where the hash is below this: before the average length rarely, after it four times the usual."""

_GEAR = np.array(
    [int.from_bytes(hashlib.sha256(b"berth chunk %d" % byte).digest()[:4], "big") for byte in range(256)], np.uint32
)
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of bytes of a file: how many, and their sha256 in hex."""

    length_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Index:
    """The chunks of a file in order; together they are the file."""

    chunks: tuple[Chunk, ...]

    @property
    def size_bytes(self) -> int:
        return sum(chunk.length_bytes for chunk in self.chunks)

    def missing(self, held: Collection[str]) -> tuple[int, ...]:
        """Numbers of the chunks that are not held, each content once. held: sha256 in hex."""
        first = {chunk.sha256: number for number, chunk in reversed(list(enumerate(self.chunks)))}
        return tuple(sorted(number for sha256, number in first.items() if sha256 not in held))

    def bytes_of(self, numbers: Sequence[int]) -> int:
        """Size of these chunks together."""
        return sum(self.chunks[number].length_bytes for number in numbers)

    def read(self, path: Path, numbers: Sequence[int]) -> Iterator[bytes]:
        """The chunks with these numbers from the file that was indexed."""
        offsets = [0]
        for chunk in self.chunks:
            offsets.append(offsets[-1] + chunk.length_bytes)
        with path.open("rb") as file:
            for number in numbers:
                file.seek(offsets[number])
                yield file.read(self.chunks[number].length_bytes)

    def to_json(self) -> list[list[object]]:
        """As it stands in a store: ``[length, sha256]`` each."""
        return [[chunk.length_bytes, chunk.sha256] for chunk in self.chunks]

    @classmethod
    def of_json(cls, value: object) -> Index:
        """From what a store holds; SpecInvalid names the first entry that is none."""
        if not isinstance(value, list):
            raise SpecInvalid.of("chunks", "are not a list", "index the image again")
        chunks = []
        for number, entry in enumerate(value):
            match entry:
                case [int(length_bytes), str(sha256)] if length_bytes > 0 and len(sha256) == 64:
                    chunks.append(Chunk(length_bytes, sha256))
                case _:
                    raise SpecInvalid.of(f"chunks[{number}]", "is not [length, sha256]", "index the image again")
        return cls(tuple(chunks))


def index_of(path: Path) -> Index:
    """Cut a file and take the digest of each chunk."""
    if path.stat().st_size == 0:
        return Index(())
    data = np.memmap(path, np.uint8, "r")
    start, chunks = 0, []
    for end in boundaries(data):
        chunks.append(Chunk(end - start, hashlib.sha256(data[start:end].data).hexdigest()))
        start = end
    return Index(tuple(chunks))


def boundaries(data: NDArray[np.uint8]) -> Iterator[int]:
    """Ends of the chunks of some bytes, the last one being the end of all."""
    start = 0
    for end, is_rare in _candidates(data):
        while end - start > MOST_BYTES:
            start += MOST_BYTES
            yield start
        if end - start >= (LEAST_BYTES if is_rare else AVERAGE_BYTES):
            start = end
            yield start
    while start < len(data):
        start = min(start + MOST_BYTES, len(data))
        yield start


def _candidates(data: NDArray[np.uint8]) -> Iterator[tuple[int, bool]]:
    """Positions after which the hash of the window is low; whether it is so low that a short chunk may end there."""
    for begin in range(0, len(data), _PIECE_BYTES):
        before = min(begin, WINDOW_BYTES - 1)
        hashes = _GEAR[data[begin - before : begin + _PIECE_BYTES]]
        reach = 1
        while reach < WINDOW_BYTES:  # each pass doubles the bytes that a hash has seen
            hashes[reach:] += hashes[:-reach] << np.uint32(reach)
            reach *= 2
        low = np.flatnonzero(hashes[before:] < LATER)
        for position in low.tolist():
            yield begin + position + 1, bool(hashes[before + position] < SOONER)
