"""What holds a job back in a place whatever its queue says: nodes that a reservation closes, licences that are taken.

``held`` moves a queue wait accordingly: a job whose walltime reaches into a maintenance window starts after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from statistics import median

from placement.problem import PlaceOption
from placement.seen import licences_asked
from placement.slots import fitting_nodes
from placement.words import about, duration
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Term
from scheduler.model.snapshots import Closure

LONGEST_S = 365 * 86_400
"""A hold never ends later than this from now: reservations without an end are written as years."""

REOPENING_S = 60
"""How long a site takes to start jobs again when a reservation ends."""


def held(spec: JobSpec, place: PlaceOption, now: datetime, wait: Term) -> Term:
    """The wait with what else holds the job back; the wait itself when nothing does."""
    for hold in HOLDS:
        wait = hold(spec, place, now, wait)
    return wait


def closed_nodes(spec: JobSpec, place: PlaceOption, now: datetime, wait: Term) -> Term:
    """A start whose walltime would reach into a time with too few open nodes comes after it."""
    windows = closures_ahead(spec, place, now)
    if not windows:
        return wait
    p50_s, why = _after_windows(spec, wait.p50_s, windows, now)
    p90_s, why_late = _after_windows(spec, wait.p90_s, windows, now)
    reason = why or why_late
    if reason is None:
        return wait
    p90_s = max(p90_s, p50_s + wait.p90_s if why else p90_s)  # what waits now waits again when the nodes are back
    return Term(p50_s, p90_s, f"{wait.source}; {reason}")


def taken_licences(spec: JobSpec, place: PlaceOption, now: datetime, wait: Term) -> Term:
    """Licences come back when jobs end; which of the visible ones hold them is not shown."""
    snapshot = place.view.snapshot
    if snapshot is None or snapshot.licences is None:
        return wait
    asked = licences_asked(spec)
    short = sorted(each.name for each in snapshot.licences if each.free < asked.get(each.name, 0) <= each.total)
    if not short:
        return wait
    left_s = sorted(_left_s(job.started_at, job.walltime_s, now) for job in snapshot.jobs if job.running)
    p50_s, p90_s = (median(left_s), left_s[-1]) if left_s else (1800.0, 6 * 3600.0)
    source = f"{wait.source}; the licence {' and '.join(short)} is taken, back when a running job ends"
    return Term(max(wait.p50_s, p50_s), max(wait.p90_s, p90_s), source)


HOLDS: tuple[Callable[[JobSpec, PlaceOption, datetime, Term], Term], ...] = (taken_licences, closed_nodes)
"""In this order: what starts late for a licence may run into a window."""


# -- closures ----------------------------------------------------------------------------------------------------


def closures_ahead(spec: JobSpec, place: PlaceOption, now: datetime) -> tuple[Closure, ...]:
    """Windows, soonest first, in which too few nodes stay open there for the job; none that the job may use itself.

    Nodes that are down may be among those that are closed, and are not counted twice.
    """
    snapshot = place.view.snapshot
    if snapshot is None or place.queue is None or not snapshot.closures:
        return ()
    own = {option.value for option in spec.scheduler_options or () if option.name == "--reservation"}
    here = [
        each
        for each in snapshot.closures
        if each.partition == place.queue.partition and each.ends_at > now and each.reservation not in own
    ]
    kinds = fitting_nodes(spec, place)
    total, down = sum(kind.total for kind in kinds), sum(kind.down for kind in kinds)
    closing = [each for each in here if total - max(down, _closed_during(each, here)) < spec.resources.nodes]
    return tuple(sorted(closing, key=lambda each: (each.starts_at, each.ends_at, each.reservation)))


def walltime_before(closure: Closure, wait_s: float, now: datetime) -> int:
    """The longest walltime, in whole minutes as seconds, with which a job that starts then ends before the window."""
    return int((closure.starts_at - now).total_seconds() - wait_s) // 60 * 60


def _closed_during(closure: Closure, others: Iterable[Closure]) -> int:
    """Nodes closed at once; those that overlap are taken to close different nodes, as Slurm makes them."""
    return sum(each.nodes for each in others if each.starts_at < closure.ends_at and closure.starts_at < each.ends_at)


def _after_windows(spec: JobSpec, wait_s: float, windows: Iterable[Closure], now: datetime) -> tuple[float, str | None]:
    """When the job starts, in seconds from now, and which window held it last."""
    start_s, why = wait_s, None
    for each in windows:
        begins_s = (each.starts_at - now).total_seconds()
        ends_s = min((each.ends_at - now).total_seconds(), LONGEST_S)
        if start_s + spec.resources.walltime_s > begins_s and start_s < ends_s:
            start_s, why = ends_s + REOPENING_S, _said(each, begins_s)
    return start_s, why


def _said(closure: Closure, begins_s: float) -> str:
    what = "maintenance" if closure.maintenance else f"the reservation {closure.reservation}"
    when = f"in {about(begins_s)}" if begins_s > 0 else "now"
    lasts = duration((closure.ends_at - closure.starts_at).total_seconds())
    return f"after {what} ({when}, for {lasts})"


def _left_s(started_at: datetime | None, walltime_s: int, now: datetime) -> float:
    ran_s = max(0.0, (now - started_at).total_seconds()) if started_at else 0.0
    return min(max(1.0, walltime_s - ran_s), LONGEST_S)
