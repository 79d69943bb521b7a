"""What placement learns from: ended runs, looks at systems, and everyone's jobs that they showed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from types import MappingProxyType

from sqlalchemy import and_, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.jobs import FinishedRun
from scheduler.model.snapshots import Sighting, SystemSnapshot
from scheduler.store import schema
from scheduler.store.statements import changed, put_newer_rows, put_row

runs, snapshots, seen_jobs = schema.finished_runs, schema.snapshots, schema.seen_jobs

SNAPSHOT_KEPT = timedelta(days=7)
"""How long the last look of each hour stays."""

SIGHTINGS_KEPT = timedelta(days=60)
"""How long a job that queues showed is remembered after the last news of it."""


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

    async def recent_by_id(
        self, tenant: str, limit: int, at_hand: Mapping[int, FinishedRun] = MappingProxyType({})
    ) -> Mapping[int, FinishedRun]:
        """The same by their ids. at_hand: runs that were read before; they never change and are not read again."""
        newest = select(runs.c.id).where(runs.c.tenant == tenant)
        newest = newest.order_by(runs.c.ended_at.desc(), runs.c.id.desc()).limit(limit)
        ids = (await self._db.execute(newest)).scalars().all()
        missing = [each for each in ids if each not in at_hand]
        query = select(runs.c.id, runs.c.run).where(runs.c.id.in_(missing))
        known = {**at_hand, **{row.id: row.run for row in await self._db.execute(query)}} if missing else at_hand
        return {each: known[each] for each in ids if each in known}


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

    async def latest(self, tenant: str, system_id: str, login_user: str | None = None) -> SystemSnapshot | None:
        """The newest look at a system, by one login or by any; None when nobody has looked."""
        query = select(snapshots.c.snapshot).where(snapshots.c.tenant == tenant, snapshots.c.system_id == system_id)
        if login_user is not None:
            query = query.where(snapshots.c.login_user == login_user)
        return (await self._db.execute(query.order_by(snapshots.c.taken_at.desc()).limit(1))).scalar_one_or_none()

    async def latest_all(
        self, tenant: str, at_hand: Mapping[str, SystemSnapshot] = MappingProxyType({})
    ) -> Mapping[str, SystemSnapshot]:
        """The newest look at every system of a tenant that was looked at, by system id.

        at_hand: looks that were read before; they are not read again while they are the newest, for one may be long.
        """
        newest = select(snapshots.c.system_id, func.max(snapshots.c.taken_at).label("taken_at"))
        newest = newest.where(snapshots.c.tenant == tenant).group_by(snapshots.c.system_id)
        taken_at = {row.system_id: row.taken_at for row in await self._db.execute(newest)}
        same = {name: look for name, look in at_hand.items() if taken_at.get(name) == look.taken_at}
        wanted = [
            and_(snapshots.c.system_id == name, snapshots.c.taken_at == at)
            for name, at in taken_at.items()
            if name not in same
        ]
        if not wanted:
            return same
        query = select(snapshots.c.system_id, snapshots.c.snapshot).where(snapshots.c.tenant == tenant, or_(*wanted))
        return same | {row.system_id: row.snapshot for row in await self._db.execute(query)}


class SightingStore:
    """Everyone's jobs, one row for each; what is newer of a job replaces what was older."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def put(self, tenant: str, system_id: str, seen: Iterable[Sighting]) -> None:
        """Keep what looks, or an import, showed. Several processes may look at one system: the newest word stays."""
        rows = [{"tenant": tenant, "system_id": system_id, **asdict(one)} for one in seen]
        await put_newer_rows(self._db, rows, seen_jobs.c.seen_at)

    async def recent(self, tenant: str, system_id: str, limit: int) -> Sequence[Sighting]:
        """The jobs that were submitted last, oldest first."""
        here = and_(seen_jobs.c.tenant == tenant, seen_jobs.c.system_id == system_id)
        query = select(*(seen_jobs.c[each.name] for each in fields(Sighting))).where(here)
        query = query.order_by(seen_jobs.c.submitted_at.desc(), seen_jobs.c.remote_id.desc()).limit(limit)
        return [Sighting(**row) for row in (await self._db.execute(query)).mappings()][::-1]

    async def sweep(self, before: datetime) -> int:
        """Forget what nothing was heard of since ``before``; how many jobs."""
        return changed(await self._db.execute(delete(seen_jobs).where(seen_jobs.c.seen_at < before)))


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)
