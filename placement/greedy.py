"""Jobs to places one after the other: the plan to start from, and the one that stands when time is out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from placement.assign import Assignment, Counts, Kind, Limit, Option


class Books:
    """What greedy has given away so far."""

    def __init__(self, assignment: Assignment) -> None:
        periods = assignment.ended_periods
        self._assignment, self._starts_s = assignment, assignment.starts_s
        self._room = {place: [assignment.room(place, k) for k in periods] for place in assignment.slots}
        self._jobs: dict[Limit, int] = defaultdict(int)

    def start(self, option: Option, earliest: int) -> int:
        """The first period from ``earliest`` on in which one more job fits."""
        cores, run_s = self._assignment.cores(option), option.run_s
        room, starts_s = self._room[option.place], self._starts_s
        last = len(room)
        for start in range(earliest, last):
            from_s = starts_s[start]
            if all(cores * min(run_s, starts_s[k + 1] - from_s) <= room[k] for k in range(start, last)):
                return start
        return last

    def allowed(self, limits: Iterable[Limit], jobs: int) -> bool:
        """Whether so many more jobs stay within limits."""
        return all(self._jobs[limit] + jobs <= limit.left for limit in limits)

    def enter(self, option: Option, start: int, limits: Iterable[Limit], jobs: int) -> None:
        """Write down that they start there."""
        room = self._room[option.place]
        for k in range(start, len(room)):
            room[k] -= self._assignment.work(option, start, k)
        for limit in limits:
            self._jobs[limit] += jobs


def greedy(assignment: Assignment) -> Counts:
    """One job after the other to its cheapest place: least work for what a delay costs first, as of shortest jobs."""
    books, counts = Books(assignment), defaultdict[tuple[int, int, int], int](int)
    for g in sorted(range(len(assignment.kinds)), key=lambda g: (_work_for_delay(assignment, g), g)):
        kind = assignment.kinds[g]
        search = _Search(assignment, kind, books)
        for _ in range(kind.number):
            found = search.cheapest()
            if found is None:
                break
            o, k = found
            books.enter(kind.options[o], k, assignment.limits_of(kind, kind.options[o]), kind.jobs_each)
            counts[g, o, k] += 1
    return counts


class _Search:
    """The cheapest place for the next job of a kind. A period that was too full for one is too full for the next."""

    def __init__(self, assignment: Assignment, kind: Kind, books: Books) -> None:
        self._assignment, self._kind, self._books = assignment, kind, books
        self._starts = [0] * len(kind.options)
        self._by_cost = sorted(range(len(kind.options)), key=lambda o: (kind.options[o].cost_s, o))

    def cheapest(self) -> tuple[int, int] | None:
        """The option and its period; None when all are closed. Who is dearer when alone is not looked at."""
        best: tuple[int, int] | None = None
        for o in self._by_cost:
            option = self._kind.options[o]
            if best is not None and option.cost_s > best[0]:
                break
            limits = self._assignment.limits_of(self._kind, option)
            if limits and not self._books.allowed(limits, self._kind.jobs_each):
                continue
            self._starts[o] = self._books.start(option, self._starts[o])
            found = option.after_s(self._assignment.starts_s, self._starts[o]), o
            best = min(best or found, found)
        return None if best is None else (best[1], self._starts[best[1]])


def _work_for_delay(assignment: Assignment, g: int) -> float:
    """Work of a kind's job for what a second of delay costs: its weight, and more where a deadline is near."""
    kind, first_s = assignment.kinds[g], assignment.starts_s[1:2]
    late_s = max((option.late_s[1] for option in kind.options if option.late_s and first_s), default=0)
    cost_s = kind.weight * (1 + late_s / first_s[0] if first_s else 1)
    return min((option.cores * option.run_s for option in kind.options), default=0) / cost_s
