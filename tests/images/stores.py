"""Images for tests of the store: whole chunks made from numbers, so that images that share a number share a chunk."""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CHUNK_BYTES = 97_000


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Image:
    """Some content with its chunks."""

    content: bytes
    digest: str
    chunks: list

    def stream(self, numbers):
        """The bytes of these chunks, as a sender sends them."""
        starts = [sum(length for length, _ in self.chunks[:number]) for number in range(len(self.chunks))]
        return io.BytesIO(b"".join(self.content[starts[n] : starts[n] + self.chunks[n][0]] for n in numbers))


@cache
def image(*numbers, size=CHUNK_BYTES):
    """An image of one chunk per number."""
    pieces = [random.Random(number).randbytes(size) for number in numbers]
    content = b"".join(pieces)
    chunks = [[len(piece), hashlib.sha256(piece).hexdigest()] for piece in pieces]
    return Image(content, "sha256:" + hashlib.sha256(content).hexdigest(), chunks)


def send(store, new, record=None, quota=None):
    """Bring an image in as a caller does; the bytes that had to be sent."""
    missing = store.begin(new.digest, new.chunks, quota)["missing"]
    sent = 0
    while missing:
        sent += len(new.stream(missing).read())
        store.fill(new.digest, new.chunks, missing, new.stream(missing))
        missing = store.finish(new.digest, new.chunks, record)["missing"]
    if not store.have(new.digest)["have"]:
        assert store.finish(new.digest, new.chunks, record)["have"]
    return sent


def in_sight(store, read=True):
    """Digests of all that a job could find; each is read, and must be what its name says."""
    seen = set()
    for path in Path(store._path("blobs")).rglob("*"):
        if path.is_file():
            assert not read or hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            seen.add(f"sha256:{path.name}")
    return seen


def leftovers(store):
    """What lies in the store's folder of things under way."""
    return sorted(Path(store._path("tmp")).iterdir())
