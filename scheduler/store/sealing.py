"""Columns that nobody may read: encrypted by whatever box the database was opened with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sqlalchemy import Table, and_, select, update
from sqlalchemy.ext.asyncio import AsyncSession


class Sealer(Protocol):
    """Encrypts what must not lie readable in the database. ``context`` binds a secret to its row."""

    def encrypt(self, secret: str, context: str) -> str: ...

    def decrypt(self, sealed: str, context: str) -> str: ...


def sealer_of(db: AsyncSession) -> Sealer:
    """The box given to the database."""
    sealer: Sealer | None = db.info["sealer"]
    if sealer is None:
        raise RuntimeError("this database was opened without a box for secrets")
    return sealer


async def reseal(db: AsyncSession, table: Table, columns: Mapping[str, Callable[[Mapping[str, Any]], str]]) -> int:
    """Open and seal anew these columns, each with what tells its context, in every row; how many rows there were."""
    sealer, key = sealer_of(db), list(table.primary_key)
    rows = (await db.execute(select(*key, *(table.c[name] for name in columns)).with_for_update())).mappings()
    every = [dict(row) for row in rows]
    for row in every:
        fresh = {
            name: row[name] and sealer.encrypt(sealer.decrypt(row[name], context(row)), context(row))
            for name, context in columns.items()
        }
        same = and_(*(column == row[column.name] for column in key))
        await db.execute(update(table).where(same).values(fresh))
    return len(every)
