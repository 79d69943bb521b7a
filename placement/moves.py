"""Second thoughts about a job that waits: where it should wait as well or instead, and where no longer.

What ``race`` advises, as far as the job's standing and the rules allow it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from placement.easy import NEVER_S
from placement.problem import PlaceKey
from placement.race import Change, Prospect, Rules, Spent, is_loss, reconsidered
from scheduler.model.plan import Estimate

MOST_MOVES = 4
SETTLE_S = 900
"""How long a job stays where it was put before it may be moved: forecasts swing, and time in a queue counts."""

ASKED_FOR_S = -NEVER_S
"""The price of a copy that the user asked for: it is made in the best place there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a queued job stands. in_line: where it waits, with its number on the site; lead: which of them it is in.

    start_at_s: Unix time at which the site expects to start it there, None where it says nothing. hedges_to, moves_to:
    systems to which it may be copied, or moved.
    """

    in_line: Mapping[PlaceKey, str | None]
    lead: PlaceKey
    waited_s: float
    start_at_s: float | None = None
    move_count: int = 0
    hedge_count: int = 1
    hedges_to: Collection[str] = frozenset()
    moves_to: Collection[str] = frozenset()

    @property
    def may_move(self) -> bool:
        return self.waited_s >= SETTLE_S and self.move_count < MOST_MOVES


@dataclass(frozen=True, slots=True)
class Further:
    """A place to which a job should go as well, or instead; sooner_s: what that saves in the mean, as a move."""

    place: Estimate
    is_move: bool
    sooner_s: float


class SecondThought(NamedTuple):
    """What is to become of a job that waits. no_longer: where its copies are to be taken back; never where it leads."""

    further: Further | None = None
    no_longer: tuple[PlaceKey, ...] = ()


def reconsider(
    standing: Standing,
    held: Sequence[Prospect],
    offered: Mapping[PlaceKey, Prospect],
    rules: Rules,
    spent: Spent,
    now_s: float,
) -> Change:
    """What to change for a job that waits. held: what is foreseen where it waits; offered: of other places.

    A copy that the user asked for comes first, at no price, unless it would be a loss from the start. Whoever waits in
    more places than the rules allow by themselves, as the user asked, is not moved.
    """
    free = {key: each for key, each in offered.items() if key not in standing.in_line}
    if len(standing.in_line) < standing.hedge_count:
        asked = [each for key, each in free.items() if key.system_id in standing.hedges_to]
        asked = [each for each in asked if not is_loss(each, held, now_s)]
        if asked:
            return reconsidered(held, asked, replace(rules, copies=len(held) + 1), ASKED_FOR_S, now_s)
    welcome: Collection[str] = ()
    if len(standing.in_line) < rules.copies:
        welcome = standing.hedges_to
    elif len(standing.in_line) == rules.copies and standing.may_move:
        welcome = standing.moves_to
    worth = [each for key, each in free.items() if key.system_id in welcome]
    return reconsidered(held, worth, rules, spent.price_s(rules), now_s)


def where_it_waits(standing: Standing, key: PlaceKey, prospect: Prospect, starts_s: Sequence[float] | None) -> Prospect:
    """What is foreseen of the job in a place where it is in line. starts_s: of it in the queue, where that is visible.

    Else it starts as a job would that comes only now; the lead starts when the site expects it, if that is sooner.
    """
    runs_s = [end_s - start_s for start_s, end_s in zip(prospect.starts_s, prospect.ends_s, strict=True)]
    promised_s = standing.start_at_s if key == standing.lead else None
    latest_s = NEVER_S if promised_s is None else promised_s
    begins_s = [min(start_s, latest_s) for start_s in starts_s or prospect.starts_s]
    return Prospect(prospect.place, begins_s, [at_s + run_s for at_s, run_s in zip(begins_s, runs_s, strict=True)])
