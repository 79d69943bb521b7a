"""What placement learns from: ended runs, and looks at systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.jobs import FinishedRun
from scheduler.model.snapshots import SystemSnapshot
from scheduler.store import schema
from scheduler.store.statements import put_row

runs, snapshots = schema.finished_runs, schema.snapshots

SNAPSHOT_KEPT = timedelta(days=7)
"""How long the last look of each hour stays."""


class RunStore:
    """Ended attempts."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, finished: Sequence[FinishedRun]) -> None:
        rows = [{"tenant": one.tenant, "ended_at": one.ended_at, "run": one} for one in finished]
        if rows:
            await self._db.execute(insert(runs), rows)

    async def recent(self, tenant: str, limit: int) -> Sequence[FinishedRun]:
        """The runs that ended last, newest first."""
        query = select(runs.c.run).where(runs.c.tenant == tenant)
        query = query.order_by(runs.c.ended_at.desc(), runs.c.id.desc()).limit(limit)
        return (await self._db.execute(query)).scalars().all()


class SnapshotStore:
    """Looks at systems. Of each hour only the newest is kept, for a week: the table stays thin by itself."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def put(self, tenant: str, system_id: str, login_user: str, snapshot: SystemSnapshot) -> None:
        """Keep a look, replacing an earlier one of the same hour, and drop what is too old."""
        key = {"tenant": tenant, "system_id": system_id, "login_user": login_user}
        row = {**key, "hour": _hour(snapshot.taken_at), "taken_at": snapshot.taken_at, "snapshot": snapshot}
        await put_row(self._db, snapshots, row)
        same = [snapshots.c[name] == value for name, value in key.items()]
        old = snapshots.c.hour < snapshot.taken_at - SNAPSHOT_KEPT
        await self._db.execute(delete(snapshots).where(*same, old))

    async def latest(self, tenant: str, system_id: str) -> SystemSnapshot | None:
        """The newest look at a system, by any login; None when nobody has looked."""
        query = select(snapshots.c.snapshot).where(snapshots.c.tenant == tenant, snapshots.c.system_id == system_id)
        return (await self._db.execute(query.order_by(snapshots.c.taken_at.desc()).limit(1))).scalar_one_or_none()

    async def latest_all(self, tenant: str) -> Mapping[str, SystemSnapshot]:
        """The newest look at every system of a tenant that was looked at, by system id."""
        newest = select(snapshots.c.system_id, func.max(snapshots.c.taken_at).label("taken_at"))
        found = newest.where(snapshots.c.tenant == tenant).group_by(snapshots.c.system_id).subquery()
        same = and_(snapshots.c.system_id == found.c.system_id, snapshots.c.taken_at == found.c.taken_at)
        query = select(snapshots.c.system_id, snapshots.c.snapshot).join(found, same)
        rows = await self._db.execute(query.where(snapshots.c.tenant == tenant))
        return {row.system_id: row.snapshot for row in rows}


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)
