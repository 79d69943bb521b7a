"""What a snapshot shows of a place, for forecasts: who runs, who is in line, and how many cores that is about.

Fragmentation, reservations and what hidden jobs will do are not in it; they are why its answers carry a wide p90.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import quantiles

from placement.futures import Copy, Futures
from placement.looks import Look, SeenJob
from placement.order import Order
from placement.predict import Predictor
from placement.problem import PlaceOption
from placement.slots import footprint_cores, free_cores, total_cores
from scheduler.model.snapshots import VisibleJob

MAX_REPLAYED = 300
"""Waiting jobs played one by one; what waits behind them is added as work."""

DRAWS = 5
"""Draws of a place's future: enough for a median and a tail, few enough to plan twenty systems at once."""

LONGEST_S = 30 * 86_400.0
"""Nothing is believed to run longer (UNLIMITED partitions)."""

BEHIND = "~"
"""What a job of ours is called that is not there yet; no site's job has such an id."""

_NOT_COMPETING = ("Dependency", "JobHeld", "BeginTime", "Assoc", "QOSMax", "ReqNodeNotAvail", "PartitionDown")
"""Reasons, by their beginning, for which a waiting job takes no free node."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The futures of one place. ``behind_s``: work not played, for all cores; ``jobs_shown``: those that are played."""

    futures: Futures
    now_s: float
    jobs_shown: int
    behind_s: float

    def wait(self, cores: int, walltime_s: float) -> tuple[float, float] | None:
        """Median and 90th percentile of the wait of a job that joins now; None when it never starts in most draws."""
        asked_s, until_s = _walltime_s(walltime_s), self.now_s + LONGEST_S
        copy = Copy(BEHIND, "", cores, asked_s, self.now_s, user=BEHIND, kin=BEHIND)
        waits_s = [start_s - self.now_s for start_s in self.futures.starts_s(copy, until_s)]
        tenths = quantiles(waits_s, n=10, method="inclusive")
        if tenths[4] >= LONGEST_S:
            return None
        return tenths[4] + self.behind_s, tenths[8] + self.behind_s


def forecast(place: PlaceOption, now_s: float, predictor: Predictor) -> Forecast | None:
    """Futures of a place's queue as far as it is visible.

    now_s: Unix time. None when too little is visible: most of the busy cores belong to jobs that are hidden from us.
    """
    total, free = total_cores(place.nodes), free_cores(place.nodes)
    running = [job for job in place.visible_jobs if job.running]
    busy, visible = total - free, sum(job.cores for job in running)
    if total <= 0 or visible < busy / 2:
        return None
    # jobs may share cores with other partitions; never free more than is busy
    scale = min(1.0, busy / visible) if visible else 0.0
    on_cores = [_seen(job, int(job.cores * scale), now_s) for job in running]
    in_line = [_seen(job, job.cores, now_s) for job in _in_order(place.visible_jobs)] + _unseen(place, now_s)
    on_cores, in_line = _told_apart(on_cores), _told_apart(in_line)
    played, behind = in_line[:MAX_REPLAYED], in_line[MAX_REPLAYED:]
    behind_s = sum(job.cores * predictor.run_s(job.kin, job.asked_s, 0.5) for job in behind) / total
    cores = free + sum(job.cores for job in on_cores)
    look = Look(now_s, cores, on_cores, played)
    return Forecast(Futures(look, predictor, Order(), draws=DRAWS), now_s, len(on_cores) + len(played), behind_s)


def waits_for_nodes(job: VisibleJob) -> bool:
    """Whether a visible job competes for free nodes now."""
    return not job.running and not job.reason.startswith(_NOT_COMPETING)


def _in_order(jobs: Iterable[VisibleJob]) -> list[VisibleJob]:
    def rank(job: VisibleJob) -> tuple[float, float, str]:
        return (-job.priority, job.submitted_at.timestamp() if job.submitted_at else 0.0, job.remote_id)

    return sorted(filter(waits_for_nodes, jobs), key=rank)


def _seen(job: VisibleJob, cores: int, now_s: float) -> SeenJob:
    """A visible job; what it does not say of itself is taken to be now."""
    came_s = min(job.submitted_at.timestamp(), now_s) if job.submitted_at else now_s
    began_s = (min(job.started_at.timestamp(), now_s) if job.started_at else now_s) if job.running else None
    return SeenJob(job.remote_id, cores, _walltime_s(job.walltime_s), came_s, job.user, job.user, began_s)


def _told_apart(jobs: Iterable[SeenJob]) -> list[SeenJob]:
    """The jobs, none of them called like another (a site that says so is wrong, and no reason to stop)."""
    named: dict[str, SeenJob] = {}
    for n, job in enumerate(jobs):
        name = job.id if job.id not in named else f"{job.id}/{n}"
        named[name] = job if name == job.id else replace(job, id=name)
    return list(named.values())


def _unseen(place: PlaceOption, now_s: float) -> list[SeenJob]:
    """Jobs of ours that the snapshot cannot show yet, last in line."""
    return [
        SeenJob(
            f"{BEHIND}{n}",
            footprint_cores(each.resources, place.nodes) * max(1, each.tasks),
            _walltime_s(each.resources.walltime_s),
            now_s,
            BEHIND,
            BEHIND,
        )
        for n, each in enumerate(place.unseen)
    ]


def _walltime_s(asked_s: float) -> float:
    return min(max(1.0, asked_s), LONGEST_S)
