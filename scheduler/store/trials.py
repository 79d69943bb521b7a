"""What is under way where our last jobs were broken at once: the breakers of a plan, from what is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from placement.failures import AT_ONCE_S, Trials, guarded, suspects
from placement.problem import PlaceKey, SystemView
from scheduler.model.jobs import FinishedRun
from scheduler.model.states import JobState
from scheduler.store import schema
from scheduler.store.jobs import IN_A_QUEUE

jobs = schema.jobs


async def with_breakers(
    db: AsyncSession, tenant: str, views: Sequence[SystemView], runs: Collection[FinishedRun], now: datetime
) -> tuple[SystemView, ...]:
    """The systems with their open breakers. Nothing more is read while no system is suspect."""
    suspected = suspects(runs)
    if not suspected:
        return tuple(views)
    return guarded(views, runs, await _trials(db, tenant, suspected, now - timedelta(seconds=AT_ONCE_S)), now)


async def _trials(
    db: AsyncSession, tenant: str, systems: Collection[str], proven_at: datetime
) -> Mapping[PlaceKey, Trials]:
    """Our jobs in each place of these systems; one that started until ``proven_at`` and runs has survived."""
    survived = and_(jobs.c.state == JobState.RUNNING, jobs.c.remote_started_at <= proven_at)
    under_way = func.sum(case((survived, 0), else_=1))
    survived_at = func.max(case((survived, jobs.c.remote_started_at)))
    query = select(jobs.c.system_id, jobs.c.queue, under_way, survived_at)
    query = query.where(jobs.c.tenant == tenant, jobs.c.state.in_(IN_A_QUEUE), jobs.c.system_id.in_(systems))
    rows = await db.execute(query.group_by(jobs.c.system_id, jobs.c.queue))
    return {PlaceKey(system_id, queue): Trials(int(count), at) for system_id, queue, count, at in rows}
