"""Jobs to places one after the other: the plan to start from, and the one that stands when time is out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from placement.assign import Assignment, Counts, Kind, Limit, Option
from placement.problem import PlaceKey


@dataclass(slots=True)
class Books:
    """What greedy has given away so far."""

    assignment: Assignment
    work: dict[tuple[PlaceKey, int], int] = field(default_factory=lambda: defaultdict(int))
    jobs: dict[Limit, int] = field(default_factory=lambda: defaultdict(int))

    def start(self, option: Option, earliest: int) -> int:
        """The first period from ``earliest`` on in which one more job fits."""
        last = len(self.assignment.starts_s) - 1
        return next((k for k in range(earliest, last) if self._fits(option, k)), last)

    def _fits(self, option: Option, start: int) -> bool:
        return all(
            self.work[option.place, k] + self.assignment.work(option, start, k) <= self.assignment.room(option.place, k)
            for k in self.assignment.ended_periods[start:]
        )

    def allowed(self, limits: Iterable[Limit]) -> bool:
        return all(self.jobs[limit] < limit.left for limit in limits)

    def enter(self, option: Option, start: int, limits: Iterable[Limit]) -> None:
        for k in self.assignment.ended_periods[start:]:
            self.work[option.place, k] += self.assignment.work(option, start, k)
        for limit in limits:
            self.jobs[limit] += 1


def greedy(assignment: Assignment) -> Counts:
    """One job after the other to its cheapest place: least work for its weight first, as a shortest-job rule does."""
    books, counts = Books(assignment), defaultdict[tuple[int, int, int], int](int)
    for g in sorted(range(len(assignment.kinds)), key=lambda g: (_work_for_weight(assignment.kinds[g]), g)):
        kind = assignment.kinds[g]
        limits = [[limit for limit in assignment.limits if limit.counts(kind, each)] for each in kind.options]
        starts = [0] * len(kind.options)  # a period that was too full for one of them is too full for the next
        for _ in kind.jobs:
            open_options = [o for o in range(len(kind.options)) if books.allowed(limits[o])]
            for o in open_options:
                starts[o] = books.start(kind.options[o], starts[o])
            if not open_options:
                break
            best = min(open_options, key=lambda o: (kind.options[o].cost_s + assignment.starts_s[starts[o]], o))
            books.enter(kind.options[best], starts[best], limits[best])
            counts[g, best, starts[best]] += 1
    return counts


def _work_for_weight(kind: Kind) -> float:
    return min((option.cores * option.run_s for option in kind.options), default=0) / kind.weight
