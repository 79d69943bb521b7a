"""Free cores over time, into which waiting jobs are planned one by one: the baseline that replays a queue."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

MAX_REPLAYED = 300
"""Waiting jobs planned one by one; what waits behind them is added as work."""


class FreeCores:
    """Free cores over time from now (0) on, as steps; the last one lasts for ever."""

    def __init__(self, free: int, ends: Iterable[tuple[float, int]] = ()) -> None:
        """``ends``: when, in seconds from now, how many more cores become free."""
        self._times, self._free = [0.0], [free]
        for at, cores in sorted(ends):
            if at > self._times[-1]:
                self._times.append(at)
                self._free.append(self._free[-1])
            self._free[-1] += cores

    def earliest_s(self, cores: int, duration_s: float) -> float | None:
        """When so many cores are first free for so long; None when never."""
        start: float | None = None
        for index, free in enumerate(self._free):
            if free < cores:
                start = None
                continue
            start = self._times[index] if start is None else start
            ends = self._times[index + 1] if index + 1 < len(self._times) else None
            if ends is None or ends - start >= duration_s:
                return start
        return None

    def take(self, start_s: float, cores: int, duration_s: float) -> None:
        """Put a job there; ``earliest_s`` has said that it fits."""
        first, last = self._cut(start_s), self._cut(start_s + duration_s)
        for index in range(first, last):
            self._free[index] -= cores

    def _cut(self, at: float) -> int:
        index = bisect_left(self._times, at)
        if index == len(self._times) or self._times[index] != at:
            self._times.insert(index, at)
            self._free.insert(index, self._free[index - 1])
        return index
