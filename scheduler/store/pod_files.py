"""Volumes and snapshots of pods; their files lie elsewhere. Every write is guarded by a version."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, Table, and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists, NotFound, Stale
from scheduler.model.pod_catalog import FilesStatus, PodFilesOf, PodSnapshot, PodVolume
from scheduler.store import schema
from scheduler.store.statements import changed, insert_new

Kept = TypeVar("Kept", PodVolume, PodSnapshot)


class _FilesStore(Generic[Kept]):
    """What volumes and snapshots share."""

    table: Table
    kind: str
    record: type[Kept]

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, one: Kept) -> None:
        """AlreadyExists when the tenant has one of this name."""
        if not await insert_new(self._db, self.table, asdict(one)):
            raise AlreadyExists(self.kind, one.id)

    async def get(self, tenant: str, name: str) -> Kept:
        """NotFound when there is none."""
        found = await self._db.execute(self._select().where(self._is(tenant, name)))
        row = found.mappings().one_or_none()
        if row is None:
            raise NotFound(self.kind, name)
        return self.record(**row)

    async def list(self, tenant: str, names: Collection[str] | None = None) -> Sequence[Kept]:
        """Those of a tenant by id; only those of these names, unless it is None."""
        query = self._select().where(self.table.c.tenant == tenant)
        return await self._all(query if names is None else query.where(self.table.c.id.in_(names)))

    async def unsettled(self) -> Sequence[Kept]:
        """Those of all tenants whose files are to be made or deleted."""
        open_ones = self.table.c.status.in_([FilesStatus.REQUESTED, FilesStatus.DELETING])
        return await self._all(self._select().where(open_ones))

    async def on_their_way(self) -> Sequence[Kept]:
        """Those of all tenants whose files are to be brought to their system."""
        return await self._all(self._select().where(self._moves))

    async def lease(self, one: Kept, process_id: str, at: datetime, until: datetime) -> bool:
        """Hold the bringing of its files until then; False where another does it, or nobody has to any more."""
        free = or_(self.table.c.lease_until.is_(None), self.table.c.lease_until <= at)
        mine = and_(self.table.c.uuid == one.uuid, self._moves, or_(free, self.table.c.lease_owner == process_id))
        held = {"lease_owner": process_id, "lease_until": until}
        return changed(await self._db.execute(update(self.table).where(mine).values(held))) == 1

    async def is_leased(self, one: Kept, at: datetime) -> bool:
        """Whether its files are being brought."""
        held = and_(self.table.c.uuid == one.uuid, self.table.c.lease_until > at)
        return (await self._db.execute(select(self.table.c.uuid).where(held))).first() is not None

    async def release(self, one: Kept, process_id: str) -> None:
        """Give a lease back."""
        mine = and_(self.table.c.uuid == one.uuid, self.table.c.lease_owner == process_id)
        await self._db.execute(update(self.table).where(mine).values(lease_owner=None, lease_until=None))

    async def change(self, one: Kept, at: datetime, **changes: Any) -> Kept:
        """``one`` with these fields changed. Stale when someone else wrote first."""
        newer: Kept = replace(one, **changes, updated_at=at, version=one.version + 1)
        guarded = self._is(one.tenant, one.id) & (self.table.c.version == one.version)
        values = {**changes, "updated_at": at, "version": newer.version}
        if changed(await self._db.execute(update(self.table).where(guarded).values(**values))) != 1:
            raise Stale(f"{self.kind} '{one.id}' was changed meanwhile")
        return newer

    async def remove(self, one: Kept) -> None:
        """Forget it: its files are gone. Stale when someone else wrote first."""
        guarded = self._is(one.tenant, one.id) & (self.table.c.version == one.version)
        if changed(await self._db.execute(delete(self.table).where(guarded))) != 1:
            raise Stale(f"{self.kind} '{one.id}' was changed meanwhile")

    async def _all(self, query: Any) -> Sequence[Kept]:
        found = await self._db.execute(query.order_by(self.table.c.tenant, self.table.c.id))
        return [self.record(**row) for row in found.mappings()]

    def _select(self) -> Select[Any]:
        return select(*(self.table.c[field.name] for field in fields(self.record)))

    @property
    def _moves(self) -> ColumnElement[bool]:
        present = self.table.c.status == FilesStatus.AVAILABLE
        return and_(present, self.table.c.system_id != "", self.table.c.moved_at.is_(None))

    def _is(self, tenant: str, name: str) -> ColumnElement[bool]:
        return and_(self.table.c.tenant == tenant, self.table.c.id == name)


class PodVolumeStore(_FilesStore[PodVolume]):
    """The volumes of all tenants; every query of one tenant's takes the tenant."""

    table, kind, record = schema.pod_volumes, "volume", PodVolume

    async def available(self) -> Sequence[PodVolume]:
        """Those of all tenants whose files are there."""
        return await self._all(self._select().where(self.table.c.status == FilesStatus.AVAILABLE))


class PodSnapshotStore(_FilesStore[PodSnapshot]):
    """The snapshots of all tenants; as above."""

    table, kind, record = schema.pod_snapshots, "snapshot", PodSnapshot

    async def due(self, at: datetime) -> Sequence[PodSnapshot]:
        """Those whose files are to be made or deleted, or of which another copy is due."""
        open_ones = self.table.c.status.in_([FilesStatus.REQUESTED, FilesStatus.DELETING])
        again = and_(self.table.c.next_at <= at, self.table.c.status == FilesStatus.AVAILABLE)
        return await self._all(self._select().where(or_(open_ones, again)))

    async def of_volume(self, tenant: str, volume_id: str) -> Sequence[PodSnapshot]:
        """Every snapshot of a volume."""
        mine = self.table.c.tenant == tenant, self.table.c.source_volume_id == volume_id
        return await self._all(self._select().where(*mine))


def store_of(db: AsyncSession, one: PodFilesOf) -> _FilesStore[Any]:
    """The store that keeps a volume or a snapshot."""
    return PodVolumeStore(db) if isinstance(one, PodVolume) else PodSnapshotStore(db)
