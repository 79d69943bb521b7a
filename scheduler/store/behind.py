"""How much waits behind each job: from the jobs that wait for others to end."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Text, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession

from placement.weights import Waiting, behind
from scheduler.model.jobs import JobSpec
from scheduler.model.states import JobState
from scheduler.store import schema
from scheduler.store.codec import load

MOST_READ = 2000
"""Jobs that wait for others; the oldest of them."""

jobs = schema.jobs
_spec_text = type_coerce(jobs.c.spec, Text)


async def waiting_behind(db: AsyncSession, tenant: str) -> Mapping[str, float]:
    """The weights of all that waits behind a job, by its uuid; jobs that nothing waits for are left out."""
    query = select(jobs.c.uuid, _spec_text).where(jobs.c.tenant == tenant, jobs.c.state == JobState.PENDING)
    query = query.where(_spec_text.not_like('%"after":[]%')).order_by(jobs.c.id).limit(MOST_READ)
    specs = {uuid: load(JobSpec, text) for uuid, text in await db.execute(query)}
    return behind({uuid: Waiting(spec.weight, [one.uuid for one in spec.after]) for uuid, spec in specs.items()})
