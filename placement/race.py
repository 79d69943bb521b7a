"""Copies of a job in several queues, and moves between them: which to send and which to take back.

The first copy that starts is the one that runs, so a copy in a slow place can lose time: it is held only while a start
there now would still be sooner than what else is held promises. A further copy, or a move, is worth what it saves in
the mean over the draws; it is made when that is more than its price. The price rises when more submissions have been
spent than the budget allows for the jobs so far, and falls when fewer have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

MOVE_SHARE, MOVE_S = 0.25, 1800.0
"""A move must save this share of what is left, and this long, at least; each of them costs a place in line."""

LOSS_SHARE = 0.5
"""How much of a loss in a draw counts against a new copy: most of them are seen coming, and the copy is taken back."""

MOST_SUBMISSIONS = 12


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed. submissions_per_job: mean over jobs, the first included; copies: of a job at once."""

    submissions_per_job: float = 1.0
    copies: int = 1
    moves: bool = False
    price_s: float = 900.0
    slack: float = 8.0
    """Submissions over or under budget by which the price doubles or halves."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Jobs placed so far, and submissions made for them."""

    jobs: int = 0
    submissions: int = 0

    def more(self, jobs: int = 0, submissions: int = 0) -> Spent:
        """With what was spent just now."""
        return replace(self, jobs=self.jobs + jobs, submissions=self.submissions + submissions)

    def price_s(self, rules: Rules) -> float | None:
        """What one more submission must save; None when there is none left."""
        left = rules.submissions_per_job * self.jobs - self.submissions
        return None if left < 1.0 else float(rules.price_s * 2.0 ** ((rules.slack - left) / rules.slack))


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a copy in one place may come to: starts and ends, a draw each; run_s: mean run time there."""

    place: str
    starts_s: Sequence[float]
    ends_s: Sequence[float]

    @property
    def run_s(self) -> float:
        return fmean(end - start for start, end in zip(self.starts_s, self.ends_s, strict=True))

    @property
    def mean_end_s(self) -> float:
        return fmean(self.ends_s)


@dataclass(frozen=True, slots=True)
class Change:
    """Places to send a copy to, and places to take one back from."""

    submit: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()


def first_ends_s(held: Collection[Prospect]) -> list[float]:
    """The end of whichever copy starts first, a draw each; of several that start at once, the sooner end."""
    races = zip(*(zip(each.starts_s, each.ends_s, strict=True) for each in held), strict=True)
    return [min(race)[1] for race in races]


def saved_s(held: Collection[Prospect], instead: Collection[Prospect]) -> float:
    """Seconds that another set of copies ends the job sooner, in the mean; losses count in part."""
    differences = [a - b for a, b in zip(first_ends_s(held), first_ends_s(instead), strict=True)]
    return fmean(each if each > 0 else LOSS_SHARE * each for each in differences)


def losing(held: Sequence[Prospect], now_s: float) -> tuple[str, ...]:
    """Places in which a start now would end the job later than the other copies promise; never all of them."""
    dropped: list[str] = []
    for each in sorted(held, key=lambda prospect: (-prospect.run_s, prospect.place)):
        others = [other for other in held if other is not each and other.place not in dropped]
        if others and now_s + each.run_s > fmean(first_ends_s(others)):
            dropped.append(each.place)
    return tuple(dropped)


def reconsidered(
    held: Sequence[Prospect], offered: Sequence[Prospect], rules: Rules, price_s: float | None, now_s: float
) -> Change:
    """One step: copies that became a loss go; then the best further copy or move, where it is worth its price."""
    dropped = losing(held, now_s)
    kept = [each for each in held if each.place not in dropped]
    if price_s is None or not offered:
        return Change(withdraw=dropped)
    sets = [(each, kept, "") for each in offered] if len(kept) < rules.copies else []
    if rules.moves and len(kept) == rules.copies:
        sets = [(each, [k for k in kept if k is not old], old.place) for each in offered for old in kept]
    left_s = fmean(first_ends_s(kept)) - now_s
    best: tuple[float, str, str] | None = None
    for new, others, old_place in sets:
        gain_s = saved_s(kept, [*others, new])
        least_s = max(price_s, MOVE_S, MOVE_SHARE * left_s) if old_place else price_s
        if gain_s > least_s and (best is None or (-gain_s, new.place) < (-best[0], best[1])):
            best = gain_s, new.place, old_place
    if best is None:
        return Change(withdraw=dropped)
    return Change((best[1],), (*dropped, best[2]) if best[2] else dropped)


def by_place(prospects: Collection[Prospect]) -> Mapping[str, Prospect]:
    """Prospects by the name of their place."""
    return {each.place: each for each in prospects}
