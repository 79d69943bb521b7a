"""How long jobs really run beside what they ask for: learned from those that ended, drawn for those that have not.

Recent jobs of the same user tell more than similar jobs of others (Tsafrir, Etsion & Feitelson, TPDS 2007), and among
them those that asked for the same walltime; but none is left out. On public logs weights that fade are a twelfth better
than the last few alike (continuous ranked probability score), and a seventh for jobs that run already. Such a job has
outlived every share below its age; what is believed of jobs in general keeps the rest from being too sure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from zlib import crc32

RECENT = 40
"""Jobs of a user that are remembered."""

FADING = 0.92
"""What a job counts beside the next one of its user."""

SAME_ASK, OTHER_ASK, OTHER_CORES = 1.1, 0.2, 0.3
"""Walltimes that differ by less than this factor are the same; what a job counts that asked for another walltime, and
one that asked for other cores."""

PRIOR, PRIOR_WEIGHT = (0.01, 0.04, 0.12, 0.25, 0.4, 0.6, 0.8, 1.0), 0.5
"""Shares of the walltime that jobs in general use, and what they count beside the latest job of a user."""


@dataclass(frozen=True, slots=True)
class Used:
    """What an ended job used of the walltime that it had asked for."""

    user: str
    asked_s: float
    run_s: float
    cores: int = 1

    @property
    def share(self) -> float:
        return min(1.0, self.run_s / self.asked_s) if self.asked_s > 0 else 1.0


@dataclass(frozen=True, slots=True)
class RunTimes:
    """What is known of run times: by user, the latest (walltime asked in seconds, cores, share used), newest last."""

    by_user: Mapping[str, tuple[tuple[float, int, float], ...]] = field(default_factory=dict)


def learn(known: RunTimes, ended: Iterable[Used]) -> RunTimes:
    """What is known once these jobs, too, have ended; in the order in which they did."""
    news: dict[str, list[tuple[float, int, float]]] = defaultdict(list)
    for each in ended:
        news[each.user].append((each.asked_s, each.cores, each.share))
    if not news:
        return known
    latest = {user: (*known.by_user.get(user, ()), *shares)[-RECENT:] for user, shares in news.items()}
    return RunTimes({**known.by_user, **latest})


Weighed = tuple[Sequence[float], Sequence[float]]
"""Shares of the walltime, in rising order, and how much each and all before it count."""


class Predictor:
    """Draws of run times from what is known at one moment; the same job always gets the same draws."""

    def __init__(self, known: RunTimes) -> None:
        self._known = known
        self._alike: dict[tuple[str, float, int], Weighed] = {}
        self._weighed: dict[tuple[str, int, int, int | None], Weighed] = {}
        self._tell_apart: dict[str, tuple[Sequence[float], Collection[int]]] = {}

    def run_s(self, user: str, asked_s: float, quantile: float, age_s: float = 0.0, cores: int = 1) -> float:
        """A quantile of the run time, for a job that has run for ``age_s`` already; more than that."""
        key = (user, asked_s, cores)
        if key not in self._alike:
            self._alike[key] = self._weigh(user, asked_s, cores)
        shares, weights = self._alike[key]
        first = bisect_right(shares, age_s / asked_s) if age_s > 0 else 0
        if first == len(shares):
            return age_s + 1.0
        outlived = weights[first - 1] if first else 0.0
        sought = bisect_right(weights, outlived + quantile * (weights[-1] - outlived), first)
        return max(age_s, 1.0, shares[min(sought, len(shares) - 1)] * asked_s)

    def _weigh(self, user: str, asked_s: float, cores: int) -> Weighed:
        """Once for all walltimes that are as near to the same of the user's jobs, and for all cores that none used."""
        own = self._known.by_user.get(user, ())
        if user not in self._tell_apart:
            self._tell_apart[user] = sorted({asked for asked, _, _ in own}), frozenset(used for _, used, _ in own)
        asks, sizes = self._tell_apart[user]
        first, last = bisect_right(asks, asked_s / SAME_ASK), bisect_left(asks, asked_s * SAME_ASK)
        alike = user, first, last, cores if cores in sizes else None
        if alike not in self._weighed:
            self._weighed[alike] = _weighed(own, asked_s, cores)
        return self._weighed[alike]


def _weighed(own: Sequence[tuple[float, int, float]], asked_s: float, cores: int) -> Weighed:
    """Shares of the walltime that a job may use, in rising order, and how much they and those before them count."""
    found = [(share, PRIOR_WEIGHT / len(PRIOR)) for share in PRIOR]
    for n, (asked, on_cores, share) in enumerate(reversed(own)):
        same_ask = asked_s / SAME_ASK < asked < asked_s * SAME_ASK
        likeness = (1.0 if same_ask else OTHER_ASK) * (1.0 if on_cores == cores else OTHER_CORES)
        found.append((share, FADING**n * likeness))
    found.sort()
    return [share for share, _ in found], list(accumulate(weight for _, weight in found))


def phase(name: str) -> float:
    """A number from 0 to 1 that belongs to a name: where its draws begin."""
    return crc32(name.encode()) / 2**32
