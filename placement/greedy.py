"""Jobs to places one after the other: the plan to start from, and the one that stands when time is out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace

from placement.assign import Assignment, Counts, Kind, Limit, Option


class Books:
    """What greedy has given away so far."""

    def __init__(self, assignment: Assignment) -> None:
        periods = assignment.ended_periods
        self._assignment, self._starts_s = assignment, assignment.starts_s
        self._room = {place: [assignment.room(place, k) for k in periods] for place in assignment.slots}
        self._jobs: dict[Limit, int] = defaultdict(int)

    def fitting(self, option: Option, start: int, most: int) -> int:
        """How many more jobs, of so many, may start there in that period."""
        cores, run_s, starts_s = self._assignment.cores(option), option.run_s, self._starts_s
        room, from_s = self._room[option.place], starts_s[start]
        for k in range(start, len(room)):
            most = min(most, room[k] // (cores * min(run_s, starts_s[k + 1] - from_s)))
            if most < 1:
                return 0
        return most

    def allowed(self, limits: Iterable[Limit], jobs_each: int, most: int) -> int:
        """How many more, of so many, stay within limits."""
        return min((most, *((limit.left - self._jobs[limit]) // jobs_each for limit in limits)))

    def enter(self, option: Option, start: int, number: int, limits: Iterable[Limit], jobs_each: int) -> None:
        """Write down that so many start there."""
        room = self._room[option.place]
        for k in range(start, len(room)):
            room[k] -= number * self._assignment.work(option, start, k)
        for limit in limits:
            self._jobs[limit] += number * jobs_each


def greedy(assignment: Assignment) -> Counts:
    """One job after the other to its cheapest place: least work for what a delay costs first, as of shortest jobs."""
    books, counts = Books(assignment), dict[tuple[int, int, int], int]()
    for g in sorted(range(len(assignment.kinds)), key=lambda g: (_work_for_delay(assignment, g), g)):
        for o, k, number in _placed(assignment, assignment.kinds[g], books):
            counts[g, o, k] = number
    return counts


def _placed(assignment: Assignment, kind: Kind, books: Books) -> Iterable[tuple[int, int, int]]:
    """Options, periods and numbers of the jobs of a kind, one by one to the cheapest.

    A period that was too full for one is too full for the next, and where one goes, the next goes too while it fits.
    """
    starts_s, left = assignment.starts_s, kind.number
    open_to = [(option.after_s(starts_s, 0), o, 0) for o, option in enumerate(kind.options)]
    heapify(open_to)
    while open_to and left:
        _, o, k = open_to[0]
        option = kind.options[o]
        limits = assignment.limits_of(kind, option)
        allowed = books.allowed(limits, kind.jobs_each, left) if limits else left
        if allowed < 1:
            heappop(open_to)
        elif number := books.fitting(option, k, allowed):
            books.enter(option, k, number, limits, kind.jobs_each)
            left -= number
            yield o, k, number
        else:
            heapreplace(open_to, (option.after_s(starts_s, k + 1), o, k + 1))


def _work_for_delay(assignment: Assignment, g: int) -> float:
    """Work of a kind's job for what a second of delay costs: its weight, and more where a deadline is near."""
    kind, first_s = assignment.kinds[g], assignment.starts_s[1:2]
    late_s = max((option.late_s[1] for option in kind.options if option.late_s and first_s), default=0)
    cost_s = kind.weight * (1 + late_s / first_s[0] if first_s else 1)
    return min((option.cores * option.run_s for option in kind.options), default=0) / cost_s
