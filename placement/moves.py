"""Whether a job that waits should wait elsewhere, or in a further place too: what ``race`` may do as things stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from placement.easy import NEVER_S
from placement.estimate import Outlook
from placement.problem import PlaceKey
from placement.race import Prospect, Rules, first_ends_s, reconsidered
from scheduler.model.plan import Estimate

MOST_MOVES = 4
SETTLE_S = 900
"""How long a job stays where it was put before it may be moved: forecasts swing, and time in a queue counts."""

MOVE_PRICE_S = 1800.0
"""What a move must save at least, beside the share that ``race`` asks for: it is work for two sites."""

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
        return len(self.in_line) == 1 and self.waited_s >= SETTLE_S and self.move_count < MOST_MOVES


@dataclass(frozen=True, slots=True)
class Further:
    """A place to which a job should go as well, or instead; sooner_s: what that saves in the mean, as a move."""

    place: Estimate
    is_move: bool
    sooner_s: float


def further(standing: Standing, held: Sequence[Prospect], outlooks: Sequence[Outlook], now_s: float) -> Further | None:
    """Where the job should go besides; None: it stays. held: what is foreseen where it waits; outlooks: of all places.

    A copy that the user asked for comes first; a move is made where no copy is owed.
    """
    free = [each for each in outlooks if each.key not in standing.in_line]
    owed = len(standing.in_line) < standing.hedge_count
    copies = [each for each in free if owed and each.key.system_id in standing.hedges_to]
    offered = copies or [each for each in free if standing.may_move and each.key.system_id in standing.moves_to]
    rules = Rules(copies=len(held) + 1 if copies else len(held), moves=not copies)
    price_s = ASKED_FOR_S if copies else MOVE_PRICE_S
    if not held or not offered:
        return None
    change = reconsidered(held, [each.prospect for each in offered], rules, price_s, now_s)
    best = next((each for each in offered if each.prospect.place in change.submit), None)
    if best is None:
        return None
    return Further(best.estimate, not copies, fmean(first_ends_s(held)) - best.prospect.mean_end_s)


def where_it_waits(standing: Standing, key: PlaceKey, prospect: Prospect, starts_s: Sequence[float] | None) -> Prospect:
    """What is foreseen of the job in a place where it is in line. starts_s: of it in the queue, where that is visible.

    Else it starts as a job would that comes only now; the lead starts when the site expects it, if that is sooner.
    """
    runs_s = [end_s - start_s for start_s, end_s in zip(prospect.starts_s, prospect.ends_s, strict=True)]
    promised_s = standing.start_at_s if key == standing.lead else None
    latest_s = NEVER_S if promised_s is None else promised_s
    begins_s = [min(start_s, latest_s) for start_s in starts_s or prospect.starts_s]
    return Prospect(prospect.place, begins_s, [at_s + run_s for at_s, run_s in zip(begins_s, runs_s, strict=True)])
