"""How users are known to registries of images; secrets lie encrypted, bound to tenant, user and registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import NotFound
from scheduler.model.pages import Page
from scheduler.model.registries import RegistryLogin
from scheduler.store import schema
from scheduler.store.paging import Fields, narrowed, windowed
from scheduler.store.sealing import reseal, sealer_of
from scheduler.store.statements import changed, put_row

logins = schema.registry_logins

LOGIN_FIELDS: Fields = {name: logins.c[name] for name in ("registry", "username", "verified_at", "created_at")}


class RegistryLoginStore:
    """The logins of users, each user's apart."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def put(self, login: RegistryLogin) -> None:
        """Store, replacing the user's earlier login for this registry."""
        row = asdict(login)
        row["secret_sealed"] = sealer_of(self._db).encrypt(row.pop("secret"), _context(row))
        await put_row(self._db, logins, row)

    async def get(self, tenant: str, user: str, registry: str) -> RegistryLogin:
        """With its secret; NotFound when there is none."""
        found = await self._db.execute(select(logins).where(_belongs(tenant, user), logins.c.registry == registry))
        row = found.mappings().one_or_none()
        if row is None:
            raise NotFound("login", registry)
        return self._opened(row)

    async def of(self, tenant: str, user: str) -> Sequence[RegistryLogin]:
        """Every login of a user, with its secret, by registry."""
        query = select(logins).where(_belongs(tenant, user)).order_by(logins.c.registry)
        return [self._opened(row) for row in (await self._db.execute(query)).mappings()]

    async def list(self, tenant: str, user: str, page: Page) -> Sequence[RegistryLogin]:
        """Logins of a user, with their secrets, by registry or in the page's order."""
        query = narrowed(select(logins).where(_belongs(tenant, user)), LOGIN_FIELDS, page.filters)
        rows = await self._db.execute(windowed(query, LOGIN_FIELDS, page, logins.c.registry))
        return [self._opened(row) for row in rows.mappings()]

    async def count(self, tenant: str, user: str, page: Page) -> int:
        """How many ``list`` would answer without a window."""
        query = select(func.count()).select_from(logins).where(_belongs(tenant, user))
        return int((await self._db.execute(narrowed(query, LOGIN_FIELDS, page.filters))).scalar_one())

    async def remove(self, tenant: str, user: str, registry: str) -> None:
        """NotFound when there is none."""
        query = delete(logins).where(_belongs(tenant, user), logins.c.registry == registry)
        if changed(await self._db.execute(query)) == 0:
            raise NotFound("login", registry)

    async def remove_all(self, tenant: str, user: str) -> None:
        """The user is gone: whoever gets the name next starts without logins."""
        await self._db.execute(delete(logins).where(_belongs(tenant, user)))

    async def reseal(self) -> int:
        """Encrypt every secret anew, with the present key of the box; how many logins there were."""
        return await reseal(self._db, logins, {"secret_sealed": _context})

    def _opened(self, row: Mapping[Any, Any]) -> RegistryLogin:
        fields = dict(row)
        secret = sealer_of(self._db).decrypt(fields.pop("secret_sealed"), _context(fields))
        return RegistryLogin(**fields, secret=secret)


def _belongs(tenant: str, user: str) -> ColumnElement[bool]:
    return and_(logins.c.tenant == tenant, logins.c.user == user)


def _context(row: Mapping[str, Any]) -> str:
    """What a sealed secret is bound to, so that it opens in no other row."""
    return f"registry-login/{row['tenant']}/{row['user']}/{row['registry']}"
