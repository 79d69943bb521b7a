"""What users were granted on pods, templates, volumes and snapshots: one level each."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import ColumnElement, and_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.pod_catalog import EVERYONE, PodKind, PodLevel
from scheduler.store import schema
from scheduler.store.statements import changed, put_row

grants = schema.pod_grants


class PodGrantStore:
    """Grants on things of one kind."""

    def __init__(self, db: AsyncSession, kind: PodKind) -> None:
        self._db, self._kind = db, kind

    async def level_of(self, tenant: str, name: str, user: str) -> PodLevel | None:
        """The most that this user was granted, in person or as anyone; None: nothing."""
        mine = self._is(tenant, name) & grants.c.user.in_([user, *EVERYONE])
        most = (await self._db.execute(select(func.max(grants.c.level)).where(mine))).scalar_one()
        return None if most is None else PodLevel(most)

    async def of(self, tenant: str, name: str, *, to_change: bool = False) -> Mapping[str, PodLevel]:
        """Everyone's level, by user. to_change: nobody else changes one until this transaction ends."""
        query = select(grants.c.user, grants.c.level).where(self._is(tenant, name)).order_by(grants.c.user)
        query = query.with_for_update() if to_change else query
        return {user: PodLevel(level) for user, level in await self._db.execute(query)}

    async def names(self, tenant: str, user: str) -> frozenset[str]:
        """The names of all things on which this user was granted something."""
        query = select(grants.c.name).where(
            grants.c.tenant == tenant, grants.c.kind == self._kind, grants.c.user.in_([user, *EVERYONE])
        )
        return frozenset((await self._db.execute(query)).scalars())

    async def put(self, tenant: str, name: str, user: str, level: PodLevel) -> None:
        """Grant, in place of what the user was granted before."""
        row = {"tenant": tenant, "kind": self._kind, "name": name, "user": user, "level": int(level)}
        await put_row(self._db, grants, row)

    async def remove(self, tenant: str, name: str, user: str) -> bool:
        """Take back what the user was granted; False when it was nothing."""
        query = delete(grants).where(self._is(tenant, name), grants.c.user == user)
        return changed(await self._db.execute(query)) > 0

    async def remove_all(self, tenant: str, name: str) -> None:
        """The thing is gone: whatever gets the name next starts without grants."""
        await self._db.execute(delete(grants).where(self._is(tenant, name)))

    def _is(self, tenant: str, name: str) -> ColumnElement[bool]:
        return and_(grants.c.tenant == tenant, grants.c.kind == self._kind, grants.c.name == name)
