"""What every table is made of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Index,
    MetaData,
    text,
)

from scheduler.store.columns import Instant, RowId, Words

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def row_id() -> Column[int]:
    """A number that the database gives each row."""
    return Column("id", RowId, primary_key=True, autoincrement=True)


def words(name: str, *, null: bool = False, **kwargs: Any) -> Column[str]:
    """Text, which must be there unless ``null``."""
    return Column(name, Words, nullable=null, **kwargs)


def at(name: str, *, null: bool = True) -> Column[Any]:
    """An instant; empty for what has not happened."""
    return Column(name, Instant, nullable=null)


def only_where_set(name: str) -> Index:
    """An index of the few rows in which a column is not empty."""
    there = text(f"{name} IS NOT NULL")
    return Index(None, name, sqlite_where=there, postgresql_where=there)


def only_where_empty(empty: str, *names: str, unique: bool = False) -> Index:
    """An index over the rows in which a column is empty."""
    there = text(f"{empty} IS NULL")
    return Index(None, *names, unique=unique, sqlite_where=there, postgresql_where=there)
