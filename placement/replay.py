"""A partition's near future: the jobs that are visible now, planned in order into the free cores that they leave.

Slurm's backfill scheduler plans a start for every waiting job in turn and starts early only what delays none planned
before it. So does this replay, by cores instead of nodes: small enough to be right, and one forecast answers for every
job that may join the queue. Fragmentation, reservations and later arrivals are not in it; they are why its answers
carry a wide p90.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from placement.problem import PlaceOption
from placement.slots import footprint_cores, free_cores, total_cores
from scheduler.model.snapshots import VisibleJob

MAX_REPLAYED = 300
"""Waiting jobs planned one by one; what waits behind them is added as work."""

LONGEST_S = 30 * 86_400
"""Nothing is believed to run longer (UNLIMITED partitions)."""

_NOT_COMPETING = ("Dependency", "JobHeld", "BeginTime", "Assoc", "QOSMax", "ReqNodeNotAvail", "PartitionDown")
"""Reasons, by their beginning, for which a waiting job takes no free node."""


class FreeCores:
    """Free cores over time from now (0) on, as steps; the last one lasts for ever."""

    def __init__(self, free: int, ends: Iterable[tuple[float, int]] = ()) -> None:
        """``ends``: when, in seconds from now, how many more cores become free."""
        self._times, self._free = [0.0], [free]
        for at, cores in sorted(ends):
            if at > self._times[-1]:
                self._times.append(at)
                self._free.append(self._free[-1])
            self._free[-1] += cores

    def earliest_s(self, cores: int, duration_s: float) -> float | None:
        """When so many cores are first free for so long; None when never."""
        start: float | None = None
        for index, free in enumerate(self._free):
            if free < cores:
                start = None
                continue
            start = self._times[index] if start is None else start
            ends = self._times[index + 1] if index + 1 < len(self._times) else None
            if ends is None or ends - start >= duration_s:
                return start
        return None

    def take(self, start_s: float, cores: int, duration_s: float) -> None:
        """Put a job there; ``earliest_s`` has said that it fits."""
        first, last = self._cut(start_s), self._cut(start_s + duration_s)
        for index in range(first, last):
            self._free[index] -= cores

    def _cut(self, at: float) -> int:
        index = bisect_left(self._times, at)
        if index == len(self._times) or self._times[index] != at:
            self._times.insert(index, at)
            self._free.insert(index, self._free[index - 1])
        return index


class Forecast:
    """The free cores of one place, once all that is visible there is planned. ``behind_s``: work not replayed."""

    def __init__(self, free: FreeCores, replayed: int, behind_s: float) -> None:
        self.free, self.replayed, self.behind_s = free, replayed, behind_s

    def start_s(self, cores: int, duration_s: float) -> float | None:
        """When a job that joins now would start, in seconds from now; None when the plan has no room for it."""
        return self.free.earliest_s(cores, duration_s)


def forecast(place: PlaceOption, now_s: float, run_share: float) -> Forecast | None:
    """Replay the place's queue, taking every job to run for ``run_share`` of the walltime it has left.

    now_s: Unix time. None when too little is visible: most of the busy cores belong to jobs that are hidden from us.
    """
    total, free = total_cores(place.nodes), free_cores(place.nodes)
    running = [job for job in place.visible_jobs if job.running]
    busy, seen = total - free, sum(job.cores for job in running)
    if total <= 0 or seen < busy / 2:
        return None
    scale = (
        min(1.0, busy / seen) if seen else 0.0
    )  # jobs may share cores with other partitions; never free more than is busy
    ends = [(max(1.0, _left_s(job, now_s) * run_share), int(job.cores * scale)) for job in running]
    plan = FreeCores(free, ends)
    queue = [(job.cores, _walltime_s(job.walltime_s) * run_share) for job in _in_order(place.visible_jobs)]
    for each in place.unseen:
        cores = footprint_cores(each.resources, place.nodes) * max(1, each.tasks)
        queue.append((cores, _walltime_s(each.resources.walltime_s) * run_share))
    for cores, duration_s in queue[:MAX_REPLAYED]:
        start_s = plan.earliest_s(cores, duration_s)
        if start_s is not None:
            plan.take(start_s, cores, duration_s)
    behind_s = sum(cores * duration_s for cores, duration_s in queue[MAX_REPLAYED:]) / total
    return Forecast(plan, len(running) + min(len(queue), MAX_REPLAYED), behind_s)


def waits_for_nodes(job: VisibleJob) -> bool:
    """Whether a visible job competes for free nodes now."""
    return not job.running and not job.reason.startswith(_NOT_COMPETING)


def _in_order(jobs: Iterable[VisibleJob]) -> list[VisibleJob]:
    def rank(job: VisibleJob) -> tuple[float, float, str]:
        return (-job.priority, job.submitted_at.timestamp() if job.submitted_at else 0.0, job.remote_id)

    return sorted(filter(waits_for_nodes, jobs), key=rank)


def _left_s(job: VisibleJob, now_s: float) -> float:
    ran_s = max(0.0, now_s - job.started_at.timestamp()) if job.started_at else 0.0
    return max(0.0, _walltime_s(job.walltime_s) - ran_s)


def _walltime_s(asked_s: float) -> float:
    return min(max(1.0, asked_s), LONGEST_S)
