"""Helper jobs: their intents, and who works on them. Of each login of a system at most one is live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import StaleJob
from scheduler.model.helper_jobs import LIVE_HELPERS, HelperJob, HelperPurpose
from scheduler.store import schema
from scheduler.store.statements import changed, insert_new

helpers = schema.helper_jobs

_COLUMNS = [helpers.c[field.name] for field in fields(HelperJob)]
_FREE: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}


class HelperJobStore:
    """Every write is guarded by the version that was seen, and gives the lease back."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def intend(self, job: HelperJob, process_id: str, lease_s: float) -> bool:
        """Write an intent down, leased; False when a helper job of this login is live already."""
        row = {field.name: getattr(job, field.name) for field in fields(HelperJob)}
        lease = {"lease_owner": process_id, "lease_until": job.intended_at + timedelta(seconds=lease_s)}
        return await insert_new(self._db, helpers, {**row, **lease})

    async def is_any_due(self, at: datetime) -> bool:
        """Whether ``claim`` would find something, which costs a reader next to nothing."""
        return (await self._db.execute(_due(at).limit(1))).first() is not None

    async def claim(self, process_id: str, lease_s: float, limit: int, at: datetime) -> Sequence[HelperJob]:
        """Lease live ones that are due and free, those waiting longest first."""
        due = _due(at).order_by(helpers.c.next_look_at, helpers.c.marker).limit(limit)
        due = due.with_for_update(skip_locked=True)
        picked = due.cte("due")
        lease = {"lease_owner": process_id, "lease_until": at + timedelta(seconds=lease_s)}
        lease_one = update(helpers).where(helpers.c.marker.in_(select(picked.c.marker)))
        taken = lease_one.values(**lease, version=helpers.c.version + 1).returning(*_COLUMNS)
        found = [HelperJob(**row) for row in (await self._db.execute(taken)).mappings()]
        return sorted(found, key=lambda job: job.marker)

    async def write(self, job: HelperJob, **changes: Any) -> HelperJob:
        """The job with these fields changed; StaleJob when someone else wrote first."""
        changed_job = replace(job, **changes, version=job.version + 1)
        values = {**changes, "version": changed_job.version, **_FREE}
        as_seen = and_(helpers.c.marker == job.marker, helpers.c.version == job.version)
        if changed(await self._db.execute(update(helpers).where(as_seen).values(values))) != 1:
            raise StaleJob(f"helper job {job.marker} was changed since it was looked at")
        return changed_job

    async def newest(self, tenant: str, purpose: HelperPurpose) -> Mapping[tuple[str, str], HelperJob]:
        """The newest of a tenant by system and subject."""
        mine = helpers.c.tenant == tenant, helpers.c.purpose == purpose
        latest = select(helpers.c.system_id, helpers.c.subject, func.max(helpers.c.intended_at).label("at"))
        last = latest.where(*mine).group_by(helpers.c.system_id, helpers.c.subject).subquery()
        same = (helpers.c[name] == last.c[name] for name in ("system_id", "subject"))
        query = select(*_COLUMNS).join(last, and_(*same, helpers.c.intended_at == last.c.at)).where(*mine)
        rows = (HelperJob(**row) for row in (await self._db.execute(query)).mappings())
        return {(job.system_id, job.subject): job for job in rows}

    async def forget_failures(self, tenant: str, system_id: str) -> None:
        """Forget how those of a system ended, so that nothing is waited for before the next."""
        here = and_(helpers.c.tenant == tenant, helpers.c.system_id == system_id)
        await self._db.execute(delete(helpers).where(here, helpers.c.ended_at.is_not(None)))

    async def sweep(self, before: datetime) -> int:
        """Forget those that ended before; how many."""
        return changed(await self._db.execute(delete(helpers).where(helpers.c.ended_at < before)))


def _due(at: datetime) -> Select[tuple[str]]:
    free = or_(helpers.c.lease_until.is_(None), helpers.c.lease_until <= at)
    live = helpers.c.state.in_(sorted(LIVE_HELPERS))
    return select(helpers.c.marker).where(live, helpers.c.next_look_at <= at, free)
