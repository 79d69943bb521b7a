"""The end of a log is found in a few reads, however long the log is."""

from __future__ import annotations

import pytest

from backends import tails
from backends.base import LOG_CHUNK_BYTES
from scheduler.model.runs import LogChunk

C = LOG_CHUNK_BYTES


class LongLog:
    """A log that is made up where it is read. grows_bytes: by how much at each read."""

    def __init__(self, size_bytes: int, grows_bytes: int = 0) -> None:
        self.size_bytes, self._grows, self.reads = size_bytes, grows_bytes, 0

    def text(self, begin: int, end: int) -> bytes:
        return bytes(place % 251 for place in range(begin, min(end, self.size_bytes)))

    async def read_log(self, remote_id, path, offset_bytes):
        self.reads += 1
        self.size_bytes += self._grows
        data = self.text(offset_bytes, offset_bytes + C)
        return LogChunk(data, offset_bytes, offset_bytes + len(data))


@pytest.mark.parametrize("most_bytes", [1000, C, 3 * C])
@pytest.mark.parametrize("size_bytes", [0, 1, 999, C - 1, C, C + 1, 3 * C, 3 * C + 5, 10 * C, 1000 * C + 17])
async def test_the_last_bytes_are_those_that_were_written_last(size_bytes, most_bytes):
    log = LongLog(size_bytes)
    assert await tails.newest(log, "1", "x", most_bytes) == log.text(max(0, size_bytes - most_bytes), size_bytes)
    assert log.reads <= 40


async def test_a_log_that_grows_meanwhile_ends_with_what_is_new():
    log = LongLog(50 * C, grows_bytes=100)
    data = await tails.newest(log, "1", "x", 2 * C)
    assert len(data) == 2 * C
    assert data == log.text(log.size_bytes - 2 * C, log.size_bytes)
