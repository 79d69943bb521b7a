"""Statements that SQLAlchemy writes differently for each database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, CursorResult, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession


async def insert_new(db: AsyncSession, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row; False, with nothing changed, when one with the same key exists."""
    made = _insert(db, table).values(**values).on_conflict_do_nothing().returning(*table.primary_key)
    return (await db.execute(made)).one_or_none() is not None


async def put_row(db: AsyncSession, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace the one with the same primary key."""
    key = [column.name for column in table.primary_key]
    rest = {name: value for name, value in values.items() if name not in key}
    await db.execute(_insert(db, table).values(**values).on_conflict_do_update(index_elements=key, set_=rest))


async def put_newer_rows(db: AsyncSession, rows: Sequence[Mapping[str, Any]], version: Column[Any]) -> None:
    """Insert rows; one with the same primary key is replaced unless ``version`` says that it is newer."""
    if not rows:
        return
    made = _insert(db, version.table)
    key = [column.name for column in version.table.primary_key]
    rest = {column.name: made.excluded[column.name] for column in version.table.columns if column.name not in key}
    newer = made.excluded[version.name] >= version
    await db.execute(made.on_conflict_do_update(index_elements=key, set_=rest, where=newer), rows)


def changed(result: Any) -> int:
    """How many rows a write met."""
    assert isinstance(result, CursorResult)
    return result.rowcount


def is_postgresql(db: AsyncSession) -> bool:
    """Whether ``db`` speaks to PostgreSQL."""
    return db.get_bind().dialect.name == "postgresql"


def _insert(db: AsyncSession, table: Table) -> Any:
    return (postgresql if is_postgresql(db) else sqlite).insert(table)
