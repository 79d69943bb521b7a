"""When jobs start that stand in line behind all that was played one by one.

Jobs that ask for little slip into holes and do not wait for the large ones ahead of them, but for each other. So a job
starts when those ahead have begun that ask for no more than it does, at the pace at which such jobs began so far.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, inf, log

from placement.easy import Load

SAMPLED = 300
"""Jobs that tell what share of the work in line is asked for by how small jobs."""

FEWEST = 10
"""Starts that tell a pace; where fewer asked for no more than the job, those count too that asked for little more."""

STEP = 1.1
"""Walltimes of one such step have one pace, that of the longest."""

GOLDEN = 0.618034
"""Its multiples, the whole taken off, repeat no pattern."""


Asks = tuple[int, float, float]
"""What a job asks for: cores, walltime, and core-seconds."""


class Pace:
    """How fast jobs began that ask for so much, and how many still stand in line."""

    def __init__(self, now_s: float, took_s: float, begun: Sequence[Load], waiting: Sequence[Load]) -> None:
        """begun: until ``now_s``; waiting: then, in order; took_s: what the whole system worked for ``begun``."""
        self._now_s, self._took_s = now_s, max(0.0, took_s)
        self._begun, self._some_waiting = _asks(begun), _asks(_some(waiting))
        self._done, self._some_work = _work(self._begun), _work(self._some_waiting)
        self._ranks_s = [load.rank_s for load in waiting]
        self._ahead = list(accumulate([load.cores * load.asked_s for load in waiting], initial=0.0))
        self._waits: dict[tuple[int, int], float] = {}

    def start_s(self, cores: int, asked_s: float, rank_s: float) -> float:
        """When a job of that rank starts, whether it is in line already or joins it."""
        asked = cores, ceil(log(asked_s, STEP))
        if asked not in self._waits:
            self._waits[asked] = self._wait_for_work(cores, STEP ** asked[1])
        return self._now_s + self._waits[asked] * self._ahead[bisect_left(self._ranks_s, rank_s)]

    def _wait_for_work(self, cores: int, asked_s: float) -> float:
        """Seconds that a job waits for each core-second of all who stand ahead of it."""
        more = [max(each / cores, its_s / asked_s) for each, its_s, _ in self._begun]
        scale = max(1.0, sorted(more)[min(FEWEST, len(more)) - 1])
        alike_done = _work(self._begun, cores * scale, asked_s * scale) or self._done
        alike_ahead = _work(self._some_waiting, cores * scale, asked_s * scale)
        share = alike_ahead / self._some_work if self._some_work else 1.0
        return self._took_s * min(1 / self._done, share / alike_done)


def _work(asks: Sequence[Asks], most: float = inf, longest_s: float = inf) -> float:
    """Core-seconds of all that ask for no more."""
    return sum([work for cores, asked_s, work in asks if cores <= most and asked_s <= longest_s])


def _asks(loads: Sequence[Load]) -> Sequence[Asks]:
    return [(load.cores, load.asked_s, load.cores * load.asked_s) for load in loads]


def _some(loads: Sequence[Load]) -> Sequence[Load]:
    """Some that stand for all, chosen so that no pattern goes unseen."""
    each = max(1.0, len(loads) / SAMPLED)
    return [loads[int((n + GOLDEN * n % 1.0) * each)] for n in range(int(len(loads) / each))]
