"""Every store test runs on SQLite and on PostgreSQL; the latter is Debian's, started here on a socket of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
from scheduler.store.schema import metadata
from tests.store.things import tenant_and_site

POSTGRESQL_BIN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Path]:
    """The socket directory of a PostgreSQL that lives as long as the tests. Root runs it as ``postgres``."""
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    home = Path(tempfile.mkdtemp(prefix="berth-pg-"))
    if as_postgres:
        shutil.chown(home, "postgres", "postgres")

    def run(program: str, *args: str) -> None:
        command = [*as_postgres, str(POSTGRESQL_BIN / program), *args]
        subprocess.run(command, check=True, cwd=home, stdout=subprocess.DEVNULL, timeout=120)

    data = str(home / "data")
    run("initdb", "-D", data, "-U", "berth", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-k {home} -c listen_addresses='' -c max_connections=60 -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        yield home
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(home)


@contextmanager
def created(postgresql: Path) -> Iterator[str]:
    """A new database, and its url."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(host=str(postgresql), user="berth", dbname="postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield f"postgresql+psycopg://berth@/{name}?host={postgresql}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def filled_postgresql(postgresql: Path) -> Iterator[str]:
    """The url of a database with tables and tenants; making one takes half a second, so tests take turns."""
    with created(postgresql) as url:
        asyncio.run(fill(url))
        yield url


@pytest.fixture
def postgresql_url(postgresql: Path, filled_postgresql: str) -> Iterator[str]:
    """A PostgreSQL database with the tables and the tenants ``dev`` and ``other``, and nothing else."""
    yield filled_postgresql
    kept = {"sites", "tenants", "tenant_hosts"}
    used = ", ".join(table.name for table in metadata.sorted_tables if table.name not in kept)
    name = make_url(filled_postgresql).database
    with psycopg.connect(host=str(postgresql), user="berth", dbname=name, autocommit=True) as admin:
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
        with created(request.getfixturevalue("postgresql")) as url:
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
