"""The assignment of waiting jobs to places, in whole numbers: the question that greedy and solver answer.

Alike jobs are one ``Kind``, so ten thousand of them cost no more than one. Our own jobs stand in each other's way: a
place has ``slots`` cores for us, and time from the end of its queue wait on is cut into periods that grow. A job that
starts in period k is delayed by ``starts_s[k]``. In every place and up to the end of every period, the work of all that
started may not exceed what the slots can do; only the last period, which has no end, takes everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    """One place for a kind: its cost when alone there (seconds), and the cores and seconds it then takes."""

    place: PlaceKey
    cost_s: int
    cores: int
    run_s: int


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs that are alike in everything that counts here, those first that wait longest."""

    jobs: tuple[str, ...]
    owner: str
    weight: int
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``left`` more jobs in these places together; ``owner`` None: of all owners together."""

    places: frozenset[PlaceKey]
    left: int
    owner: str | None = None

    def counts(self, kind: Kind, option: Option) -> bool:
        return option.place in self.places and self.owner in (None, kind.owner)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The question. ``slots``: cores that each place has for us; ``starts_s``: starts of the periods, first is 0."""

    kinds: tuple[Kind, ...]
    slots: Mapping[PlaceKey, int]
    limits: tuple[Limit, ...] = ()
    starts_s: tuple[int, ...] = (0,)

    def cores(self, option: Option) -> int:
        """Cores the option takes; a job larger than the slots takes all of them."""
        return min(option.cores, self.slots[option.place])

    def work(self, option: Option, start: int, period: int) -> int:
        """Core-seconds that a job started in period ``start`` has used by the end of ``period``."""
        return self.cores(option) * max(0, min(option.run_s, self.starts_s[period + 1] - self.starts_s[start]))

    def room(self, place: PlaceKey, period: int) -> int:
        """Core-seconds that a place can do for us by the end of a period."""
        return self.slots[place] * self.starts_s[period + 1]

    @property
    def ended_periods(self) -> range:
        """All periods but the last, which has no end."""
        return range(len(self.starts_s) - 1)

    @property
    def lower_bound(self) -> int:
        """Cost if every job were alone; no answer is cheaper."""
        return sum(
            kind.weight * len(kind.jobs) * min((option.cost_s for option in kind.options), default=UNPLACED_S)
            for kind in self.kinds
        )


Counts = Mapping[tuple[int, int, int], int]
"""How many jobs of kind g take option o in period k, by (g, o, k); those that are missing keep waiting."""


def cost(assignment: Assignment, counts: Counts) -> int:
    """Weighted seconds until all results, unplaced jobs included."""
    total = sum(kind.weight * len(kind.jobs) * UNPLACED_S for kind in assignment.kinds)
    for (g, o, k), number in counts.items():
        kind = assignment.kinds[g]
        total += number * kind.weight * (kind.options[o].cost_s + assignment.starts_s[k] - UNPLACED_S)
    return total


def periods(kinds: Iterable[Kind], slots: Mapping[PlaceKey, int], typical_run_s: float) -> tuple[int, ...]:
    """Starts of the periods: as long as a typical run at first, and as many as the work of all jobs may need.

    typical_run_s must not depend on the places: with one more of them the periods may only become fewer, so that a
    proven plan never becomes worse.
    """
    kinds = tuple(kind for kind in kinds if kind.options)
    unit = max(60, round(min(typical_run_s, LONGEST_S)))
    used = {option.place for kind in kinds for option in kind.options}
    work = sum(len(kind.jobs) * min(each.cores * each.run_s for each in kind.options) for kind in kinds)
    enough_s = 2 * work / max(1, sum(slots[place] for place in used))
    grown = takewhile(lambda start: start * unit <= enough_s or start in _GROWTH, _starts())
    return tuple(start * unit for start in grown)


def _starts() -> Iterable[int]:
    yield from _GROWTH
    for power in count(2):
        yield from (2**power, 3 * 2 ** (power - 1))
