"""Bring a database to a revision: ``berth up`` does it on SQLite after a backup, ``berth db upgrade`` anywhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.pool import NullPool


def upgrade(url: str, revision: str = "head") -> Path | None:
    """Bring the database at ``url`` (as ``Database`` takes it) up to a revision. Blocks; not on the event loop.

    An SQLite file that has to change is copied first, next to itself; returns the copy, None where none was needed.
    """
    with _connected(url) as (connection, config):
        target = ScriptDirectory.from_config(config).get_revision(revision)
        if target is not None and target.revision == _revision(connection):
            return None
        copy = _back_up(make_url(url), f"before-{target.revision if target else revision}")
        command.upgrade(config, revision)
        return copy


def downgrade(url: str, revision: str) -> None:
    """Bring the database back to an earlier revision; ``base`` is an empty database."""
    with _connected(url) as (_, config):
        command.downgrade(config, revision)


def current(url: str) -> str | None:
    """The revision of the database; None for one without tables."""
    with _connected(url) as (connection, _):
        return _revision(connection)


def head() -> str | None:
    """The newest revision that this Berth knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


@contextmanager
def _connected(url: str) -> Iterator[tuple[Connection, Config]]:
    """An open transaction on the database, and the configuration that runs revisions in it."""
    engine = create_engine(_blocking(make_url(url)), poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        _transactions_hold_ddl(engine)
    with engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        yield connection, config


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _blocking(url: URL) -> URL:
    """The same database by a driver that blocks: psycopg does both, SQLite's own is ``pysqlite``."""
    return url.set(drivername="sqlite") if url.get_backend_name() == "sqlite" else url


def _transactions_hold_ddl(engine: Engine) -> None:
    """Make a revision on SQLite happen whole or not at all: the driver would commit before every CREATE."""

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _back_up(url: URL, suffix: str) -> Path | None:
    """Copy an SQLite database that holds anything; the copy is consistent even while others use the file."""
    if url.get_backend_name() != "sqlite" or not url.database or not Path(url.database).stat().st_size:
        return None
    copy = Path(f"{url.database}.{suffix}")
    with closing(sqlite3.connect(url.database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy
