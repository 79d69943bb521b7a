"""Systems, who may use them, and the credentials by which users are known to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists, NotFound, Stale
from scheduler.model.pages import EVERYTHING, FIRST_PAGE, WHOLE_LIST, Page, Scope
from scheduler.model.systems import Credential, System
from scheduler.model.users import Permission
from scheduler.store import schema
from scheduler.store.grants import GrantStore, in_scope
from scheduler.store.paging import Fields, narrowed, windowed
from scheduler.store.sealing import reseal, sealer_of
from scheduler.store.statements import changed, insert_new, put_row

systems, credentials = schema.systems, schema.credentials

SYSTEM_FIELDS: Fields = {
    "id": systems.c.id,
    "owner": systems.c.owner,
    "host": systems.c.host,
    "kind": systems.c.kind,
    "can_exec": systems.c.can_exec,
    "enabled": systems.c.enabled,
    "deleted": systems.c.deleted,
    "is_public": systems.c.is_public,
    "created_at": systems.c.created_at,
    "updated_at": systems.c.updated_at,
}

SECRETS = ("private_key", "password")
"""The fields of a credential that are stored encrypted."""


class SystemStore:
    """The systems of a tenant."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db
        self._grants = GrantStore(db, "system")

    async def add(self, system: System) -> None:
        """AlreadyExists when the id is taken in this tenant, also by a deleted system."""
        if not await insert_new(self._db, systems, _row(system)):
            raise AlreadyExists("system", system.id)

    async def get(self, tenant: str, system_id: str, *, deleted: bool = False) -> System:
        """NotFound when there is none; deleted ones are found only when asked for."""
        query = select(systems.c.definition).where(_is(tenant, system_id))
        found = await self._db.execute(query if deleted else query.where(~systems.c.deleted))
        system: System | None = found.scalar_one_or_none()
        if system is None:
            raise NotFound("system", system_id)
        return system

    async def replace(self, system: System) -> System:
        """Write what ``get`` gave and the caller changed; the new version. Stale when someone else wrote first."""
        newer = replace(system, version=system.version + 1)
        guarded = _is(system.tenant, system.id) & (systems.c.version == system.version)
        if changed(await self._db.execute(update(systems).where(guarded).values(**_row(newer)))) != 1:
            raise Stale(f"system '{system.id}' was changed meanwhile")
        return newer

    async def list(self, tenant: str, page: Page = FIRST_PAGE, scope: Scope = EVERYTHING) -> Sequence[System]:
        """Systems by id, or in the page's order."""
        query = _listed(select(systems.c.definition), tenant, page, scope)
        found = await self._db.execute(windowed(query, SYSTEM_FIELDS, page, systems.c.id))
        return list(found.scalars())

    async def count(self, tenant: str, page: Page = FIRST_PAGE, scope: Scope = EVERYTHING) -> int:
        """How many ``list`` would answer without a window."""
        query = _listed(select(func.count()).select_from(systems), tenant, page, scope)
        return int((await self._db.execute(query)).scalar_one())

    async def visible_to(self, tenant: str, user: str) -> Sequence[System]:
        """Every system that the user owns, was granted something on, or that is public."""
        return await self.list(tenant, WHOLE_LIST, Scope(visible_to=user))

    async def grants(self, tenant: str, system_id: str, user: str) -> frozenset[Permission]:
        """What the user was granted; the owner's rights are not written down."""
        return await self._grants.of(tenant, system_id, user)

    async def grant(self, tenant: str, system_id: str, user: str, permissions: Collection[Permission]) -> None:
        """Add permissions; those already there stay."""
        await self._grants.add(tenant, system_id, user, permissions)

    async def revoke(self, tenant: str, system_id: str, user: str, permissions: Collection[Permission]) -> None:
        """Take permissions away; those not there are no error."""
        await self._grants.remove(tenant, system_id, user, permissions)


class CredentialStore:
    """How users are known to systems; secrets lie encrypted, bound to tenant, system and user."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def put(self, credential: Credential) -> None:
        """Store, replacing the user's earlier credential for this system."""
        row = asdict(credential)
        for secret in SECRETS:
            clear = row.pop(secret)
            context = _context(credential.tenant, credential.system_id, credential.user, secret)
            row[f"{secret}_sealed"] = clear and sealer_of(self._db).encrypt(clear, context)
        await put_row(self._db, credentials, row)

    async def get(self, tenant: str, system_id: str, user: str) -> Credential:
        """With its secrets; NotFound when there is none."""
        found = await self._db.execute(select(credentials).where(_belongs(tenant, system_id, user)))
        row = found.mappings().one_or_none()
        if row is None:
            raise NotFound("credential", f"{system_id}/{user}")
        fields = dict(row)
        for secret in SECRETS:
            sealed = fields.pop(f"{secret}_sealed")
            fields[secret] = sealed and sealer_of(self._db).decrypt(sealed, _context(tenant, system_id, user, secret))
        return Credential(**fields)

    async def holders(self, tenant: str, user: str) -> frozenset[str]:
        """Ids of the systems for which the user has a credential."""
        query = select(credentials.c.system_id).where(credentials.c.tenant == tenant, credentials.c.user == user)
        return frozenset((await self._db.execute(query)).scalars())

    async def remove(self, tenant: str, system_id: str, user: str) -> None:
        """NotFound when there is none."""
        if changed(await self._db.execute(delete(credentials).where(_belongs(tenant, system_id, user)))) == 0:
            raise NotFound("credential", f"{system_id}/{user}")

    async def reseal(self) -> int:
        """Encrypt every secret anew, with the present key of the box; how many credentials there were."""

        def context_of(secret: str) -> Callable[[Mapping[str, Any]], str]:
            return lambda row: _context(row["tenant"], row["system_id"], row["user"], secret)

        return await reseal(self._db, credentials, {f"{secret}_sealed": context_of(secret) for secret in SECRETS})


def _row(system: System) -> dict[str, Any]:
    """The columns of a system: what is searched, and all of it."""
    columns = {name: getattr(system, name) for name in SYSTEM_FIELDS}
    return {"tenant": system.tenant, "version": system.version, **columns, "definition": system}


def _is(tenant: str, system_id: str) -> ColumnElement[bool]:
    return and_(systems.c.tenant == tenant, systems.c.id == system_id)


def _listed(query: Select[Any], tenant: str, page: Page, scope: Scope) -> Select[Any]:
    query = query.where(systems.c.tenant == tenant, *in_scope(systems, systems.c.id, tenant, "system", scope))
    return narrowed(query, SYSTEM_FIELDS, page.filters)


def _belongs(tenant: str, system_id: str, user: str) -> ColumnElement[bool]:
    return and_(credentials.c.tenant == tenant, credentials.c.system_id == system_id, credentials.c.user == user)


def _context(tenant: str, system_id: str, user: str, secret: str) -> str:
    """What a sealed secret is bound to, so that it opens in no other row."""
    return f"credential/{tenant}/{system_id}/{user}/{secret}"
