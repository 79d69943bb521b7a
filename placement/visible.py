"""The visible part of a queue as plain numbers: what a snapshot shows, and what rows of past looks remember.

Sizes are cores. Fragmentation of nodes is not in it, nor what other partitions do with nodes that they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from placement.looks import Look, SeenJob
from placement.problem import PlaceOption
from placement.slots import footprint_cores, free_cores, total_cores
from scheduler.model.snapshots import Sighting, SystemSnapshot, VisibleJob

LONGEST_RUN_S = 30 * 86_400.0
"""Nothing is believed to run longer (UNLIMITED partitions)."""

SEEN_SHARE = 0.5
"""Of the cores that are busy, what must belong to visible jobs for a queue to be foreseen from them."""

HIDDEN = "hidden"
"""Stands for all that is busy with jobs that we may not see."""

NOT_COMPETING = ("Dependency", "JobHeld", "BeginTime", "Assoc", "QOSMax", "ReqNodeNotAvail", "PartitionDown")
"""Reasons, by their beginning, for which a waiting job takes no free node."""


def queue_name(system_id: str, partition: str) -> str:
    """The name of a queue of a site, under which is kept what is learnt of it."""
    return f"{system_id}/{partition}"


def place_name(place: PlaceOption) -> str:
    """The same for a place; several logical queues may stand for one partition."""
    return queue_name(place.view.system.id, _partition(place))


def stands_as(place: PlaceOption) -> str:
    """As whom our jobs stand in line there: a login that all share has its rank, users' own have none in common."""
    system = place.view.system
    return "" if system.is_dynamic_user else system.effective_user_id


def waits_for_nodes(job: VisibleJob) -> bool:
    """Whether a visible job competes for free nodes now."""
    return not job.running and not job.reason.startswith(NOT_COMPETING)


def look_of(snapshot: SystemSnapshot, system_id: str, partition: str) -> Look:
    """One partition as a snapshot shows it: what learning is done from."""
    now_s = snapshot.taken_at.timestamp()
    jobs = snapshot.jobs_by_partition.get(partition, ())
    return Look(
        now_s,
        max(1, total_cores(tuple(kind for kind in snapshot.nodes if kind.partition == partition))),
        tuple(_seen(job, system_id, now_s) for job in jobs if job.running),
        tuple(_seen(job, system_id, now_s) for job in sorted(filter(waits_for_nodes, jobs), key=_rank)),
        whole=snapshot.is_whole,
    )


def foreseeable(place: PlaceOption) -> Look | None:
    """A place as forecasts start from it; None when too little is visible of it.

    Jobs may share cores with other partitions, so that what runs is cut to what is busy; what is busy and hidden stays
    so. Our own jobs that the snapshot cannot show yet are coming.
    """
    snapshot, total = place.view.snapshot, total_cores(place.nodes)
    if snapshot is None or total <= 0:
        return None
    look = look_of(snapshot, place.view.system.id, _partition(place))
    busy, seen = max(0, total - free_cores(place.nodes)), sum(job.cores for job in look.running)
    if seen < busy * SEEN_SHARE:
        return None
    running = list(_cut(look.running, busy / seen if seen > busy else 1.0))
    hidden = busy - sum(job.cores for job in running)
    if hidden > 0:
        running.append(SeenJob(HIDDEN, hidden, LONGEST_RUN_S, look.now_s, HIDDEN, HIDDEN))
    return replace(look, running=tuple(running), coming=tuple(_coming(place, look)))


def remembered(past: Iterable[Sighting], system_id: str) -> Look:
    """The past of one partition as a single look, taken when the last of it was seen."""
    rows = list(past)
    seen = [_from_row(row, system_id) for row in rows]
    return Look(
        max((row.seen_at.timestamp() for row in rows), default=0.0),
        1,
        tuple(job for job in seen if job.started_s is not None and job.ended_s is None),
        tuple(job for job, row in zip(seen, rows, strict=True) if row.started_at is None and row.ended_at is None),
        tuple(job for job in seen if job.started_s is not None and job.ended_s is not None),
    )


def _partition(place: PlaceOption) -> str:
    """Where its jobs show; a host without a batch system shows itself as one partition."""
    if place.queue is not None:
        return place.queue.partition
    return place.partition.name if place.partition is not None else ""


def _seen(job: VisibleJob, system_id: str, now_s: float) -> SeenJob:
    return SeenJob(
        job.remote_id,
        max(1, job.cores),
        _walltime_s(job.walltime_s),
        min(now_s, job.submitted_at.timestamp()) if job.submitted_at else now_s,
        job.user,
        queue_name(system_id, job.user),
        job.started_at.timestamp() if job.running and job.started_at else None,
    )


def _from_row(row: Sighting, system_id: str) -> SeenJob:
    return SeenJob(
        row.remote_id,
        max(1, row.cores),
        _walltime_s(row.walltime_s),
        row.submitted_at.timestamp(),
        row.user,
        queue_name(system_id, row.user),
        row.started_at.timestamp() if row.started_at else None,
        row.ended_at.timestamp() if row.ended_at else None,
    )


def _rank(job: VisibleJob) -> tuple[float, float, str]:
    return -job.priority, job.submitted_at.timestamp() if job.submitted_at else 0.0, job.remote_id


def _cut(running: Sequence[SeenJob], share: float) -> Iterable[SeenJob]:
    if share >= 1.0:
        return running
    return (job._replace(cores=int(job.cores * share)) for job in running if int(job.cores * share) > 0)


def _coming(place: PlaceOption, look: Look) -> Iterable[SeenJob]:
    for number, each in enumerate(place.unseen):
        cores = footprint_cores(each.resources, place.nodes) * max(1, each.tasks)
        sent_s = (each.submitted_at or each.placed_at).timestamp()
        walltime_s = _walltime_s(each.resources.walltime_s)
        at_s = max(look.now_s, sent_s)
        yield SeenJob(f"ours {number}", min(cores, look.cores), walltime_s, at_s, stands_as(place), "")


def _walltime_s(asked_s: float) -> float:
    return min(max(1.0, float(asked_s)), LONGEST_RUN_S)
