"""The end that a user asked for, of a job that the system holds already."""

from __future__ import annotations

from scheduler.model.errors import NotFound
from scheduler.model.jobs import Job
from scheduler.reconcile.sides import exec_side, place_of_job
from scheduler.reconcile.steps import Hands
from scheduler.store.jobs import JobStore


async def withdraw(job: Job, hands: Hands) -> None:
    """QUEUED, RUNNING: ask the system to end the run, again and again until the watcher sees that it ended."""
    async with hands.ports.transaction() as db:
        attempt = await JobStore(db).newest_attempt(job)
    if attempt is None or attempt.remote_id is None:
        raise NotFound("remote job of", job.uuid)
    side = await exec_side(hands.ports, job)
    backend = await side.backend(hands.ports, place_of_job(job).job_type)
    await backend.cancel(attempt.remote_id, attempt.marker)
