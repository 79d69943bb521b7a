"""Every store test runs on SQLite and on PostgreSQL; the latter is Debian's, started here on a socket of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
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


@pytest.fixture
def postgresql_url(postgresql: Path) -> Iterator[str]:
    """An empty database."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(host=str(postgresql), user="berth", dbname="postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield f"postgresql+psycopg://berth@/{name}?host={postgresql}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The url of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
async def database(empty_url: str) -> AsyncIterator[Database]:
    """A database of each kind with the tables and the tenants ``dev`` and ``other``."""
    opened = Database(empty_url, sealer=SecretBox(bytes(32)))
    await opened.create_tables()
    await tenant_and_site(opened, "dev", "other")
    yield opened
    await opened.aclose()


@pytest.fixture
async def on_postgresql(postgresql_url: str) -> AsyncIterator[Database]:
    """As ``database``, on PostgreSQL only: for what SQLite drops without a word."""
    opened = Database(postgresql_url, sealer=SecretBox(bytes(32)), pool_size=20)
    await opened.create_tables()
    await tenant_and_site(opened, "dev", "other")
    yield opened
    await opened.aclose()
