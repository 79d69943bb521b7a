"""Who keeps room in a store that is too small for all: images that are needed soon and are small, before the others.

Where there is room an image comes at once, and nothing here is asked. Where there is none, the image of a job that
waits in the queue holds its room softly: it may have to go for another, and comes again before its own job begins. What
jobs read that have begun stays.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import exp, inf, log
from statistics import NormalDist
from types import MappingProxyType

SOON = 0.1
"""Quantile of the start that counts, of those that are still possible: jobs may well begin before the median."""

LEAD_S = 60.0
"""Starts that are closer than this are as good as at once."""

LINDY = 0.1
"""A job that waits far longer than was foreseen waits on for at least this share of what it waited."""

SHORT = 0.5
"""Of a store's room: where images that jobs need take more, their nodes have copies rather than read the store's."""

_UNIT = NormalDist()
_P90 = _UNIT.inv_cdf(0.9)


class Grade(IntEnum):
    """Who needs an image: nobody, jobs in the queue, or one at least that has begun (or that an owner pinned)."""

    IDLE = 0
    QUEUED = 1
    BEGUN = 2


MAY_TAKE: Mapping[tuple[Grade, Grade], float] = MappingProxyType(
    {
        (Grade.QUEUED, Grade.IDLE): 0.0,
        (Grade.QUEUED, Grade.QUEUED): 6.0,
    }
)
"""(who wants room, who has it): how many times the holder's turn must be later. Other pairs: never.
A job that has begun is late already: the runtime fetches its image beside the store, and those that wait keep theirs.
Without a margin two images that are about as pressing would push each other out again and again.
"""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The wait of a job, seconds from its submission: median and 90th percentile, as placement told them."""

    p50_s: float
    p90_s: float

    def starts_in_s(self, waited_s: float) -> float:
        """Seconds until it begins as it may soon, given that it waited so long and has not begun yet.

        Log-normal through both quantiles; without spread what is left of the median.
        """
        p50_s = max(1.0, self.p50_s)
        if self.p90_s <= p50_s:
            return max(0.0, p50_s - waited_s)
        middle, spread = log(p50_s), log(self.p90_s / p50_s) / _P90
        over = _UNIT.cdf((log(waited_s) - middle) / spread) if waited_s > 0 else 0.0
        at = over + SOON * (1 - over)
        if at >= 1 - 1e-9:
            return LINDY * waited_s
        return max(LINDY * waited_s, exp(middle + spread * _UNIT.inv_cdf(at)) - waited_s)


UNTOLD = Foreseen(3600.0, 36_000.0)
"""The wait of a job of which nothing was foreseen."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An image that is in a store or wants to be. used_at_s: when it was needed last, on any clock.

    starts_in_s: until a job that needs it begins, by ``together`` where there are several.
    """

    digest: Hashable
    size_bytes: float
    grade: Grade
    starts_in_s: float = inf
    used_at_s: float = 0.0

    @property
    def turn(self) -> float:
        """Small for what is needed soon and is small: so the most jobs find their images."""
        return (LEAD_S + self.starts_in_s) * self.size_bytes


def is_short(needed_bytes: float, quota_bytes: float | None) -> bool:
    """Whether a store wants its room back before the jobs end that read it. needed_bytes: of leased images."""
    return quota_bytes is not None and needed_bytes > SHORT * quota_bytes


def together(starts_in_s: Iterable[float]) -> float:
    """Of several jobs that await one image: the more there are, the sooner one of them begins."""
    rate = sum(1 / (LEAD_S + each) for each in starts_in_s)
    return max(0.0, 1 / rate - LEAD_S) if rate else inf


def gives_way(wants: Claim, held: Iterable[Claim], missing_bytes: float) -> Sequence[Claim] | None:
    """Which images go so that ``missing_bytes`` more are free for this one; None: not now, it waits."""
    goes = [each for each in held if _is_later(each, wants)]
    goes.sort(key=lambda each: (each.grade, -each.turn if each.grade else each.used_at_s))
    freed_bytes = 0.0
    for count, each in enumerate(goes, 1):
        freed_bytes += each.size_bytes
        if freed_bytes >= missing_bytes:
            return goes[:count]
    return None


def _is_later(holder: Claim, wants: Claim) -> bool:
    times = MAY_TAKE.get((wants.grade, holder.grade))
    return times is not None and (holder.grade is Grade.IDLE or holder.turn > times * wants.turn)
