"""STAGING_JOB: directories are made, and what will run is frozen into an attempt."""

from __future__ import annotations

from scheduler.model.ids import marker_for
from scheduler.model.jobs import Attempt, Job
from scheduler.model.states import AttemptState
from scheduler.reconcile.runspec import awaited_image, run_spec, stage_plan
from scheduler.reconcile.sides import place_of_job
from scheduler.reconcile.steps import Hands


async def stage(job: Job, hands: Hands) -> Attempt | None:
    """STAGING_JOB -> SUBMITTING_JOB: the system is ready for the attempt that this returns; None: not yet."""
    place = place_of_job(job)
    side = await hands.sides.of(job.tenant, place.system_id, job.owner)
    run = run_spec(job, place, side.system, side.login_user)
    number = job.last_attempt + 1
    marker = marker_for(job.uuid, number)
    backend = await side.backend(hands.ports, place.job_type)
    status = await backend.stage(stage_plan(marker, run))
    if not status.done:
        await hands.say(status.message or "staging")
        return None
    return Attempt(
        job_id=job.id,
        job_uuid=job.uuid,
        tenant=job.tenant,
        owner=job.owner,
        number=number,
        marker=marker,
        system_id=place.system_id,
        queue=place.queue,
        state=AttemptState.INTENDED,
        run=run,
        intended_at=hands.ports.clock(),
        fence=job.fence,
        awaits_image=awaited_image(job, run),
    )
