"""Files that users pushed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import ColumnElement, and_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import NotFound
from scheduler.model.images import PushedImage
from scheduler.model.pages import Page
from scheduler.store import schema
from scheduler.store.paging import Fields, narrowed, windowed
from scheduler.store.statements import changed, put_row

pushed = schema.pushed_images

PUSHED_FIELDS: Fields = {name: pushed.c[name] for name in ("digest", "kind", "size_bytes", "name", "created_at")}


class PushedStore:
    """Whose they are; the bytes lie in a folder by their digest."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def put(self, image: PushedImage) -> None:
        """Keep it, under a new name where the user pushed the same bytes before."""
        await put_row(self._db, pushed, asdict(image))

    async def find(self, tenant: str, user: str, digest: str) -> PushedImage | None:
        """None where this user pushed no such file."""
        query = select(pushed).where(_belongs(tenant, user), pushed.c.digest == digest)
        row = (await self._db.execute(query)).mappings().one_or_none()
        return None if row is None else PushedImage(**row)

    async def of(self, tenant: str, user: str) -> Sequence[PushedImage]:
        """A user's files, oldest first."""
        query = select(pushed).where(_belongs(tenant, user)).order_by(pushed.c.created_at, pushed.c.digest)
        return [PushedImage(**row) for row in (await self._db.execute(query)).mappings()]

    async def list(self, tenant: str, user: str, page: Page) -> Sequence[PushedImage]:
        """A user's files, oldest first or in the page's order."""
        query = narrowed(select(pushed).where(_belongs(tenant, user)), PUSHED_FIELDS, page.filters)
        if not page.order_by:
            query = query.order_by(pushed.c.created_at)
        rows = await self._db.execute(windowed(query, PUSHED_FIELDS, page, pushed.c.digest))
        return [PushedImage(**row) for row in rows.mappings()]

    async def count(self, tenant: str, user: str, page: Page) -> int:
        """How many ``list`` would answer without a window."""
        query = select(func.count()).select_from(pushed).where(_belongs(tenant, user))
        return int((await self._db.execute(narrowed(query, PUSHED_FIELDS, page.filters))).scalar_one())

    async def remove(self, tenant: str, user: str, digest: str) -> None:
        """NotFound when there is none."""
        query = delete(pushed).where(_belongs(tenant, user), pushed.c.digest == digest)
        if changed(await self._db.execute(query)) == 0:
            raise NotFound("pushed image", digest)

    async def remove_all(self, tenant: str, user: str) -> None:
        """The user is gone: whoever gets the name next has pushed nothing."""
        await self._db.execute(delete(pushed).where(_belongs(tenant, user)))

    async def is_used(self, digest: str) -> bool:
        """Whether anyone has pushed these bytes."""
        count = select(func.count()).select_from(pushed).where(pushed.c.digest == digest)
        return bool((await self._db.execute(count)).scalar_one())


def _belongs(tenant: str, user: str) -> ColumnElement[bool]:
    return and_(pushed.c.tenant == tenant, pushed.c.user == user)
