"""A rejection as the filters make it, and the comparisons that they share."""

from __future__ import annotations

from collections.abc import Callable

from placement.problem import PlaceOption, SystemView
from scheduler.model.plan import Reason, Rejection
from scheduler.model.systems import UNLIMITED


def of_system(view: SystemView, reason: Reason, asked: str = "", limit: str = "") -> Rejection:
    """It speaks for every queue of the system. asked, limit: as people write them."""
    return Rejection(system_id=view.system.id, queue=None, reason=reason, asked=asked, limit=limit)


def of_place(place: PlaceOption, reason: Reason, asked: str = "", limit: str = "") -> Rejection:
    """It speaks for one place. asked, limit: as people write them."""
    return Rejection(system_id=place.key.system_id, queue=place.key.queue, reason=reason, asked=asked, limit=limit)


def between(
    place: PlaceOption,
    reason: Reason,
    count: int,
    limits: tuple[int, int | None],
    written: Callable[[int], str],
) -> Rejection | None:
    """Whether a count is out of its limits, least and most (None: none), in words by ``written``."""
    least, most = limits
    if count < least:
        return of_place(place, reason, written(count), f"at least {written(least)}")
    if most is not None and count > most:
        return of_place(place, reason, written(count), f"at most {written(most)}")
    return None


def reached(count: int, limit: int) -> bool:
    """Whether a limit on numbers is used up; one that is not set never is."""
    return 0 <= limit <= count and limit < UNLIMITED
