"""Records to store in tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.jobs import Attempt, Fact, Job, JobSpec, NewJob, Place
from scheduler.model.runs import JobType, RunSpec, Runtime
from scheduler.model.states import AttemptState, E, S
from scheduler.model.tenants import Site, Tenant
from scheduler.store.database import Database
from scheduler.store.jobs import JobStore
from scheduler.store.tenants import TenantStore

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


async def tenant_and_site(database: Database, *names: str) -> None:
    async with database.transaction() as db:
        tenants = TenantStore(db)
        await tenants.add_site(Site(id="here", created_at=NOW))
        for name in names:
            await tenants.add_tenant(Tenant(id=name, site_id="here", hosts=(f"{name}.example.org",), created_at=NOW))


def a_spec(**changes: Any) -> JobSpec:
    asked = {"name": "a job", "app_id": "hello", "app_version": "1", "image": "docker://busybox"}
    return JobSpec(**{**asked, "runtime": Runtime.SINGULARITY, **changes})


def a_place(**changes: Any) -> Place:
    asked = {"system_id": "cluster", "queue": "normal", "partition": "p", "job_type": JobType.BATCH}
    dirs = {"working_dir": "w", "exec_dir": "w/e", "input_dir": "w/i", "output_dir": "w/o"}
    return Place(**{**asked, **dirs, "archive_system_id": "cluster", "archive_dir": "w/a", **changes})


def a_new_job(**changes: Any) -> NewJob:
    asked = {"tenant": "dev", "owner": "ann", "created_by": "ann", "uuid": new_job_uuid(), "at": NOW}
    return NewJob(**{**asked, "spec": a_spec(), "place": a_place(), **changes})


def an_attempt(job: Job, number: int = 1, **changes: Any) -> Attempt:
    run = RunSpec(job_uuid=job.uuid, name="a job", image="x", exec_dir="/w/e", input_dir="/w/i", output_dir="/w/o")
    asked = {"job_id": job.id, "job_uuid": job.uuid, "tenant": job.tenant, "owner": job.owner, "number": number}
    rest = {"marker": marker_for(job.uuid, number), "system_id": "cluster", "queue": "normal", "run": run}
    return Attempt(**{**asked, **rest, "state": AttemptState.INTENDED, "intended_at": NOW, **changes})


async def added(database: Database, **changes: Any) -> Job:
    async with database.transaction() as db:
        return (await JobStore(db).add([a_new_job(**changes)]))[0]


async def recorded(database: Database, job: Job, *events: E, **changes: Any) -> Job:
    for event in events:
        async with database.transaction() as db:
            job = await JobStore(db).record(job, Fact(event, changes), NOW)
    return job


async def submitting(database: Database, **changes: Any) -> Job:
    """A job in SUBMITTING_JOB with its first attempt."""
    job = await recorded(database, await added(database, **changes), E.PLACED, E.INPUTS_LISTED, E.INPUTS_READY)
    async with database.transaction() as db:
        return await JobStore(db).intend(job, an_attempt(job), NOW)


TO_STAGING = (E.PLACED, E.INPUTS_LISTED, E.INPUTS_READY)
WAY_TO = {
    S.PENDING: (),
    S.PROCESSING_INPUTS: TO_STAGING[:1],
    S.STAGING_INPUTS: TO_STAGING[:2],
    S.STAGING_JOB: TO_STAGING,
    S.BLOCKED: (E.BLOCKED,),
    S.PAUSED: (E.PAUSED,),
    S.FAILED: (E.FAILED,),
    S.CANCELLED: (E.CANCELLED,),
}
WAY_AFTER_SUBMITTING = {
    S.SUBMITTING_JOB: (),
    S.QUEUED: (E.ACCEPTED,),
    S.RUNNING: (E.ACCEPTED, E.STARTED),
    S.ARCHIVING: (E.ACCEPTED, E.STARTED, E.ENDED),
    S.FINISHED: (E.ACCEPTED, E.STARTED, E.ENDED, E.ARCHIVED),
}


async def in_state(database: Database, state: S, **changes: Any) -> Job:
    """A job that came to ``state`` by its shortest way."""
    if state in WAY_TO:
        return await recorded(database, await added(database, **changes), *WAY_TO[state])
    return await recorded(database, await submitting(database, **changes), *WAY_AFTER_SUBMITTING[state])
