"""How long jobs really run beside what they ask for: learned from those that ended, drawn for those that have not.

Recent jobs of the same user tell more than similar jobs of others (Tsafrir, Etsion & Feitelson, TPDS 2007); among them,
those that asked for the same walltime tell most. A job that runs already has outlived every share below its age.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

RECENT = 24
"""Jobs of a user that are remembered."""

ALIKE = 10
"""Of those, at most so many are believed, the latest."""

ENOUGH = 3
"""From so many on, jobs that asked for the same stand for themselves."""

SAME_ASK = 1.1
"""Walltimes that differ by less than this factor are the same."""

PRIOR = (0.01, 0.04, 0.12, 0.25, 0.4, 0.6, 0.9)
"""Shares of the walltime that jobs of nobody in particular use; medians of public traces lie at 0.27, 0.40, 0.47."""

LEFT_OVER = (0.1, 0.35, 0.7, 1.0)
"""Shares of what is left of the walltime, for a job that has outlived all that is known of its like."""


@dataclass(frozen=True, slots=True)
class Used:
    """What an ended job used of the walltime that it had asked for."""

    user: str
    asked_s: float
    run_s: float

    @property
    def share(self) -> float:
        return min(1.0, self.run_s / self.asked_s) if self.asked_s > 0 else 1.0


@dataclass(frozen=True, slots=True)
class RunTimes:
    """What is known of run times: by user, the latest (walltime asked in seconds, share used), the last one newest."""

    by_user: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)


def learn(known: RunTimes, ended: Iterable[Used]) -> RunTimes:
    """What is known once these jobs, too, have ended; in the order in which they did."""
    news: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in ended:
        news[each.user].append((each.asked_s, each.share))
    if not news:
        return known
    latest = {user: (*known.by_user.get(user, ()), *shares)[-RECENT:] for user, shares in news.items()}
    return RunTimes({**known.by_user, **latest})


class Predictor:
    """Draws of run times from what is known at one moment; the same job always gets the same draws."""

    def __init__(self, known: RunTimes) -> None:
        self._known = known
        self._shares: dict[tuple[str, float], Sequence[float]] = {}

    def shares(self, user: str, asked_s: float) -> Sequence[float]:
        """Equally likely shares of the walltime that a job of this user will use, in rising order."""
        key = (user, asked_s)
        if key not in self._shares:
            self._shares[key] = _alike(self._known.by_user.get(user, ()), asked_s)
        return self._shares[key]

    def run_s(self, user: str, asked_s: float, quantile: float, age_s: float = 0.0) -> float:
        """A quantile of the run time, for a job that has run for ``age_s`` already; more than that, less than asked."""
        shares = self.shares(user, asked_s)
        first = bisect_right(shares, age_s / asked_s) if age_s > 0 else 0
        if first < len(shares):
            return max(1.0, shares[first + int(quantile * (len(shares) - first))] * asked_s)
        return age_s + max(1.0, (asked_s - age_s) * LEFT_OVER[int(quantile * len(LEFT_OVER))])


def _alike(own: Sequence[tuple[float, float]], asked_s: float) -> Sequence[float]:
    same = [share for asked, share in own if asked_s / SAME_ASK < asked < asked_s * SAME_ASK]
    if len(same) >= ENOUGH:
        return sorted(same[-ALIKE:])
    recent = [share for _, share in own[-ALIKE:]]
    believed = recent + same
    return sorted(believed if len(believed) >= ENOUGH else [*believed, *believed, *PRIOR])


def phase(name: str) -> float:
    """A number from 0 to 1 that belongs to a name: where its draws begin."""
    return crc32(name.encode()) / 2**32
