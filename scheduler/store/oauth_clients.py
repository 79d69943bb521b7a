"""Programs that users log in with; their keys lie encrypted, bound to tenant and client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists, NotFound
from scheduler.model.users import OAuthClient
from scheduler.store import schema
from scheduler.store.sealing import reseal, sealer_of
from scheduler.store.statements import changed, insert_new

clients = schema.oauth_clients


class OAuthClientStore:
    """The OAuth clients of a tenant, each its owner's."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, client: OAuthClient) -> None:
        """AlreadyExists when the tenant has a client of that id, whoever owns it."""
        row = asdict(client)
        row["client_key_sealed"] = sealer_of(self._db).encrypt(row.pop("client_key"), _context(row))
        if not await insert_new(self._db, clients, row):
            raise AlreadyExists("client", client.client_id)

    async def get(self, tenant: str, client_id: str) -> OAuthClient:
        """With its key; NotFound when there is none."""
        query = select(clients).where(clients.c.tenant == tenant, clients.c.client_id == client_id)
        row = (await self._db.execute(query)).mappings().one_or_none()
        if row is None:
            raise NotFound("client", client_id)
        return self._opened(row)

    async def list(self, tenant: str, owner: str, limit: int | None = None, skip: int = 0) -> Sequence[OAuthClient]:
        """What an owner has, by id."""
        query = select(clients).where(clients.c.tenant == tenant, clients.c.owner == owner)
        rows = await self._db.execute(query.order_by(clients.c.client_id).limit(limit).offset(skip))
        return [self._opened(row) for row in rows.mappings()]

    async def write(self, client: OAuthClient) -> None:
        """Change what may change: where it is called back, its name, when. NotFound when it is gone."""
        fresh = {name: getattr(client, name) for name in ("callback_url", "display_name", "updated_at")}
        same = clients.c.tenant == client.tenant, clients.c.client_id == client.client_id
        if changed(await self._db.execute(update(clients).where(*same).values(fresh))) == 0:
            raise NotFound("client", client.client_id)

    async def remove(self, tenant: str, client_id: str) -> None:
        """NotFound when there is none."""
        same = clients.c.tenant == tenant, clients.c.client_id == client_id
        if changed(await self._db.execute(delete(clients).where(*same))) == 0:
            raise NotFound("client", client_id)

    async def reseal(self) -> int:
        """Encrypt every key anew, with the present key of the box; how many clients there were."""
        return await reseal(self._db, clients, {"client_key_sealed": _context})

    def _opened(self, row: Mapping[Any, Any]) -> OAuthClient:
        fields = dict(row)
        key = sealer_of(self._db).decrypt(fields.pop("client_key_sealed"), _context(fields))
        return OAuthClient(**fields, client_key=key)


def _context(row: Mapping[str, Any]) -> str:
    return f"oauth-client/{row['tenant']}/{row['client_id']}"
