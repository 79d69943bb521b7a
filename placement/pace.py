"""When jobs start that stand in line behind all that was played one by one.

Jobs that ask for little slip into holes and do not wait for the large ones ahead of them, but for each other. So a job
starts when those ahead have begun that ask for no more than it does, at the pace at which such jobs began so far.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from placement.easy import Load

SAMPLED = 75
"""Jobs that stand for all in a line."""

FEWEST = 10
"""Starts that tell a pace; where fewer asked for no more than the job, those count too that asked for little more."""

GOLDEN = 0.618034
"""Its multiples, the whole taken off, repeat no pattern."""


Asks = tuple[int, float, float]
"""Cores, walltime, and core-seconds of all for whom the job stands."""


class Pace:
    """How fast jobs began that ask for so much, and how many still stand in line."""

    def __init__(self, now_s: float, took_s: float, begun: Sequence[Load], waiting: Sequence[Load]) -> None:
        """begun: until ``now_s``; waiting: then, in order; took_s: what the whole system worked for ``begun``."""
        self._now_s, self._took_s = now_s, max(0.0, took_s)
        self._begun, self._waiting = _asks(_some(begun), len(begun)), _asks(_some(waiting), len(waiting))
        self._ranks_s = [load.rank_s for load in _some(waiting)]
        self._ahead = list(accumulate((work for _, _, work in self._waiting), initial=0.0))
        self._done = sum(work for _, _, work in self._begun)

    def start_s(self, cores: int, asked_s: float, rank_s: float) -> float:
        """When a job of that rank starts, whether it is in line already or joins it."""
        most, longest_s = float(cores), asked_s
        begun = [work for each, its_s, work in self._begun if each <= most and its_s <= longest_s]
        if len(begun) < FEWEST:
            more = sorted([max(each / cores, its_s / asked_s) for each, its_s, _ in self._begun])
            scale = more[min(FEWEST, len(more)) - 1]
            most, longest_s = most * scale, longest_s * scale
            begun = [work for each, its_s, work in self._begun if each <= most and its_s <= longest_s]
        ahead = bisect_left(self._ranks_s, rank_s)
        alike = [work for each, its_s, work in self._waiting[:ahead] if each <= most and its_s <= longest_s]
        whole_share, done = self._ahead[ahead] / self._done, sum(begun)
        return self._now_s + self._took_s * (min(whole_share, sum(alike) / done) if done else whole_share)


def _some(loads: Sequence[Load]) -> Sequence[Load]:
    """Some that stand for all, chosen so that no pattern goes unseen."""
    each = max(1.0, len(loads) / SAMPLED)
    return [loads[int((n + GOLDEN * n % 1.0) * each)] for n in range(int(len(loads) / each))]


def _asks(some: Sequence[Load], of: int) -> Sequence[Asks]:
    """What some ask for that stand for so many."""
    return [(load.cores, load.asked_s, of / len(some) * load.cores * load.asked_s) for load in some]
