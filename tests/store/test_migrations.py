"""The schema that migrations make is the schema that the code means."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import OperationalError

from migrations import run
from scheduler.security.secrets import SecretBox
from scheduler.store.database import Database
from scheduler.store.schema import metadata
from tests.store.things import added, tenant_and_site


def differences(url: str) -> list[object]:
    with run._connected(url) as (connection, _):
        return list(compare_metadata(MigrationContext.configure(connection, {"compare_type": True}), metadata))


def test_the_migrated_schema_is_the_one_in_the_code(empty_url):
    run.upgrade(empty_url)
    assert differences(empty_url) == []
    assert run.current(empty_url) == run.head()


def test_every_revision_can_be_taken_back_and_applied_again(empty_url):
    run.upgrade(empty_url)
    run.downgrade(empty_url, "base")
    assert run.current(empty_url) is None
    assert {difference[0] for difference in differences(empty_url)} == {"add_table", "add_index"}
    run.upgrade(empty_url)
    assert differences(empty_url) == []


def test_upgrading_what_is_up_to_date_changes_nothing(empty_url):
    run.upgrade(empty_url)
    assert run.upgrade(empty_url) is None
    assert differences(empty_url) == []


async def test_a_migrated_database_works(empty_url):
    run.upgrade(empty_url)
    database = Database(empty_url, sealer=SecretBox(bytes(32)))
    await tenant_and_site(database, "dev")
    assert (await added(database)).id > 0
    await database.aclose()


def test_an_sqlite_file_is_copied_before_it_changes(tmp_path):
    path = tmp_path / "berth.sqlite"
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE precious AS SELECT 'kept' AS what")
    copy = run.upgrade(f"sqlite+aiosqlite:///{path}")
    with closing(sqlite3.connect(copy)) as kept:
        assert kept.execute("SELECT what FROM precious").fetchall() == [("kept",)]
        assert kept.execute("SELECT count(*) FROM sqlite_master").fetchall() == [(1,)]


def test_a_new_sqlite_file_needs_no_copy(tmp_path):
    assert run.upgrade(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") is None
    assert [path.name for path in tmp_path.iterdir()] == ["berth.sqlite"]


def test_a_revision_that_fails_leaves_an_sqlite_file_as_it_was(tmp_path):
    path = tmp_path / "berth.sqlite"
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE users (mine TEXT)")
    with pytest.raises(OperationalError, match="already exists"):
        run.upgrade(f"sqlite+aiosqlite:///{path}")
    with closing(sqlite3.connect(path)) as after:
        assert after.execute("SELECT name FROM sqlite_master").fetchall() == [("users",)]
