"""Sites and tenants."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists, NotFound
from scheduler.model.tenants import Site, Tenant
from scheduler.store import schema
from scheduler.store.statements import insert_new


class TenantStore:
    """Who shares this Berth."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add_site(self, site: Site) -> None:
        """AlreadyExists when the id is taken."""
        if not await insert_new(self._db, schema.sites, asdict(site)):
            raise AlreadyExists("site", site.id)

    async def add_tenant(self, tenant: Tenant) -> None:
        """AlreadyExists when the id, or one of its hosts, is taken."""
        row = asdict(tenant)
        hosts = row.pop("hosts")
        if not await insert_new(self._db, schema.tenants, row):
            raise AlreadyExists("tenant", tenant.id)
        for host in hosts:
            if not await insert_new(self._db, schema.tenant_hosts, {"host": host.lower(), "tenant": tenant.id}):
                raise AlreadyExists("host", host)

    async def sites(self) -> list[Site]:
        rows = await self._db.execute(select(schema.sites).order_by(schema.sites.c.id))
        return [Site(**row) for row in rows.mappings()]

    async def tenants(self) -> list[Tenant]:
        rows = (await self._db.execute(select(schema.tenants).order_by(schema.tenants.c.id))).mappings().all()
        return [await self._tenant(dict(row)) for row in rows]

    async def get(self, tenant_id: str) -> Tenant:
        """NotFound when there is none."""
        found = await self._db.execute(select(schema.tenants).where(schema.tenants.c.id == tenant_id))
        row = found.mappings().one_or_none()
        if row is None:
            raise NotFound("tenant", tenant_id)
        return await self._tenant(dict(row))

    async def by_host(self, host: str) -> Tenant | None:
        """The tenant that answers under this Host name; the only tenant answers under any."""
        ids = (await self._db.execute(select(schema.tenants.c.id).limit(2))).scalars().all()
        if len(ids) == 1:
            return await self.get(ids[0])
        named = select(schema.tenant_hosts.c.tenant).where(schema.tenant_hosts.c.host == host.lower())
        tenant_id = (await self._db.execute(named)).scalar_one_or_none()
        return None if tenant_id is None else await self.get(tenant_id)

    async def _tenant(self, row: dict[str, Any]) -> Tenant:
        hosts = select(schema.tenant_hosts.c.host).where(schema.tenant_hosts.c.tenant == row["id"])
        names = (await self._db.execute(hosts.order_by(schema.tenant_hosts.c.host))).scalars().all()
        return Tenant(**row, hosts=tuple(names))
