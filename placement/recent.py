"""The waits of the last starts of alike jobs: the predictor of the first hours, and the bound to be compared with.

The bound is the binomial method of Brevik, Nurmi & Wolski (PPoPP 2006) with the change points of QBETS (Nurmi, Brevik &
Wolski, JSSPP 2007): when several waits in a row exceed it, the queue has changed and the older waits are forgotten.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict, deque
from statistics import NormalDist

FEWEST_WAITS = 3
"""Below this many, a quantile is hearsay."""

WAITS_KEPT = 5000
"""For each class of size, if the queue never changes."""

MISSES_IN_A_ROW = 3
"""More than chance explains: the rare event of the paper, for waits that do not depend on each other."""

CLASS_FLOORS = (5.0, 17.0, 65.0)
"""Sizes at which the next class begins, as Brevik and others cut them."""


def bound_index(count: int, quantile: float, confidence: float) -> int | None:
    """Which of ``count`` sorted values is an upper bound on a quantile with a confidence; None when there are too few.

    The smallest k for which a binomial variable is at most k with that confidence; by the normal law from 100 on.
    """
    if 1 - quantile**count < confidence:
        return None
    if count >= 100:
        margin = NormalDist().inv_cdf(confidence) * math.sqrt(count * quantile * (1 - quantile))
        return min(count - 1, math.ceil(count * quantile + margin))
    below = 0.0
    for index in range(count):
        below += math.comb(count, index) * quantile**index * (1 - quantile) ** (count - index)
        if below >= confidence:
            return index
    return None


class LastWaits:
    """The waits of one class of jobs since the queue last changed, in the order of their starts."""

    def __init__(self) -> None:
        self._in_order: deque[float] = deque()
        self._sorted: list[float] = []
        self._misses_in_a_row = 0

    def learn(self, wait_s: float, quantile: float = 0.9, confidence: float = 0.95) -> None:
        """A job of the class started."""
        bound_s = self.bound_s(quantile, confidence)
        self._misses_in_a_row = self._misses_in_a_row + 1 if bound_s is not None and wait_s > bound_s else 0
        self._in_order.append(wait_s)
        insort(self._sorted, wait_s)
        kept = WAITS_KEPT if self._misses_in_a_row < MISSES_IN_A_ROW else fewest_for(quantile, confidence)
        while len(self._in_order) > kept:
            del self._sorted[bisect_left(self._sorted, self._in_order.popleft())]

    def quantile_s(self, quantile: float) -> float | None:
        """A quantile as it was seen; None when there are too few waits."""
        count = len(self._sorted)
        return self._sorted[min(count - 1, int(quantile * count))] if count >= FEWEST_WAITS else None

    def bound_s(self, quantile: float, confidence: float) -> float | None:
        """A quantile that the true one exceeds only by bad luck; None when there are too few waits."""
        index = bound_index(len(self._sorted), quantile, confidence)
        return None if index is None else self._sorted[index]


def fewest_for(quantile: float, confidence: float) -> int:
    """The fewest values that bound a quantile with a confidence: 29 for 0.9 with 0.95."""
    return math.ceil(math.log(1 - confidence) / math.log(quantile))


class RecentWaits:
    """The last waits of a queue by classes of size; a class that knows nothing asks all together."""

    def __init__(self) -> None:
        self._classes: dict[int, LastWaits] = defaultdict(LastWaits)
        self._all = LastWaits()

    def learn(self, size: float, wait_s: float) -> None:
        """A job started."""
        self._classes[_class_of(size)].learn(wait_s)
        self._all.learn(wait_s)

    def quantile_s(self, size: float, quantile: float) -> float | None:
        """As seen, of the job's class if possible."""
        own = self._class(size).quantile_s(quantile)
        return own if own is not None else self._all.quantile_s(quantile)

    def bound_s(self, size: float, quantile: float, confidence: float = 0.95) -> float | None:
        """The binomial bound, of the job's class if possible."""
        own = self._class(size).bound_s(quantile, confidence)
        return own if own is not None else self._all.bound_s(quantile, confidence)

    def _class(self, size: float) -> LastWaits:
        return self._classes.get(_class_of(size), self._all)


def _class_of(size: float) -> int:
    return sum(size >= floor for floor in CLASS_FLOORS)
