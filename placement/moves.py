"""Whether a job that waits should wait elsewhere, or in a further place too. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from placement.problem import PlaceKey
from scheduler.model.plan import Estimate

LEAST_GAIN_S = 1800
LEAST_GAIN_SHARE = 0.25
"""A move must bring the result sooner by more than both: that many seconds, and that share of what remains."""

MOST_MOVES = 4
SETTLE_S = 900
"""How long a job stays where it was put before it may be moved: estimates swing, and time in a queue counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a queued job stands: ``remaining_s`` until its result is expected there, ``waited_s`` since it came."""

    places: Collection[PlaceKey]
    """Where it waits already, its lead and its copies."""
    remaining_s: float
    waited_s: float
    move_count: int = 0
    """Moves made or under way."""


def remaining_s(here: Estimate, promised_s: float | None) -> float:
    """Seconds until the result where the job waits: the sooner of what a new job could expect and what was promised.

    here: what a job that came only now would expect in this place. promised_s: until the start that the site expects.
    """
    wait_s = here.wait.p50_s if promised_s is None else min(here.wait.p50_s, max(0.0, promised_s))
    return max(wait_s, here.staging.p50_s) + here.run.p50_s + here.archive.p50_s + here.extra_s


def better_place(standing: Standing, prospects: Sequence[Estimate]) -> Estimate | None:
    """Where to move the job, on evidence only; None: it stays. prospects: places that may take it, in any order."""
    if standing.move_count >= MOST_MOVES or standing.waited_s < SETTLE_S:
        return None
    best = further_place(standing.places, prospects)
    if best is None:
        return None
    gain_s = standing.remaining_s - best.total_p50_s - best.extra_s
    return best if gain_s > max(LEAST_GAIN_S, LEAST_GAIN_SHARE * standing.remaining_s) else None


def further_place(taken: Collection[PlaceKey], prospects: Sequence[Estimate]) -> Estimate | None:
    """Where a further copy would have its result soonest; None: there is no other place."""
    free = [each for each in prospects if PlaceKey(each.system_id, each.queue) not in taken]
    return min(free, key=lambda each: (each.total_p50_s + each.extra_s, each.system_id, each.queue or ""), default=None)
