"""What an ended run teaches the estimators. Pure; the watcher stores it in the transaction that records the end."""

from __future__ import annotations

from scheduler.model.jobs import Attempt, FinishedRun, Job
from scheduler.model.runs import Ending, Observation

TEACHES = frozenset({Ending.COMPLETED, Ending.FAILED, Ending.TIMEOUT, Ending.OUT_OF_MEMORY})
"""Endings that came from the run itself; others say nothing of how long such a job takes."""


def finished_run(job: Job, attempt: Attempt, seen: Observation) -> FinishedRun | None:
    """The wait and the run time of an attempt; None when it did not run, or did not end by itself."""
    started_at = seen.started_at or attempt.started_at
    if seen.ending not in TEACHES or started_at is None or seen.ended_at is None:
        return None
    return FinishedRun(
        tenant=job.tenant,
        owner=job.owner,
        app_id=job.spec.app_id,
        image=job.spec.image,
        system_id=attempt.system_id,
        queue=attempt.queue,
        resources=job.spec.resources,
        submitted_at=seen.submitted_at or attempt.submitted_at or attempt.intended_at,
        started_at=started_at,
        ended_at=seen.ended_at,
        completed=seen.ending is Ending.COMPLETED,
    )
