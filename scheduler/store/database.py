"""The database behind the stores: how it is opened, and what a transaction is on SQLite and on PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlalchemy import Engine, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from scheduler.store.schema import metadata
from scheduler.store.sealing import Sealer

SQLITE_READERS = 4
SQLITE_BUSY_TIMEOUT_MS = 30_000
SQLITE_PRAGMAS = {
    "journal_mode": "WAL",  # readers never wait for the writer
    "synchronous": "FULL",  # a commit that was answered survives a power cut; NORMAL would lose the last ones
    "foreign_keys": "ON",
    "busy_timeout": SQLITE_BUSY_TIMEOUT_MS,
    "case_sensitive_like": "ON",  # as PostgreSQL
}


class Database:
    """One database, opened when first used.

    url: ``sqlite+aiosqlite:///path`` or ``postgresql+psycopg://...``. pool_size: connections at most (PostgreSQL).
    sealer: needed by the stores that keep secrets.
    """

    def __init__(self, url: str, *, sealer: Sealer | None = None, pool_size: int = 10) -> None:
        self._writer, self._reader = _engines(url, pool_size)
        info: dict[Any, Any] = {"sealer": sealer}
        self._writing = async_sessionmaker(self._writer, expire_on_commit=False, autoflush=False, info=info)
        self._reading = async_sessionmaker(self._reader, expire_on_commit=False, autoflush=False, info=info)

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction: committed at the end, rolled back by any exception. Keep it short: no network inside.

        On SQLite one is open at a time, others wait in turn.
        """
        return self._writing.begin()

    def reading(self) -> AbstractAsyncContextManager[AsyncSession]:
        """For reading only: never waits behind a writer; each statement sees what was committed before it."""
        return self._reading()

    async def create_tables(self) -> None:
        """All tables in an empty database, for tests; production migrates (``migrations.run``)."""
        async with self._writer.begin() as connection:
            await connection.run_sync(metadata.create_all)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()


def _engines(url: str, pool_size: int) -> tuple[AsyncEngine, AsyncEngine]:
    """The engines for writing and for reading."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(url, connections=1, writes=True), _sqlite(url, connections=SQLITE_READERS, writes=False)
    engine = create_async_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=60,
        skip_autocommit_rollback=True,
    )
    return engine, engine.execution_options(isolation_level="AUTOCOMMIT")


def _sqlite(url: str, *, connections: int, writes: bool) -> AsyncEngine:
    """An engine whose pool is the queue of waiting writers, or the readers."""
    engine = create_async_engine(
        url, pool_size=connections, max_overflow=0, pool_timeout=60, skip_autocommit_rollback=not writes
    )
    pragmas = SQLITE_PRAGMAS if writes else SQLITE_PRAGMAS | {"query_only": "ON"}
    _prepare(engine.sync_engine, pragmas, begin="BEGIN IMMEDIATE" if writes else None)
    return engine


def _prepare(engine: Engine, pragmas: dict[str, Any], begin: str | None) -> None:
    """Take transactions out of the driver's hands: it would begin them late and without the write lock."""

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name}={value}")
        cursor.close()

    if begin is not None:

        @event.listens_for(engine, "begin")
        def begin_at_once(connection: Any) -> None:
            connection.exec_driver_sql(begin)
