"""How much comes from where images are kept, and how long that takes, while somebody else fetches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from images.manifests import Descriptor
from images.platforms import Platform
from images.reference import Reference
from images.sources import Resolved, Sink, Source


class Metered:
    """A source that counts what goes through it. ``is_fetching``: blobs are under way at this moment."""

    def __init__(self, source: Source[Any], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._source, self._monotonic = source, monotonic
        self._under_way, self._since_s = 0, 0.0
        self.fetched_bytes = 0
        self.fetch_s = 0.0
        """Seconds in which at least one blob was under way, as far as they are over."""

    @property
    def is_fetching(self) -> bool:
        return self._under_way > 0

    async def resolve(self, reference: Reference, target: Platform) -> Resolved[Any]:
        """As the source resolves it."""
        return await self._source.resolve(reference, target)

    async def fetch(self, reference: Reference, blob: Descriptor, sink: Sink) -> None:
        """As the source brings it."""
        if not self._under_way:
            self._since_s = self._monotonic()
        self._under_way += 1
        try:
            await self._source.fetch(reference, blob, _Counting(sink, self))
        finally:
            self._under_way -= 1
            if not self._under_way:
                self.fetch_s += self._monotonic() - self._since_s


class _Counting:
    """A sink that tells how much was written to it."""

    def __init__(self, sink: Sink, meter: Metered) -> None:
        self._sink, self._meter = sink, meter

    def kept(self) -> Iterator[bytes]:
        return self._sink.kept()

    def write(self, piece: bytes | bytearray) -> None:
        self._meter.fetched_bytes += len(piece)
        self._sink.write(piece)

    def restart(self) -> None:
        self._sink.restart()

    def commit(self) -> None:
        self._sink.commit()
