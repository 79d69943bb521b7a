"""Apps and their versions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.apps import App
from scheduler.model.errors import AlreadyExists, NotFound, Stale
from scheduler.model.pages import EVERYTHING, FIRST_PAGE, Page, Scope
from scheduler.model.users import Permission
from scheduler.store import schema
from scheduler.store.grants import GrantStore, in_scope
from scheduler.store.paging import Fields, narrowed, windowed
from scheduler.store.statements import changed, insert_new

apps = schema.apps

APP_FIELDS: Fields = {
    "id": apps.c.app_id,
    "version": apps.c.version,
    "owner": apps.c.owner,
    "enabled": apps.c.enabled,
    "version_enabled": apps.c.version_enabled,
    "deleted": apps.c.deleted,
    "is_public": apps.c.is_public,
    "created_at": apps.c.created_at,
    "updated_at": apps.c.updated_at,
}


class AppStore:
    """The apps of a tenant. One row is one version; grants are per id."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db
        self._grants = GrantStore(db, "app")

    async def add(self, app: App) -> None:
        """AlreadyExists when this version of this id is taken, also by a deleted one."""
        if not await insert_new(self._db, apps, _row(app)):
            raise AlreadyExists("app", f"{app.id} {app.version}")

    async def get(self, tenant: str, app_id: str, version: str, *, deleted: bool = False) -> App:
        """One version; NotFound when there is none."""
        query = select(apps.c.definition).where(_is(tenant, app_id), apps.c.version == version)
        return await self._one(query if deleted else query.where(~apps.c.deleted), f"{app_id} {version}")

    async def latest(self, tenant: str, app_id: str) -> App:
        """The version created last of those that are enabled; NotFound when there is none."""
        usable = ~apps.c.deleted & apps.c.enabled & apps.c.version_enabled
        query = select(apps.c.definition).where(_is(tenant, app_id), usable).order_by(apps.c.id.desc()).limit(1)
        return await self._one(query, app_id)

    async def versions(self, tenant: str, app_id: str, *, deleted: bool = False) -> Sequence[App]:
        """Every version of one id, newest first."""
        query = select(apps.c.definition).where(_is(tenant, app_id)).order_by(apps.c.id.desc())
        return list((await self._db.execute(query if deleted else query.where(~apps.c.deleted))).scalars())

    async def replace(self, app: App) -> App:
        """Write what ``get`` gave and the caller changed; the new row version. Stale when someone else wrote first."""
        newer = replace(app, row_version=app.row_version + 1)
        guarded = and_(_is(app.tenant, app.id), apps.c.version == app.version, apps.c.row_version == app.row_version)
        if changed(await self._db.execute(update(apps).where(guarded).values(**_row(newer)))) != 1:
            raise Stale(f"app '{app.id} {app.version}' was changed meanwhile")
        return newer

    async def list(self, tenant: str, page: Page = FIRST_PAGE, scope: Scope = EVERYTHING) -> Sequence[App]:
        """Versions in the order made, or the page's."""
        query = _listed(select(apps.c.definition), tenant, page, scope)
        found = await self._db.execute(windowed(query, APP_FIELDS, page, apps.c.id))
        return list(found.scalars())

    async def count(self, tenant: str, page: Page = FIRST_PAGE, scope: Scope = EVERYTHING) -> int:
        """How many ``list`` would answer without a window."""
        query = _listed(select(func.count()).select_from(apps), tenant, page, scope)
        return int((await self._db.execute(query)).scalar_one())

    async def grants(self, tenant: str, app_id: str, user: str) -> frozenset[Permission]:
        """What the user was granted; the owner's rights are not written down."""
        return await self._grants.of(tenant, app_id, user)

    async def grant(self, tenant: str, app_id: str, user: str, permissions: Collection[Permission]) -> None:
        """Add permissions; those already there stay."""
        await self._grants.add(tenant, app_id, user, permissions)

    async def revoke(self, tenant: str, app_id: str, user: str, permissions: Collection[Permission]) -> None:
        """Take permissions away; those not there are no error."""
        await self._grants.remove(tenant, app_id, user, permissions)

    async def _one(self, query: Select[Any], name: str) -> App:
        app: App | None = (await self._db.execute(query)).scalar_one_or_none()
        if app is None:
            raise NotFound("app", name)
        return app


def _row(app: App) -> dict[str, Any]:
    """The columns of an app: what is searched, and all of it."""
    columns = {column.name: getattr(app, name) for name, column in APP_FIELDS.items()}
    return {"tenant": app.tenant, "row_version": app.row_version, **columns, "definition": app}


def _is(tenant: str, app_id: str) -> ColumnElement[bool]:
    return and_(apps.c.tenant == tenant, apps.c.app_id == app_id)


def _listed(query: Select[Any], tenant: str, page: Page, scope: Scope) -> Select[Any]:
    query = query.where(apps.c.tenant == tenant, *in_scope(apps, apps.c.app_id, tenant, "app", scope))
    return narrowed(query, APP_FIELDS, page.filters)
