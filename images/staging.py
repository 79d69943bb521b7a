"""How an image reaches the nodes of a job: once to the site's store, and where it pays from there to local disks.

Pure: sizes, bandwidths and names in; seconds, shapes and plans out.
"""

from __future__ import annotations

from enum import StrEnum

CHUNK_BYTES_LIMITS = (64 * 2**10, 4 * 2**20)
FILL_SHARE = 1 / 12
"""How much of the time over one link a chain may take to fill: with each node, one more chunk must pass by."""


class Shape(StrEnum):
    """Who passes the image on to whom."""

    CHAIN = "chain"
    TREE = "tree"


def chunk_bytes(size_bytes: int, nodes: int) -> int:
    """Length of a relay's chunks: a power of two, so small that a chain over the nodes fills in FILL_SHARE."""
    least, most = CHUNK_BYTES_LIMITS
    fitting = int(size_bytes * FILL_SHARE / max(1, nodes - 1))
    return min(most, max(least, 1 << max(0, fitting.bit_length() - 1)))


def parents(nodes: int, shape: Shape) -> tuple[int | None, ...]:
    """For each position in the order of the nodes the one that it gets the image from; None for the first.

    The nodes below one are always neighbours in the order, so that an order by switch keeps most links within one.
    """
    if shape is Shape.CHAIN:
        return (None, *range(nodes - 1))
    found: list[int | None] = [None] * nodes
    ranges = [(0, nodes)]
    while ranges:
        root, end = ranges.pop()
        middle = (root + 1 + end + 1) // 2
        for first, last in ((root + 1, middle), (middle, end)):
            if first < last:
                found[first] = root
                ranges.append((first, last))
    return tuple(found)
