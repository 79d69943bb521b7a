"""When jobs start that stand in line behind all that was played one by one.

Jobs that ask for little slip into holes and do not wait for the large ones ahead of them, but for each other. So a job
starts when those ahead have begun that ask for no more than it does, at the pace at which such jobs began so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from placement.easy import Load

SAMPLED = 40
"""Jobs that stand for all in a line."""

FEWEST = 8
"""Starts that tell a pace; where fewer asked for no more than the job, those count too that asked for little more."""

GOLDEN = 0.618034
"""Its multiples, the whole taken off, repeat no pattern."""


class Pace:
    """How fast jobs began that ask for so much, and how many still stand in line."""

    def __init__(self, now_s: float, took_s: float, begun: Sequence[Load], waiting: Sequence[Load]) -> None:
        """begun, waiting: until and after ``now_s``; took_s: how long the whole system had to work for ``begun``."""
        self._now_s, self._took_s = now_s, max(0.0, took_s)
        self._begun, self._waiting = _some(begun), _some(waiting)
        self._begun_work = sum(work for _, _, work, _ in self._begun)

    def start_s(self, cores: int, asked_s: float, rank_s: float) -> float:
        """When a job of that rank starts, whether it is in line already or joins it."""
        more = sorted([max(each / cores, its_s / asked_s) for each, its_s, _, _ in self._begun])
        scale = max(1.0, more[min(FEWEST, len(more)) - 1])
        most, longest_s = cores * scale, asked_s * scale
        begun = sum([work for each, its_s, work, _ in self._begun if each <= most and its_s <= longest_s])
        ahead = [(each, its_s, work) for each, its_s, work, its_rank_s in self._waiting if its_rank_s < rank_s]
        alike = sum([work for each, its_s, work in ahead if each <= most and its_s <= longest_s])
        whole_share = sum([work for _, _, work in ahead]) / self._begun_work
        return self._now_s + self._took_s * (min(whole_share, alike / begun) if begun else whole_share)


def _some(loads: Sequence[Load]) -> list[tuple[int, float, float, float]]:
    """Cores, walltime, core-seconds and rank of some that stand for all; chosen so that no pattern goes unseen."""
    each = max(1.0, len(loads) / SAMPLED)
    some = [loads[int((n + GOLDEN * n % 1.0) * each)] for n in range(int(len(loads) / each))]
    return [(load.cores, load.asked_s, each * load.cores * load.asked_s, load.rank_s) for load in some]
