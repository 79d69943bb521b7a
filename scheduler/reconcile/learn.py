"""What an ended run teaches the estimators. Pure; the watcher stores it in the transaction that records the end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from scheduler.model.jobs import Attempt, FinishedRun, Job
from scheduler.model.runs import Ending, Observation

TEACHES = frozenset({Ending.COMPLETED, Ending.FAILED, Ending.TIMEOUT, Ending.OUT_OF_MEMORY})
"""Endings that came from the run itself; others say nothing of how long such a job takes."""

BROKEN = frozenset({Ending.NODE_FAILURE, Ending.LAUNCH_FAILURE})
"""Endings that came from the system."""


def finished_run(job: Job, attempt: Attempt, seen: Observation) -> FinishedRun | None:
    """The wait and the run time of an attempt, or that the system broke it; None when it ended in another way."""
    started_at = seen.started_at or attempt.started_at
    if seen.ended_at is None:
        return None
    if seen.ending in BROKEN:
        return broken_run(job, attempt, started_at, seen.ended_at)
    if seen.ending not in TEACHES or started_at is None:
        return None
    submitted_at = seen.submitted_at or attempt.submitted_at or attempt.intended_at
    completed = seen.ending is Ending.COMPLETED
    return _run(job, attempt, submitted_at, started_at, seen.ended_at, completed=completed)


def broken_run(job: Job, attempt: Attempt, started_at: datetime | None, ended_at: datetime) -> FinishedRun:
    """A run that the system broke or lost; ``started_at`` None: before it ran."""
    submitted_at = attempt.submitted_at or attempt.intended_at
    return _run(job, attempt, submitted_at, started_at or ended_at, ended_at, broken=True)


def _run(
    job: Job,
    attempt: Attempt,
    submitted_at: datetime,
    started_at: datetime,
    ended_at: datetime,
    *,
    completed: bool = False,
    broken: bool = False,
) -> FinishedRun:
    return FinishedRun(
        tenant=job.tenant,
        owner=job.owner,
        app_id=job.spec.app_id,
        image=job.spec.image,
        system_id=attempt.system_id,
        queue=attempt.queue,
        resources=job.spec.resources,
        submitted_at=submitted_at,
        started_at=started_at,
        ended_at=ended_at,
        completed=completed,
        broken=broken,
        told_waits_s=_told_waits_s(job, attempt),
    )


def _told_waits_s(job: Job, attempt: Attempt) -> Mapping[str, tuple[float, float]]:
    """What was said when the place was chosen; of a place to which the job went later nothing was kept."""
    chosen = job.decision.winner if job.decision else None
    if chosen is None or (chosen.system_id, chosen.queue) != (attempt.system_id, attempt.queue):
        return {}
    return chosen.told_waits_s
