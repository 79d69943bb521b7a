"""Scheduler profiles, by tenant and name."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists, NotFound
from scheduler.model.scheduler_profiles import SchedulerProfile
from scheduler.store import schema
from scheduler.store.statements import changed, insert_new

profiles = schema.scheduler_profiles


class SchedulerProfileStore:
    """The scheduler profiles of a tenant, each its owner's, for all to use."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, profile: SchedulerProfile) -> None:
        """AlreadyExists when the tenant has one of that name, whoever owns it."""
        row = {name: getattr(profile, name) for name in ("tenant", "name", "owner")} | {"definition": profile}
        if not await insert_new(self._db, profiles, row):
            raise AlreadyExists("scheduler profile", profile.name)

    async def get(self, tenant: str, name: str) -> SchedulerProfile:
        """NotFound when there is none."""
        found = await self._db.execute(select(profiles.c.definition).where(_is(tenant, name)))
        profile: SchedulerProfile | None = found.scalar_one_or_none()
        if profile is None:
            raise NotFound("scheduler profile", name)
        return profile

    async def list(self, tenant: str) -> Sequence[SchedulerProfile]:
        """All of a tenant, by name."""
        query = select(profiles.c.definition).where(profiles.c.tenant == tenant).order_by(profiles.c.name)
        return list((await self._db.execute(query)).scalars())

    async def count(self, tenant: str, owner: str) -> int:
        """How many an owner has."""
        query = select(func.count()).where(profiles.c.tenant == tenant, profiles.c.owner == owner)
        return int((await self._db.execute(query)).scalar_one())

    async def remove(self, tenant: str, name: str) -> None:
        """NotFound when there is none."""
        if changed(await self._db.execute(delete(profiles).where(_is(tenant, name)))) == 0:
            raise NotFound("scheduler profile", name)


def _is(tenant: str, name: str) -> ColumnElement[bool]:
    return and_(profiles.c.tenant == tenant, profiles.c.name == name)
