"""When jobs start that stand in line behind all that was played one by one.

Jobs that ask for little slip into holes and do not wait for the large ones ahead of them, but for each other. So a job
starts when those ahead have begun that ask for no more than it does, at the pace at which such jobs began so far.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import ceil, log

from placement.easy import Load

SAMPLED = 300
"""Jobs that tell what share of the work in line is asked for by how small jobs."""

FEWEST = 10
"""Starts that tell a pace; where fewer asked for no more than the job, those count too that asked for little more."""

STEP = 1.1
"""Walltimes of one such step have one pace, that of the longest."""

GOLDEN = 0.618034
"""Its multiples, the whole taken off, repeat no pattern."""


class Pace:
    """How fast jobs began that ask for so much, and how many still stand in line."""

    def __init__(self, now_s: float, took_s: float, begun: Sequence[Load], waiting: Sequence[Load]) -> None:
        """begun: until ``now_s``; waiting: then, in order; took_s: what the whole system worked for ``begun``."""
        self._now_s, self._took_s = now_s, max(0.0, took_s)
        self._begun, self._some_waiting = _Asks(begun), _Asks(_some(waiting))
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
        scale = max(1.0, self._begun.nearest(FEWEST, cores, asked_s))
        alike_done = self._begun.work_s(cores * scale, asked_s * scale) or self._begun.all_s
        alike_ahead = self._some_waiting.work_s(cores * scale, asked_s * scale)
        share = alike_ahead / self._some_waiting.all_s if self._some_waiting.all_s else 1.0
        return self._took_s * min(1 / self._begun.all_s, share / alike_done)


class _Asks:
    """What jobs ask for, those of one size together: walltimes in rising order, and the work up to each of them.

    all_s: core-seconds of all.
    """

    def __init__(self, loads: Iterable[Load]) -> None:
        alike = defaultdict[int, list[float]](list)
        for load in loads:
            alike[load.cores].append(load.asked_s)
        self._sizes = [
            (cores, asked := sorted(several), list(accumulate([cores * each for each in asked], initial=0.0)))
            for cores, several in sorted(alike.items())
        ]
        self.all_s = sum(work_s[-1] for _, _, work_s in self._sizes)

    def work_s(self, most: float, longest_s: float) -> float:
        """Core-seconds of all that ask for no more."""
        return sum(
            [work_s[bisect_right(asked_s, longest_s)] for cores, asked_s, work_s in self._sizes if cores <= most]
        )

    def nearest(self, count: int, cores: int, asked_s: float) -> float:
        """By what factor so many of them ask for more at most: of cores, of walltime."""
        factors: list[float] = []
        for its_cores, its_asked_s, _ in self._sizes:
            wider = its_cores / cores
            factors += [longer if (longer := its_s / asked_s) > wider else wider for its_s in its_asked_s[:count]]
        factors.sort()
        return factors[min(count, len(factors)) - 1]


def _some(loads: Sequence[Load]) -> Sequence[Load]:
    """Some that stand for all, chosen so that no pattern goes unseen."""
    each = max(1.0, len(loads) / SAMPLED)
    return [loads[int((n + GOLDEN * n % 1.0) * each)] for n in range(int(len(loads) / each))]
