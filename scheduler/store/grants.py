"""What users were granted on things that they do not own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Table, and_, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.pages import Scope
from scheduler.model.users import Permission
from scheduler.store import schema
from scheduler.store.statements import insert_new

grants = schema.grants


class GrantStore:
    """Grants on things of one kind (``system``, ``app``)."""

    def __init__(self, db: AsyncSession, kind: str) -> None:
        self._db, self._kind = db, kind

    async def of(self, tenant: str, name: str, user: str) -> frozenset[Permission]:
        """What the user may do by grant."""
        query = select(grants.c.permission).where(self._is(tenant, name, user))
        return frozenset(Permission(word) for word in (await self._db.execute(query)).scalars())

    async def holders(self, tenant: str, permission: Permission) -> Mapping[str, frozenset[str]]:
        """Who was granted this permission, by the name of the thing."""
        mine = grants.c.tenant == tenant, grants.c.kind == self._kind, grants.c.permission == permission
        found: dict[str, set[str]] = defaultdict(set)
        for name, user in await self._db.execute(select(grants.c.name, grants.c.user).where(*mine)):
            found[name].add(user)
        return {name: frozenset(users) for name, users in found.items()}

    async def add(self, tenant: str, name: str, user: str, permissions: Collection[Permission]) -> None:
        """Add permissions; those already there stay."""
        key = {"tenant": tenant, "kind": self._kind, "name": name, "user": user}
        for permission in permissions:
            await insert_new(self._db, grants, {**key, "permission": permission})

    async def remove(self, tenant: str, name: str, user: str, permissions: Collection[Permission]) -> None:
        """Take permissions away; those not there are no error."""
        mine = self._is(tenant, name, user) & grants.c.permission.in_(permissions)
        await self._db.execute(delete(grants).where(mine))

    def _is(self, tenant: str, name: str, user: str) -> ColumnElement[bool]:
        return and_(
            grants.c.tenant == tenant, grants.c.kind == self._kind, grants.c.name == name, grants.c.user == user
        )


def in_scope(table: Table, name: ColumnElement[str], tenant: str, kind: str, scope: Scope) -> list[ColumnElement[bool]]:
    """The conditions on a table of systems or apps (their ids in column ``name``) that a scope stands for."""
    clauses: list[ColumnElement[bool]] = []
    if not scope.deleted:
        clauses.append(~table.c.deleted)
    if scope.owner is not None:
        clauses.append(table.c.owner == scope.owner)
    if scope.public:
        clauses.append(table.c.is_public)
    if scope.visible_to is not None:
        user = scope.visible_to
        granted = select(grants.c.name).where(grants.c.tenant == tenant, grants.c.kind == kind, grants.c.user == user)
        clauses.append(or_(table.c.owner == user, table.c.is_public, name.in_(granted)))
    return clauses
