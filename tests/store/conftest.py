"""Every store test runs on SQLite and on PostgreSQL; the latter is Debian's, started here on a socket of its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
from scheduler.store.schema import metadata
from testbed.postgresql import database_in, postgresql
from tests.store.things import tenant_and_site


@pytest.fixture(scope="session")
def server() -> Iterator[Path]:
    """A PostgreSQL that lives as long as the tests."""
    with postgresql(durable=False) as directory:
        yield directory


@pytest.fixture(scope="session")
def filled_postgresql(server: Path) -> Iterator[str]:
    """The url of a database with tables and tenants; making one takes half a second, so tests take turns."""
    with database_in(server) as url:
        asyncio.run(fill(url))
        yield url


@pytest.fixture
def postgresql_url(server: Path, filled_postgresql: str) -> Iterator[str]:
    """A PostgreSQL database with the tables and the tenants ``dev`` and ``other``, and nothing else."""
    yield filled_postgresql
    kept = {"sites", "tenants", "tenant_hosts"}
    used = ", ".join(table.name for table in metadata.sorted_tables if table.name not in kept)
    name = make_url(filled_postgresql).database
    with psycopg.connect(host=str(server), user="berth", dbname=name, autocommit=True) as admin:
        admin.execute(f"TRUNCATE {used} RESTART IDENTITY".encode())


@pytest.fixture(scope="session")
def filled_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file, to copy."""
    path = tmp_path_factory.mktemp("filled") / "berth.sqlite"
    asyncio.run(fill(f"sqlite+aiosqlite:///{path}"))
    return path


async def fill(url: str) -> None:
    database = Database(url)
    await database.create_tables()
    await tenant_and_site(database, "dev", "other")
    await database.aclose()


@pytest.fixture
def sqlite_url(filled_sqlite: Path, tmp_path: Path) -> str:
    """The same on SQLite."""
    return f"sqlite+aiosqlite:///{shutil.copy(filled_sqlite, tmp_path / 'berth.sqlite')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The url of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite"
    else:
        with database_in(request.getfixturevalue("server")) as url:
            yield url


@pytest.fixture(params=["sqlite_url", "postgresql_url"], ids=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The url of a database of each kind with the tables and the tenants ``dev`` and ``other``."""
    value: str = request.getfixturevalue(request.param)
    return value


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """The same, open."""
    opened = Database(url, sealer=SecretBox(bytes(32)))
    yield opened
    await opened.aclose()


@pytest.fixture
async def on_postgresql(postgresql_url: str) -> AsyncIterator[Database]:
    """As ``database``, on PostgreSQL only: for what SQLite drops without a word."""
    opened = Database(postgresql_url, sealer=SecretBox(bytes(32)), pool_size=20)
    yield opened
    await opened.aclose()


@pytest.fixture
async def on_sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    """As ``database``, on SQLite only."""
    opened = Database(sqlite_url, sealer=SecretBox(bytes(32)))
    yield opened
    await opened.aclose()
