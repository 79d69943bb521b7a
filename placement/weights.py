"""How much each job counts: by what users say, by what waits behind it, and less the more its owner has waiting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from placement.problem import Ask

FAIRNESS = 0.5
"""An owner's jobs count by the number of them to this power: a hundred times the jobs, ten times the say."""

LEAST, MOST = 1, 10_000


def weights(asks: Sequence[Ask]) -> Mapping[str, int]:
    """Weight of each job, in hundredths, by uuid."""
    waiting = Counter(ask.owner for ask in asks)
    return {ask.job_uuid: _weight(ask, waiting[ask.owner]) for ask in asks}


def _weight(ask: Ask, owned: int) -> int:
    """What is no number counts as 1.0, and as nothing behind the job."""
    own = ask.spec.weight if -1e6 < ask.spec.weight < 1e6 else 1.0
    behind = ask.behind_weight if 0 < ask.behind_weight < 1e6 else 0.0
    return max(LEAST, min(MOST, round((own + behind) / math.pow(owned, FAIRNESS) * 100)))


class Waiting(NamedTuple):
    """A job that waits for others to end: how much it counts, and their uuids."""

    weight: float
    after: Sequence[str]


def behind(waiting: Mapping[str, Waiting]) -> Mapping[str, float]:
    """By job that others wait for: the weights of all that wait behind it, directly or not.

    Each second that it is late makes all of them late, so they count with it: what has the longest or broadest work
    behind it goes first, as by the upward rank of HEFT (Topcuoglu, Hariri & Wu 2002), in the units of the objective.
    """
    followers: dict[str, list[str]] = {}
    for uuid in sorted(waiting):
        for before in waiting[uuid].after:
            followers.setdefault(before, []).append(uuid)
    return {uuid: sum(waiting[each].weight for each in _all_behind(uuid, followers)) for uuid in followers}


def _all_behind(uuid: str, followers: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Each once, however many ways lead to it; a circle ends where it began."""
    found: dict[str, None] = {}
    ahead = list(followers.get(uuid, ()))
    while ahead:
        next_one = ahead.pop()
        if next_one not in found and next_one != uuid:
            found[next_one] = None
            ahead.extend(followers.get(next_one, ()))
    return sorted(found)
