"""Jobs that must be placed together: all in one queue, or none of them yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from placement.filters import Screening
from placement.problem import Ask, PlaceKey
from placement.rejections import of_place
from scheduler.model.plan import Reason

GangKey = tuple[str, str]
"""An owner, and what they call their gang."""


def gang_of(ask: Ask) -> GangKey | None:
    """The gang that a job belongs to."""
    return (ask.owner, ask.spec.gang.name) if ask.spec.gang else None


def gangs(asks: Iterable[Ask]) -> Mapping[GangKey, Sequence[Ask]]:
    """The jobs of each gang that are at hand, by uuid."""
    found: dict[GangKey, list[Ask]] = defaultdict(list)
    for ask in sorted(asks, key=lambda ask: ask.job_uuid):
        key = gang_of(ask)
        if key is not None:
            found[key].append(ask)
    return found


def gathered(asks: Iterable[Ask], screenings: Mapping[str, Screening]) -> Mapping[str, Screening]:
    """The screenings with gangs: a member may go where all may; while one is missing, all wait for it."""
    changed: dict[str, Screening] = {}
    for members in gangs(asks).values():
        needed = max(ask.spec.gang.size for ask in members if ask.spec.gang)
        shared = [frozenset(place.key for place in screenings[ask.job_uuid].candidates) for ask in members]
        common = frozenset.intersection(*shared) if len(members) >= needed else frozenset[PlaceKey]()
        told = f"{len(members)} of {needed} jobs" if len(members) < needed else ""
        changed |= {ask.job_uuid: _together(screenings[ask.job_uuid], common, told) for ask in members}
    return {**screenings, **changed} if changed else screenings


def _together(screening: Screening, common: frozenset[PlaceKey], told: str) -> Screening:
    left_out = [place for place in screening.candidates if place.key not in common]
    return replace(
        screening,
        candidates=tuple(place for place in screening.candidates if place.key in common),
        later=(*screening.later, *(of_place(place, Reason.GANG, told) for place in left_out)),
    )
