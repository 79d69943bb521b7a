"""A plan of thousands of jobs made better part by part: the worst-placed jobs and those in their way are placed anew.

Each round takes the kinds that lose most against being alone, and the kinds that could most easily make room where
they would rather be; everything else stays. What the solver finds for them is taken when it is cheaper, so the plan is
never worse than the one it started from (a large-neighbourhood search; Shaw, CP 1998).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest

from placement.assign import UNPLACED_S, Assignment, Counts, Kind, Load, cost
from placement.problem import PlaceKey, SolveLimits

Solver = Callable[[Assignment, Counts, SolveLimits, int], tuple[Counts, bool]]

MOST_ROUNDS = 12

MOST_IN_VAIN = 3
"""Rounds one after the other that find nothing better; then the rest is left alone."""

ROUND_VARIABLES = 700
"""Variables of one round: few enough that the solver mostly proves a round's best answer in a tenth of a second."""

ROUND_SHARE = 0.02
"""Of the time for the whole problem, what one round may take."""

WORST_SHARE = 0.2
"""Of a round's kinds, those taken for what they lose; the others are in their way."""

FEW_OPTIONS = 5
"""Places of a kind that a round considers, the cheapest, besides where it is."""


@dataclass(frozen=True, slots=True)
class Improved:
    """The plan, and how many of the kinds were thought over by the solver."""

    counts: Counts
    solved_count: int = 0


def improve(assignment: Assignment, first: Counts, solver: Solver, limits: SolveLimits, seed: int) -> Improved:
    """Place the worst-placed parts of ``first`` anew, one after the other, within the limits. Deterministic."""
    plan = _Plan(assignment, first)
    slice_ = replace(limits, deterministic_time=limits.deterministic_time * ROUND_SHARE)
    most_kinds = max(2, ROUND_VARIABLES // (FEW_OPTIONS * len(assignment.starts_s)))
    tried: set[int] = set()
    in_vain = 0
    for _ in range(MOST_ROUNDS):
        chosen = plan.neighbourhood(tried, most_kinds)
        if not chosen or in_vain == MOST_IN_VAIN:
            break
        tried.update(chosen)
        is_better = plan.place_anew(chosen, lambda part, hint: solver(part, hint, slice_, seed)[0])
        in_vain = 0 if is_better else in_vain + 1
    return Improved(plan.counts, len(tried))


Starts = dict[tuple[int, int], int]
"""How many jobs of one kind take option o in period k, by (o, k)."""


class _Plan:
    """A plan that is changed part by part: what each kind takes, what it loses, and what all of them load."""

    def __init__(self, assignment: Assignment, counts: Counts) -> None:
        self._assignment, self._load = assignment, Load(assignment)
        self._placed: dict[int, Starts] = {g: {} for g, kind in enumerate(assignment.kinds) if kind.options}
        for (g, o, k), number in counts.items():
            self._placed[g][o, k] = number
            self._load.add(g, o, k, number)
        self._seconds_s: dict[int, int] = {}
        self._lost = {g: self._loss(g) for g in self._placed}

    @property
    def counts(self) -> Counts:
        """As it stands."""
        return {(g, o, k): number for g, starts in self._placed.items() for (o, k), number in starts.items()}

    def neighbourhood(self, tried: Collection[int], most_kinds: int) -> Sequence[int]:
        """The kinds of a round: the worst placed of those never thought over, and who could make room for them."""
        fresh = (g for g, lost in self._lost.items() if lost > 0 and g not in tried)
        worst = nsmallest(max(1, int(most_kinds * WORST_SHARE)), fresh, key=lambda g: (-self._lost[g], g))
        wanted = {place for g in worst for place in self._sooner(g)}
        prices = {g: price for g in self._placed if (price := self._price_of_room(g, wanted)) is not None}
        others = (g for g in prices if g not in worst)
        in_the_way = nsmallest(most_kinds - len(worst), others, key=lambda g: (g in tried, prices[g], g))
        return sorted([*worst, *in_the_way]) if worst else ()

    def place_anew(self, chosen: Sequence[int], solver: Callable[[Assignment, Counts], Counts]) -> bool:
        """Let the solver place some kinds while all others stay; taken, and True, where it is cheaper."""
        kinds: list[Kind] = []
        options: list[Sequence[int]] = []
        hint: dict[tuple[int, int, int], int] = {}
        for position, g in enumerate(chosen):
            kind, starts = self._assignment.kinds[g], self._placed[g]
            cheapest = nsmallest(FEW_OPTIONS, range(len(kind.options)), key=lambda o: (kind.options[o].cost_s, o))
            kept = sorted({*cheapest, *(o for o, _ in starts)})
            kinds.append(replace(kind, options=tuple(kind.options[o] for o in kept)))
            options.append(kept)
            hint |= {(position, kept.index(o), k): number for (o, k), number in starts.items()}
            self._take(g, starts, -1)
        part = self._load.beside(kinds)
        found = min(hint, solver(part, hint), key=lambda counts: cost(part, counts))
        for g in chosen:
            self._placed[g] = {}
        for (position, o, k), number in found.items():
            self._placed[chosen[position]][options[position][o], k] = number
        for g in chosen:
            self._take(g, self._placed[g], 1)
            self._lost[g] = self._loss(g)
        return found is not hint

    def _take(self, g: int, starts: Starts, sign: int) -> None:
        for (o, k), number in starts.items():
            self._load.add(g, o, k, sign * number)

    def _loss(self, g: int) -> int:
        """What a kind costs more than if it were alone, weighted."""
        kind, starts = self._assignment.kinds[g], self._placed[g]
        waiting = kind.number - sum(starts.values())
        total_s = sum(number * self._after_s(kind, o, k) for (o, k), number in starts.items())
        return kind.weight * (total_s + waiting * UNPLACED_S - kind.number * self._assignment.alone_s(kind))

    def _sooner(self, g: int) -> Iterable[PlaceKey]:
        """Where jobs of a kind would be sooner, were there room."""
        kind = self._assignment.kinds[g]
        latest_s = max((self._after_s(kind, o, k) for o, k in self._placed[g]), default=UNPLACED_S)
        return (option.place for o, option in enumerate(kind.options) if self._after_s(kind, o, 0) < latest_s)

    def _price_of_room(self, g: int, wanted: Collection[PlaceKey]) -> float | None:
        """What it costs to move a kind out of the wanted places, for the work it makes room for; None: not there."""
        kind = self._assignment.kinds[g]
        o, k = min(((o, k) for o, k in self._placed[g] if kind.options[o].place in wanted), default=(-1, 0))
        if o < 0:
            return None
        later_s = self._second_s(g) - self._after_s(kind, o, k)
        return kind.weight * later_s / max(1, kind.options[o].cores * kind.options[o].run_s)

    def _second_s(self, g: int) -> int:
        """What a kind costs in its second-best place, were it alone."""
        if g not in self._seconds_s:
            kind = self._assignment.kinds[g]
            two = nsmallest(2, (self._after_s(kind, o, 0) for o in range(len(kind.options))))
            self._seconds_s[g] = two[-1] if len(two) > 1 else UNPLACED_S
        return self._seconds_s[g]

    def _after_s(self, kind: Kind, o: int, k: int) -> int:
        return kind.options[o].after_s(self._assignment.starts_s, k)
