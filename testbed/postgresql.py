"""A throw-away PostgreSQL: Debian's programs, a directory and a Unix socket of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PROGRAMS = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def postgresql(*, durable: bool = True) -> Iterator[Path]:
    """A running server, as the directory of its socket; its superuser is ``berth``. Root runs it as ``postgres``.

    durable: False leaves out fsync, for tests that do not ask about it.
    """
    home = Path(tempfile.mkdtemp(prefix="berth-pg-"))
    as_postgres: list[str] = []
    if os.geteuid() == 0:
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        shutil.chown(home, "postgres", "postgres")

    def run(program: str, *args: str) -> None:
        command = [*as_postgres, str(PROGRAMS / program), *args]
        subprocess.run(command, check=True, cwd=home, stdout=subprocess.DEVNULL, timeout=120)

    data = str(home / "data")
    run("initdb", "-D", data, "-U", "berth", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-k {home} -c listen_addresses='' -c max_connections=60 -c fsync={'on' if durable else 'off'}"
    run("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        yield home
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(home)


@contextmanager
def database_in(server: Path) -> Iterator[str]:
    """An empty database in a running server, as a url for ``Database``."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(host=str(server), user="berth", dbname="postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield f"postgresql+psycopg://berth@/{name}?host={server}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
