"""The assignment of waiting jobs to places, in whole numbers: the question that greedy and solver answer.

Alike jobs are one ``Kind``, so ten thousand of them cost no more than one. Our own jobs stand in each other's way: a
place has ``slots`` cores for us, and time from the end of its queue wait on is cut into periods that grow. A job that
starts in period k is delayed by ``starts_s[k]``. In every place and up to the end of every period, the work of all that
started may not exceed what the slots can do; only the last period, which has no end, takes everything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, takewhile

from placement.problem import PlaceKey

UNPLACED_S = 10**8
"""Cost of leaving a job without a place, in seconds: more than any place costs."""

LONGEST_S = 10**7
MOST_CORES = 10**6
"""Absurd figures are cut to these, so that sums stay whole numbers that a solver can hold."""

_GROWTH = (0, 1, 2, 3)
"""Starts of the periods in units of a typical run time; from here on they grow by half and a third in turn."""


@dataclass(frozen=True, slots=True)
class Option:
    """One place for a kind: its cost when alone there (seconds), and the cores and seconds it then takes.

    late_s: what a start in each period costs beyond its delay, for jobs with a deadline; it never falls.
    """

    place: PlaceKey
    cost_s: int
    cores: int
    run_s: int
    late_s: tuple[int, ...] = ()

    def after_s(self, starts_s: Sequence[int], period: int) -> int:
        """The cost when it starts in that period."""
        return self.cost_s + starts_s[period] + (self.late_s[period] if self.late_s else 0)


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs that are alike in everything that counts here, those first that wait longest.

    together: they are a gang, which has one place or none; weight and options are those of all of them.
    """

    jobs: tuple[str, ...]
    owner: str
    weight: int
    options: tuple[Option, ...]
    together: bool = False

    @property
    def number(self) -> int:
        """How many are placed one by one."""
        return 1 if self.together else len(self.jobs)

    @property
    def jobs_each(self) -> int:
        """How many jobs one of them is."""
        return len(self.jobs) if self.together else 1


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``left`` more jobs in these places together; ``owner`` None: of all owners together."""

    places: frozenset[PlaceKey]
    left: int
    owner: str | None = None

    def counts(self, kind: Kind, option: Option) -> bool:
        """Whether a job of that kind in that place is one of those that it limits."""
        return option.place in self.places and self.owner in (None, kind.owner)


@dataclass(frozen=True)
class Assignment:
    """The question. ``slots``: cores that each place has for us; ``starts_s``: starts of the periods, first is 0.

    taken: work that is settled already, in core-seconds, by place and end of period.
    """

    kinds: tuple[Kind, ...]
    slots: Mapping[PlaceKey, int]
    limits: tuple[Limit, ...] = ()
    starts_s: tuple[int, ...] = (0,)
    taken: Mapping[tuple[PlaceKey, int], int] = field(default_factory=dict)

    def cores(self, option: Option) -> int:
        """Cores the option takes; a job larger than the slots takes all of them."""
        return min(option.cores, self.slots[option.place])

    def work(self, option: Option, start: int, period: int) -> int:
        """Core-seconds that a job started in period ``start`` has used by the end of ``period``."""
        return self.cores(option) * min(option.run_s, self.starts_s[period + 1] - self.starts_s[start])

    def room(self, place: PlaceKey, period: int) -> int:
        """Core-seconds that a place can still do for us by the end of a period."""
        return self.slots[place] * self.starts_s[period + 1] - self.taken.get((place, period), 0)

    def limits_of(self, kind: Kind, option: Option) -> Sequence[Limit]:
        """The limits that a job of that kind in that place counts against."""
        here = self._limits_by_place.get(option.place, ())
        return [limit for limit in here if limit.owner in (None, kind.owner)] if here else ()

    @cached_property
    def _limits_by_place(self) -> Mapping[PlaceKey, Sequence[Limit]]:
        found: dict[PlaceKey, list[Limit]] = defaultdict(list)
        for limit in dict.fromkeys(self.limits):  # two that say the same count once
            for place in limit.places:
                found[place].append(limit)
        return found

    @property
    def ended_periods(self) -> range:
        """All periods but the last, which has no end."""
        return range(len(self.starts_s) - 1)

    @cached_property
    def lower_bound(self) -> int:
        """Cost if every job were alone; no answer is cheaper."""
        return sum(kind.weight * kind.number * self.alone_s(kind) for kind in self.kinds)

    def alone_s(self, kind: Kind) -> int:
        """What one of a kind costs at least, as if there were no other job."""
        return min((option.after_s(self.starts_s, 0) for option in kind.options), default=UNPLACED_S)


Counts = Mapping[tuple[int, int, int], int]
"""How many jobs of kind g take option o in period k, by (g, o, k); those that are missing keep waiting."""


def cost(assignment: Assignment, counts: Counts) -> int:
    """Weighted seconds until all results, unplaced jobs included."""
    total = sum(kind.weight * kind.number * UNPLACED_S for kind in assignment.kinds)
    for (g, o, k), number in counts.items():
        kind = assignment.kinds[g]
        total += number * kind.weight * (kind.options[o].after_s(assignment.starts_s, k) - UNPLACED_S)
    return total


class Load:
    """What placed jobs take: work by place and end of period, jobs by limit."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._work: dict[tuple[PlaceKey, int], int] = defaultdict(int)
        self._jobs: dict[Limit, int] = defaultdict(int)

    def add(self, g: int, o: int, k: int, number: int) -> None:
        """So many jobs of kind g take option o in period k; a negative number gives it back."""
        kind = self._assignment.kinds[g]
        option = kind.options[o]
        for period in self._assignment.ended_periods[k:]:
            self._work[option.place, period] += number * self._assignment.work(option, k, period)
        for limit in self._assignment.limits_of(kind, option):
            self._jobs[limit] += number * kind.jobs_each

    def beside(self, kinds: Iterable[Kind]) -> Assignment:
        """The question of these kinds when all that was added stays where it is."""
        whole = self._assignment
        limits = tuple(replace(limit, left=max(0, limit.left - self._jobs[limit])) for limit in whole.limits)
        return replace(whole, kinds=tuple(kinds), limits=limits, taken=dict(self._work))


def periods(kinds: Iterable[Kind], slots: Mapping[PlaceKey, int], typical_run_s: float) -> tuple[int, ...]:
    """Starts of the periods: as long as a typical run at first, and as many as the work of all jobs may need.

    typical_run_s must not depend on the places: with one more of them the periods may only become fewer, so that a
    proven plan never becomes worse.
    """
    kinds = tuple(kind for kind in kinds if kind.options)
    unit = max(60, round(min(typical_run_s, LONGEST_S)))
    used = {option.place for kind in kinds for option in kind.options}
    work = sum(kind.number * min(each.cores * each.run_s for each in kind.options) for kind in kinds)
    enough_s = 2 * work / max(1, sum(slots[place] for place in used))
    grown = takewhile(lambda start: start * unit <= enough_s or start in _GROWTH, _starts())
    return tuple(start * unit for start in grown)


def _starts() -> Iterable[int]:
    yield from _GROWTH
    for power in count(2):
        yield from (2**power, 3 * 2 ** (power - 1))
