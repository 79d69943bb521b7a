"""Copies of a job in several queues, and moves between them: which to send and which to take back.

The first copy that starts is the one that runs, so a copy in a slow place can lose time: it is held only while a start
there now would still be sooner than what else is held promises. A further copy, or a move, is worth what it saves in
the mean over the draws; it is made when that is more than its price. The price rises when more submissions have been
spent than the budget allows for the jobs so far, and falls when fewer have.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from placement.easy import NEVER_S

MOVE_SHARE, MOVE_S = 0.15, 900.0
"""A move must save this share of what is left, and this long, at least; each of them costs a place in line."""

FOLLOWED_S = 86_400.0
"""Jobs of ours that came in so long tell how many will stand behind one: about as long as a crowded queue stays so."""

DRAINED_SHARE = 0.1
"""Of a place's cores, what nobody asks for in the mean: at that pace its queue gets shorter."""

LOSS_SHARE = 0.5
"""How much of a loss in a draw counts against a new copy: most of them are seen coming, and the copy is taken back."""

DOUBT = (0.3, 1.0)
"""A further copy is sent for the case, too, that its wait is only this share of the forecast: queues surprise."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed. submissions_per_job: mean over jobs, the first included; copies: of a job at once."""

    submissions_per_job: float = 1.0
    copies: int = 1
    moves: bool = False
    price_s: float = 300.0
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

    def later_by(self, seconds: float) -> Prospect:
        """The same start, with that much more until the end: what a place costs, in time."""
        return Prospect(self.place, self.starts_s, tuple(end_s + seconds for end_s in self.ends_s)) if seconds else self


@dataclass(frozen=True, slots=True)
class Change:
    """Places to send a copy to, and places to take one back from."""

    submit: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()


def first_ends_s(held: Collection[Prospect]) -> list[float]:
    """The end of whichever copy starts first, a draw each; of several that start at once, the sooner end."""
    return [end_s for _, end_s in _races(held)]


def _races(held: Collection[Prospect]) -> list[tuple[float, float]]:
    """Start and end of the first copy, a draw each."""
    return [min(race) for race in zip(*(zip(each.starts_s, each.ends_s, strict=True) for each in held), strict=True)]


def saved_s(held: Collection[Prospect], new: Prospect, now_s: float, old: Prospect | None = None) -> float:
    """Seconds that a new copy, or one instead of an old one, ends the job sooner in the mean; losses count in part.

    Queues know nothing of each other, so every start there is raced against every start here. A further copy is
    insurance and counts with ``DOUBT``; a move is a bet on the forecast as it is.
    """
    kept = [each for each in held if each is not old]
    ends_s, races = first_ends_s(held), _races(kept) if kept else [(NEVER_S, NEVER_S)] * len(new.starts_s)
    starts_s = [now_s + share * (at_s - now_s) for at_s in new.starts_s for share in (DOUBT if old is None else (1.0,))]
    loss_share = LOSS_SHARE if kept else 1.0
    saved = 0.0
    for held_s, race, begin_s, done_s in zip(ends_s, races, new.starts_s, new.ends_s, strict=True):
        for start_s in starts_s:
            gain_s = held_s - min(race, (start_s, start_s + done_s - begin_s))[1]
            saved += gain_s if gain_s > 0 else loss_share * gain_s
    return saved / len(ends_s) / len(starts_s)


def followers(came: Collection[tuple[float, str]]) -> float:
    """How many jobs come to a place that is used, of those that came in ``FOLLOWED_S``: when, and where to."""
    return len(came) / max(1, len({place for _, place in came}))


def crowding_s(run_s: float, wait_s: float, cores: int, all_cores: int, followers: float) -> float:
    """What others of ours lose by a job that waits and runs so long on so many of a place's cores, in seconds.

    followers: jobs of ours that come to such a place in ``FOLLOWED_S``. Each is later by the job's work, spread over
    all cores, if it comes before the queue has drained: who finds free cores takes nothing of anyone.
    """
    work_s = run_s * cores / all_cores
    drained_s = (wait_s + work_s) / DRAINED_SHARE
    return followers * work_s * min(1.0, drained_s / FOLLOWED_S)


def is_loss(each: Prospect, others: Collection[Prospect], now_s: float) -> bool:
    """Whether a start there now would end the job later than the other copies promise."""
    return now_s + each.run_s > fmean(first_ends_s(others))


def losing(held: Sequence[Prospect], now_s: float) -> tuple[str, ...]:
    """Places in which a start now would end the job later than the other copies promise; never all of them."""
    dropped: list[str] = []
    for each in sorted(held, key=lambda prospect: (-prospect.run_s, prospect.place)):
        others = [other for other in held if other is not each and other.place not in dropped]
        if others and is_loss(each, others, now_s):
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
    pairs: list[tuple[Prospect, Prospect | None]] = []
    if len(kept) < rules.copies:
        pairs = [(new, None) for new in offered]
    elif rules.moves:
        pairs = [(new, old) for new in offered for old in kept]
    left_s = fmean(first_ends_s(kept)) - now_s
    best: tuple[float, Prospect, Prospect | None] | None = None
    for new, old in pairs:
        gain_s = saved_s(kept, new, now_s, old)
        least_s = max(price_s, MOVE_S, MOVE_SHARE * left_s) if old else price_s
        if gain_s > least_s and (best is None or (-gain_s, new.place) < (-best[0], best[1].place)):
            best = gain_s, new, old
    if best is None:
        return Change(withdraw=dropped)
    _, new, old = best
    return Change((new.place,), (*dropped, old.place) if old else dropped)
